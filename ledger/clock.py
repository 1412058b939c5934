"""Redis' clock, as this machine's monotonic one tells it between two of Redis' answers."""

from __future__ import annotations

_TOLD_TO = 0.001  # seconds: Redis' scripts cut their moments to milliseconds


class Clock:
    """What to add to ``time.monotonic()`` for the time by Redis' clock.

    Redis looked at its clock somewhere between question and answer, so both bound what is to be added. The quickest
    answer so far decides as long as it lies within the bounds: one that was long on its way, or that a busy interpreter
    picked up late, changes nothing, and a clock that jumped or drifts is followed.
    """

    def __init__(self) -> None:
        self._known: float | None = None

    def learn(self, told: float, asked: float, answered: float) -> float:
        """
        Args:
            told: seconds since the epoch, by Redis.
            asked: ``time.monotonic()`` before.
            answered: ``time.monotonic()`` after.

        Returns:
            Seconds to add.
        """
        least, most = told - answered, told + _TOLD_TO - asked
        known = least if self._known is None else min(max(self._known, least), most)
        self._known = known
        return known
