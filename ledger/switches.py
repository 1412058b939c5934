"""Switches: a pool is paused, a worker is drained or has a fault of its machine. And the list of live workers.

A paused pool takes no new jobs anywhere; a drained worker takes none, the others of its pool do. What runs goes on.
Reserved messages stay queued in the ledger and are sent again later, so nothing is lost. The flags lie in Redis and
outlive every process. ``lua/job.lua`` obeys them at once. Within some three seconds a worker stops consuming its queue,
and the sweep sends nothing to a paused pool.
Kept true by ``tests/pools/test_control.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from ledger.jobs import Pool
from ledger.leases import Lease, Leases
from ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a worker is unwell: a fault of its machine, for which it takes no jobs."""

    reason: str
    since: float  # seconds since the epoch
    need: int = 0  # bytes of room that a job lacked


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker with a process that is alive. One of prefork has a process per slot."""

    name: str  # Celery node name, "threads@host"
    pool: Pool
    pids: tuple[int, ...]
    running: int  # jobs
    paused: bool
    drained: bool
    unwell: Fault | None


class Switches:
    def __init__(self, ledger: Ledger) -> None:
        self._redis = ledger.redis
        self._call = ledger.call
        self._keys = ledger.keys
        self._leases = Leases(ledger.redis, ledger.keys.prefix, 0.0)  # to read them

    def pause(self, pool: Pool) -> bool:
        """Whether that changed anything; so with the others."""
        return bool(self._call("switch_on", "paused", pool))

    def resume(self, pool: Pool) -> bool:
        return bool(self._redis.srem(self._keys.paused, pool))

    def drain(self, worker: str) -> bool:
        return bool(self._call("switch_on", "drained", worker))

    def undrain(self, worker: str) -> bool:
        return bool(self._redis.srem(self._keys.drained, worker))

    def paused(self) -> list[Pool]:
        names = self._redis.smembers(self._keys.paused)
        return [pool for pool in Pool if pool in names]

    def drained(self) -> list[str]:
        """Drained workers, whether they are alive or not."""
        return sorted(str(name) for name in self._redis.smembers(self._keys.drained))

    def note_well(self, worker: str) -> None:
        """The fault that ``Ledger.note_fault`` noted is over."""
        self._redis.hdel(self._keys.unwell, worker)

    def faults(self) -> dict[str, Fault]:
        """By worker, whether it is alive or not."""
        noted = self._redis.hgetall(self._keys.unwell)
        return {str(worker): _fault(text) for worker, text in noted.items()}

    def forget_faults_of_the_gone(self, faults: Iterable[str]) -> None:
        """Remove the notes of those workers that have no process any more."""
        known = {lease.identity.worker for lease in self._leases.known()}
        if gone := [worker for worker in faults if worker not in known]:
            self._redis.hdel(self._keys.unwell, *gone)

    def may_take(self, pool: Pool, worker: str) -> bool:
        return pool not in self.paused() and worker not in self.drained()

    def workers(self) -> list[LiveWorker]:
        """Those that are alive, by name."""
        paused, drained, unwell = self.paused(), self.drained(), self.faults()
        found: dict[tuple[str, Pool], list[Lease]] = {}
        for lease in self._leases.known():
            if lease.alive and lease.identity.pool:
                found.setdefault((lease.identity.worker, lease.identity.pool), []).append(lease)
        return [
            LiveWorker(
                name=name,
                pool=pool,
                pids=tuple(sorted(lease.identity.pid for lease in leases)),
                running=sum(lease.held for lease in leases),
                paused=pool in paused,
                drained=name in drained,
                unwell=unwell.get(name),
            )
            for (name, pool), leases in sorted(found.items())
        ]


def _fault(text: str | bytes) -> Fault:
    try:
        return Fault(**json.loads(text))
    except (ValueError, TypeError):
        return Fault("a note that cannot be read", 0.0)
