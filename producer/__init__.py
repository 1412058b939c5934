"""What a person runs: ``producer submit | watch | status | results | cancel | compare``.

It imports ``ledger`` and nothing of ``worker``. Only ``cli`` prints.
"""
