"""A task that computes, for a Downpour worker that is told to include it: ``-I tests.matrix.downpour_burn``."""

from __future__ import annotations

import time
from pathlib import Path

from kombu.transport import redis

from worker import transport
from worker.app import app

transport.Transport.Channel = redis.Channel  # otherwise a message for this task is a dead letter


@app.task(name="burn")
def burn(begun: str, ended: str, seconds: float) -> None:
    """Pure Python that never waits for anything, between two files that say when."""
    Path(begun).touch()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
    Path(ended).touch()
