"""Any project's Celery tasks as a workload: its own worker command on a private broker, without a changed line.

``fenced`` and ``probe`` run in the workers under test, ``private`` in them and here; the rest runs here. Nothing of a
project is imported before the network is fenced.
"""
