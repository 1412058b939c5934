"""How often all jobs of a process together may say how far they are.

A note is a call to Redis and an event for Flower, about a millisecond. A thousand downloads in one process that said it
every half second left two thirds of the processor to that; so it is them together that are limited.
"""

from __future__ import annotations


class Pace:
    def __init__(self, per_second: float, at_once: int) -> None:
        """
        Args:
            at_once: notes that may come together after a while without any.
        """
        self._every = 1.0 / per_second  # seconds
        self._ahead = (at_once - 1) * self._every
        self._due = 0.0  # time.monotonic() of the next one, if they came evenly

    def allows(self, now: float) -> bool:
        """Whether there may be one more note now; if so, it counts.

        Threads that ask at one moment may get one more between them, which harms nobody.

        Args:
            now: time.monotonic()
        """
        if self._due > now + self._ahead:
            return False
        self._due = max(self._due, now) + self._every
        return True
