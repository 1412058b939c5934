"""What a person runs: ``producer submit | watch | status | results | retry | cancel | compare | report | recommend``.

It imports ``ledger``, ``stack`` for workers of its own, and nothing of ``worker``. Only commands print.
"""
