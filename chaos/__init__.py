"""Chaos, measured: workers, sweep, producer and Redis are killed under load, and then the books are balanced.

    python -m chaos run --seed 1 --kills 300 --jobs 100000 --out FILE.json
    python -m chaos stock --profile tuned --seed 1 --kills 40 --jobs 8000 --out FILE.json
    python -m chaos table FILE.json... > docs/chaos.md

mix (jobs) and schedule (faults) follow from a seed; fleet runs workers as a container runtime would; feed keeps them
busy; faults strikes; witness looks on; books, recovery and report say what came of it. A subject is who is struck:
Downpour, or a stock Celery app that does the same job.
"""
