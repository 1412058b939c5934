"""The same stack without Docker: Valkey from a wheel, and the Procfile's processes under a supervisor.

``make demo`` and ``make up`` run it from the shell; tests and benchmarks use ``stack.stack.Stack``.
"""
