"""Host limits: how many downloads a host gets at once, and per second, from all workers together.

Guarantees
  * At most ``per_host`` downloads from a host at a time, whatever pools and machines they run in.
  * At most ``per_host_rate`` begin per second on average, and one second's worth at once.
  * None begins during the cool-down of a host that sent Retry-After.
  * A job that may not begin waits in the ledger and takes no worker's slot, so no host starves another.
  * A slot lasts as long as the claim that has it: a killed worker's slots are free when its lease has lapsed.

No guarantee
  * Redirects and the requests of one download (a resume, a retry) count as one start, at the host of its first URL.
    The rate is charged for a retry inside a job afterwards.

Without limits no call is made, and no cool-down is shared. With limits it is one call per job. Freeing the slot comes
with closing the record; only if a job waits for the slot, a second call wakes it.
Kept true by ``tests/service/test_host_limits.py`` and ``tests/pools/test_polite_workers.py``.
"""

from __future__ import annotations

from enum import Enum

from redis import Redis

from ledger.jobs import Pool
from ledger.ledger import Claim
from ledger.records import Keys
from ledger.redis_client import Library
from ledger.settings import Settings


class Admission(Enum):
    """What a host has for a job."""

    GRANTED = 1  # a slot
    PARKED = 0  # a place in its queue; the claim is over
    VOID = -1  # nothing: the claim was over before


class HostLimits:
    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._hosts = Keys(settings.key_prefix).hosts
        self._limits = (settings.per_host, settings.per_host_rate)
        self._call = Library(redis, settings.key_prefix, "host_limits")

    @property
    def on(self) -> bool:
        return any(self._limits)

    def acquire(self, claim: Claim, host: str) -> Admission:
        """Ask for a slot, or change to another host's. A job that gets none is no longer the caller's."""
        return Admission(self._call("acquire", *claim.proof, host, *self._limits))

    def cool(self, host: str, seconds: float) -> float:
        """Begin a cool-down: no download starts for that long. The host's rate is charged for one start, the retry.

        Returns:
            Seconds until the host may be asked again.
        """
        return float(self._call("cool", host, round(seconds * 1000), self._limits[1])) / 1000

    def wake(self, host: str, *, by_sweep: bool = False) -> list[tuple[str, Pool]]:
        """Queue jobs that wait for a host, as many as it has room for now.

        Args:
            by_sweep: the sweep will send their messages.

        Returns:
            Their ids and pools; a message must be sent for each.
        """
        woken = self._call("wake", host, *self._limits, int(by_sweep))
        return [(id_, Pool(pool)) for id_, pool in zip(woken[::2], woken[1::2], strict=True)]

    def wake_all(self) -> int:
        """For the sweep: a cool-down that is over, a rate that has room again, a wake that got lost."""
        return sum(len(self.wake(str(host), by_sweep=True)) for host in self._redis.smembers(self._hosts))
