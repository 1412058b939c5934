"""Incarnations: a process that runs jobs, and its lease.

Each process that executes jobs (a prefork child; the one process of a threads or gevent worker) registers once and
renews every second. Nobody renews for it, so when it dies or freezes its lease expires, and the sweep takes its jobs
over. A lease that expired is never revived: renewing answers ``None`` and the process starts anew under another id.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from redis import Redis

from ledger.connection import load_script
from ledger.jobs import Pool
from ledger.keys import Keys

_TOUCH_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an incarnation is, for people."""

    worker: str
    pool: Pool
    pid: int
    family: str = ""  # a name that its parent process made up and only its children know


class Leases:
    """The worker's side of leases."""

    def __init__(self, redis: Redis, prefix: str, lease: float) -> None:
        self._redis = redis
        self._prefix = prefix
        self._lease_ms = round(lease * 1000)
        self._keys = Keys(prefix)
        self._renew = load_script(redis, "renew")
        self._touch = load_script(redis, "touch")

    def register(self, who: Identity) -> str:
        """Begin an incarnation and return its id. The lease first: without one the sweep would bury it at once."""
        incarnation = secrets.token_urlsafe(6)
        self._redis.set(self._keys.lease(incarnation), 1, px=self._lease_ms)
        self._redis.hset(self._keys.incarnations, incarnation, json.dumps(asdict(who)))
        return incarnation

    def renew(self, incarnation: str) -> set[str] | None:
        """Heartbeat.

        Returns:
            The ids of its jobs that should stop; None if it was declared dead.
        """
        answer = self._renew(args=[self._prefix, incarnation, self._lease_ms])
        return set(answer[1:]) if answer[0] == 1 else None

    def end(self, incarnation: str) -> None:
        """A process that goes in peace. The lease goes, so what it still holds is taken over at the next sweep."""
        self._redis.delete(self._keys.lease(incarnation))

    def end_children(self, family: str, pids: Collection[int]) -> list[str]:
        """End the incarnations of child processes that are known to be dead.

        Returns:
            Their ids; none of a child that went in peace, or was taken over before.
        """
        ended = []
        for incarnation, identity in self._redis.hgetall(self._keys.incarnations).items():
            who = json.loads(identity)
            if who.get("family") == family and who["pid"] in pids:
                self.end(str(incarnation))
                ended.append(str(incarnation))
        return ended

    def touch(self, pool: Pool, refs: Sequence[str], worker: str = "") -> bool:
        """Say that these messages are in a worker's hands, so that the sweep does not take them for vanished.

        Returns:
            Whether the worker may take more: its pool is not paused, and it is not drained.
        """
        groups = [refs[at : at + _TOUCH_AT_ONCE] for at in range(0, len(refs), _TOUCH_AT_ONCE)] or [[]]
        answers = [self._touch(args=[self._prefix, pool, worker, *group]) for group in groups]
        return all(answers)
