"""What the origin remembers between requests; all of it is bounded."""

from collections import OrderedDict

from origin.digests import Digests

KEYS_REMEMBERED = 10_000
# Many paced answers share this many writes a second, so that 1,000 of them cost little CPU.
WRITES_PER_SECOND = 2_000
INTERVAL_MIN_S = 0.08


class State:
    """One origin's memory: digests, counters of stateful faults, and how many answers are paced."""

    def __init__(self) -> None:
        """Start without a past."""
        self.digests = Digests()
        self.paced = 0
        self._visits: OrderedDict[str, int] = OrderedDict()

    @property
    def pace_interval_s(self) -> float:
        """Return the time between two writes of one paced answer."""
        return max(INTERVAL_MIN_S, self.paced / WRITES_PER_SECOND)

    def visit(self, key: str, count: bool = True) -> int:
        """Return the number of this visit, from 1. Keys not seen for long are forgotten."""
        number = self._visits.get(key, 0) + 1
        if count:
            self._visits[key] = number
            self._visits.move_to_end(key)
            if len(self._visits) > KEYS_REMEMBERED:
                self._visits.popitem(last=False)
        return number
