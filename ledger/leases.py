"""Leases: each process that runs jobs renews its lease every second, and while it has none a longer one more seldom.

A worker process (a prefork child; the one process of a threads or gevent worker) registers once, as an *incarnation*,
and renews its own lease, so when it dies or freezes the lease passes, and the sweep takes its jobs over. A lease that
has passed is never revived: renewing answers ``None`` and the process begins anew under another id.

Leases are judged by the ledger clock, see ``lua/common.lua``: neither a jump of Redis' clock nor an absence of Redis
ends one. They are no keys with a time to live, which a Redis with an eviction policy removes first.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from redis import Redis

from ledger.jobs import Pool
from ledger.records import Keys
from ledger.redis_client import AT_ONCE, Library


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process an incarnation is."""

    worker: str
    pool: Pool | None  # None: not one of this version
    pid: int
    family: str = ""  # one name for all processes of a worker: they are killed together

    @classmethod
    def read(cls, text: str) -> Identity:
        """Of what a process wrote when it registered; never fails, so that one process stops no recovery of others."""
        try:
            who = json.loads(text)
            pool = Pool(who["pool"]) if who["pool"] in list(Pool) else None
            return cls(str(who["worker"]), pool, int(who["pid"]), str(who.get("family", "")))
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
            return cls("unknown", None, 0)


class End(StrEnum):
    """How a lease ends before its time."""

    ENDED = "ended"  # the process stopped by its own will
    DIED = "died"  # its parent has waited for it


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker process that the ledger knows."""

    incarnation: str
    identity: Identity
    left: float  # seconds; negative: it has passed
    end: End | None
    held: int  # jobs

    @property
    def alive(self) -> bool:
        return self.end is None and self.left > 0


@dataclass(frozen=True, slots=True)
class Renewed:
    held: int  # jobs that the ledger says this process runs
    stopping: frozenset[str]  # "ID NUMBER" of its claims that should stop


class Leases:
    def __init__(self, redis: Redis, prefix: str, lease: float) -> None:
        """
        Args:
            lease: seconds for which a renewal is good.
        """
        self._redis = redis
        self._lease_ms = round(lease * 1000)
        self._keys = Keys(prefix)
        self._call = Library(redis, prefix, "sweep")

    def register(self, who: Identity) -> str:
        """Begin an incarnation and return its id."""
        incarnation = secrets.token_urlsafe(6)
        self._call("renew", incarnation, self._lease_ms, json.dumps(asdict(who)))
        return incarnation

    def renew(self, incarnation: str, *, times: int = 1) -> Renewed | None:
        """Heartbeat; None if it was declared dead.

        Args:
            times: how many leases this one is as long as.
        """
        alive, *answer = self._call("renew", incarnation, times * self._lease_ms, "")
        return Renewed(int(answer[0]), frozenset(map(str, answer[1:]))) if alive == 1 else None

    def held(self, incarnation: str) -> set[str]:
        """Ids of the jobs that the ledger says it runs."""
        return {str(id_) for id_ in self._redis.smembers(self._keys.held(incarnation))}

    def give_back(self, incarnation: str, ids: Collection[str]) -> int:
        """These jobs it does not run, whatever the ledger says: they go back on their queues; how many did."""
        return int(self._call("give_back", incarnation, *ids)) if ids else 0

    def end(self, incarnation: str, how: End = End.ENDED) -> None:
        """The lease is over, so what the process still holds is taken over in the next round of the sweep."""
        self._call("leave", incarnation, how)

    def end_children(self, family: str, pids: Collection[int], how: End = End.DIED) -> list[str]:
        """End the incarnations of child processes that are known to be dead.

        Returns:
            Their ids; not those of children that had ended theirs, or were taken over before.
        """
        ended = []
        for lease in self.known():
            if lease.identity.family == family and lease.identity.pid in pids and lease.end is None:
                self.end(lease.incarnation, how)
                ended.append(lease.incarnation)
        return ended

    def known(self) -> list[Lease]:
        """All worker processes that were not taken over yet."""
        answer = self._call("leases")
        found = []
        for at in range(0, len(answer), 4):
            incarnation, text, left, held = answer[at : at + 4]
            end = End(left) if left in tuple(End) else None
            found.append(Lease(incarnation, Identity.read(text), 0.0 if end else int(left) / 1000, end, int(held)))
        return found

    def touch(self, pool: Pool, refs: Sequence[str], worker: str = "") -> tuple[bool, bool]:
        """Say that these messages are in a worker's hands, so that the sweep does not take them for vanished.

        Returns:
            Whether the worker may take more: its pool is not paused, and it is not drained. And whether a fault of a
            machine is noted, whichever worker's.
        """
        groups = [refs[at : at + AT_ONCE] for at in range(0, len(refs), AT_ONCE)] or [[]]
        for group in groups:
            may_take, faults = self._call("touch", pool, worker, *group)
        return bool(may_take), bool(faults)
