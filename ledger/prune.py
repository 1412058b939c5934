"""Removing batches: only what has ended, a few hundred jobs at a time, and without a look at anything else.

A batch that is being removed takes no jobs any more. If whoever removes it dies, the next one goes on.
Files are not touched. Kept true by ``tests/service/test_prune.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ledger.ledger import Ledger

_AT_ONCE = 500  # jobs per call: a few milliseconds of Redis' time
_NAMES = 100  # of old batches, read at once
_KEPT = {-1: "is not known", -2: "has not finished", -3: "ended too lately"}


class KeptError(Exception):
    """A batch stays."""

    def __init__(self, batch: str, why: str) -> None:
        super().__init__(f"batch {batch!r} {why}")
        self.why = why


class Prune:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def batch(self, name: str, *, ended_for: float = 0.0, force: bool = False) -> Iterator[int]:
        """Remove a batch, group by group.

        Args:
            ended_for: only if its last job ended so many seconds ago.
            force: also if jobs of it have not ended; whoever runs one publishes nothing. To be cancelled first.

        Yields:
            Jobs left; 0 is the last.

        Raises:
            KeptError: it stays, all of it.
        """
        first, left = 0, 1
        while left > 0:
            left = int(self._ledger.call("prune", name, first, _AT_ONCE, int(force), round(ended_for * 1000)))
            if left < 0:
                raise KeptError(name, _KEPT[left])
            first += _AT_ONCE
            yield left


class Expiry:
    """Removes what ended long ago, a small step at a time."""

    def __init__(self, ledger: Ledger, keep: float) -> None:
        """
        Args:
            keep: seconds that a batch stays after its last job ended; 0: for ever.
        """
        self._ledger = ledger
        self._keep = keep
        self._walk: Iterator[int] = iter(())

    def step(self, most: int = 20) -> int:
        """At most so many calls of Redis.

        Returns:
            Batches that are gone with this step.
        """
        if not self._keep:
            return 0
        done = list(islice(self._walk, most))
        if len(done) < most:  # through with the list: the next step begins anew
            self._walk = self._through()
        return done.count(0)

    def _through(self) -> Iterator[int]:
        """Once through the batches that are old enough, those that stay included."""
        redis, batches, prune = self._ledger.redis, self._ledger.keys.batches, Prune(self._ledger)
        seconds, microseconds = redis.time()
        oldest, at = round((seconds - self._keep) * 1000 + microseconds / 1000), 0
        while names := redis.zrangebyscore(batches, "-inf", oldest, start=at, num=_NAMES):
            yield 1
            for name in names:
                try:
                    yield from prune.batch(str(name), ended_for=self._keep)
                except KeptError:
                    at += 1
                    yield 1
