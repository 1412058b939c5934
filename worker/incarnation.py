"""This process in the ledger: one incarnation, kept alive by a native thread, and what it is told to stop.

With each renewal it compares how many jobs the ledger says it runs with those that it does run. A job that only the
ledger knows of, in two looks one after the other, is given back: no other process ever would.

The thread makes its own Redis client (under gevent, a socket belongs to the thread that opened it) and shares nothing
with jobs but a few attributes that it replaces as a whole.
It renews every second, whatever the jobs do: a GIL-bound job delays it by milliseconds, a busy gevent hub not at all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence

from redis.exceptions import RedisError

from ledger.jobs import Pool
from ledger.leases import Identity, Leases
from ledger.redis_client import PerProcess, connect
from ledger.settings import Settings
from worker.background import keep

log = logging.getLogger("downpour.worker")

_LOOK_CLOSELY = 10  # renewals after which the lists are compared even if their lengths agree


class Incarnation:
    def __init__(self, settings: Settings, worker: str, pool: Pool, family: str) -> None:
        self._settings = settings
        self.id = leases_of(settings).register(Identity(worker, pool, os.getpid(), family))
        self.lost = False
        self.away = False  # whether Redis did not answer when it was last asked
        self.stopping: frozenset[str] = frozenset()  # "ID NUMBER" of claims that should stop
        self._working: dict[object, Sequence[str]] = {}  # ids of the jobs of each message that is being worked on
        self._looks = 0
        self._unknown: frozenset[str] = frozenset()  # ids that the ledger alone knew of at the last look
        self._leases = PerProcess(lambda: leases_of(settings))  # of the thread that renews
        keep(f"lease {self.id}", settings.renew_every, self._renew)

    def _renew(self) -> bool:
        if self.lost:  # a job could not be closed: it is not to wait until the lease passes
            self._leases().end(self.id)
            return False
        try:
            renewed = self._leases().renew(self.id)
            if renewed is None:
                self.lost = True  # never taken back: a job may have said so meanwhile
                return False
            self.away, self.stopping = False, renewed.stopping
            self._compare(self._leases(), renewed.held)
        except (RedisError, OSError):  # the lease may pass meanwhile; the next renewal tells
            self.away = True
        return True

    @contextlib.contextmanager
    def working(self, ids: Sequence[str]) -> Iterator[None]:
        """These jobs are being worked on."""
        message = object()
        self._working[message] = ids
        try:
            yield
        finally:
            del self._working[message]

    def _compare(self, leases: Leases, held: int) -> None:
        running = {id_ for ids in tuple(self._working.values()) for id_ in ids}
        self._looks += 1
        if held <= len(running) and not self._unknown and self._looks % _LOOK_CLOSELY:
            return
        unknown = frozenset(leases.held(self.id) - running)
        if given_back := leases.give_back(self.id, unknown & self._unknown):
            log.warning("incarnation=%s gave back %d jobs that it does not run", self.id, given_back)
        self._unknown = unknown

    def end(self) -> None:
        """Go in peace: what it still holds is taken over at once."""
        self.lost = True
        with contextlib.suppress(RedisError, OSError):
            leases_of(self._settings).end(self.id)


class Incarnations:
    """The incarnation of the process that asks, made when it first asks, and anew after a fork or a lost lease."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.family = secrets.token_urlsafe(6)  # a fork keeps it
        self._lock = threading.Lock()
        self._current: Incarnation | None = None
        self._pid = 0

    def current(self, worker: str, pool: Pool) -> Incarnation:
        """
        Raises:
            redis.RedisError: Redis is away.
        """
        with self._lock:
            if self._current is None or self._current.lost or self._pid != os.getpid():
                self._current, self._pid = Incarnation(self._settings, worker, pool, self.family), os.getpid()
            return self._current

    @property
    def away(self) -> bool:
        """Whether Redis did not answer when the current one was last renewed."""
        return self._current is not None and self._current.away

    def end(self) -> None:
        if self._current is not None and self._pid == os.getpid():
            self._current.end()


def leases_of(settings: Settings) -> Leases:
    return Leases(connect(settings, connections=2), settings.key_prefix, settings.lease)


def keep_touching(
    settings: Settings, who: Identity, refs: Callable[[], Sequence[str]], allow: Callable[[bool], None]
) -> None:
    """Tell the ledger every second which messages this worker has in hand.

    Args:
        allow: is told each time whether the worker may take more.
    """

    leases = PerProcess(lambda: leases_of(settings))
    keep("messages in hand", settings.renew_every, lambda: allow(leases().touch(who.pool, refs(), who.worker)))
