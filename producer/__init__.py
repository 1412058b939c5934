"""What a person runs: ``producer submit | watch | status | results | retry | cancel | compare | report | recommend``.

It imports ``ledger``, the rules for names and digests of ``download``, ``poolbench`` and ``stack`` for comparisons, and
nothing of ``worker``. Only commands print.
"""
