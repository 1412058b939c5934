"""What this machine really gives: one process per core burns CPU for a moment, and its own clock is compared with ours.

A virtual machine may have two cores and get the time of one and a half; neighbours, and whatever else runs, take their
part. Two threads on "two cores" say little where nobody looked.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from producer.comparison.experiment import Cores

SECONDS = 0.3
# All begin at one moment, after they all have started.
_BURN = """
import sys, time
begin, seconds = float(sys.argv[1]), float(sys.argv[2])
time.sleep(max(0.0, begin - time.monotonic()))
begun, cpu = time.monotonic(), time.process_time()
while (now := time.monotonic()) < begun + seconds:
    pass
print((time.process_time() - cpu) / (now - begun))
"""
_START = 0.15  # seconds for a bare interpreter


def nominal() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def probe(cores: int | None = None, seconds: float = SECONDS) -> float:
    """Cores that were really ours for so many seconds."""
    begin = str(time.monotonic() + _START)
    burning = [
        subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", "-c", _BURN, begin, str(seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
            text=True,
        )
        for _ in range(cores or nominal())
    ]
    try:
        answers = [process.communicate(timeout=seconds + 10)[0] for process in burning]
    finally:
        for process in burning:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()
    return sum(float(answer or 0) for answer in answers)


class Probes:
    """The probes of an experiment."""

    def __init__(self, look: Callable[[], float] = probe) -> None:
        self._look = look
        self.seen: list[float] = []

    def look(self) -> float:
        self.seen.append(round(self._look(), 3))
        return self.seen[-1]

    def dropped(self, share: float) -> str | None:
        """Why the last probe spoils what follows: it found less than that share of the best one."""
        best, last = max(self.seen, default=0.0), self.seen[-1] if self.seen else 0.0
        if last >= share * best:
            return None
        return f"only {last:.2f} cores were ours before the round, {best:.2f} at its best"

    def cores(self) -> Cores | None:
        return summary(self.seen)


def summary(seen: Sequence[float]) -> Cores | None:
    return Cores(nominal(), round(statistics.median(seen), 3), tuple(seen)) if seen else None
