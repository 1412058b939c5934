"""Chaos, measured: workers, sweep, producer and Redis are killed under load, and then the books are balanced.

mix (jobs) and schedule (faults) follow from a seed; fleet runs workers as a container runtime would; feed keeps them
busy; faults carries the faults out; books, findings and report say what came of it; table makes docs/chaos.md of it. A
subject is the system under test: Downpour, or a stock Celery app that does the same job.
"""
