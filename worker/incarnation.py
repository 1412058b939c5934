"""This process in the ledger: one incarnation, kept alive by a native thread, and what it is told to stop.

The thread makes its own Redis client (under gevent, a socket belongs to the thread that opened it) and shares nothing
with jobs but a few attributes that it replaces as a whole.
It renews every second, whatever the jobs do: a GIL-bound job delays it by milliseconds, a busy gevent hub not at all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from download.native import native_sleep, start_native_thread
from ledger.connection import connect
from ledger.jobs import Pool
from ledger.leases import Identity, Leases
from ledger.settings import Settings


class Incarnation:
    def __init__(self, settings: Settings, worker: str, pool: Pool, family: str) -> None:
        self._settings = settings
        self.id = leases_of(settings).register(Identity(worker, pool, os.getpid(), family))
        self.lost = False
        self.away = False  # whether Redis did not answer when it was last asked
        self.stopping: frozenset[str] = frozenset()  # ids of jobs that should stop
        start_native_thread(f"lease {self.id}", self._renew_until_lost)

    def _renew_until_lost(self) -> None:
        leases = leases_of(self._settings)
        while not self.lost:
            try:
                stopping = leases.renew(self.id)
            except (RedisError, OSError):  # the lease may lapse; renewing tells
                self.away = True
            else:
                self.away, self.stopping = False, frozenset(stopping or ())
                if stopping is None:  # never taken back: a job may have said so meanwhile
                    self.lost = True
            native_sleep(self._settings.renew_every)

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
    """From a native thread, tell the ledger every second which messages this worker has in hand.

    Args:
        allow: is told each time whether the worker may take more.
    """

    def loop() -> None:
        leases = leases_of(settings)
        while True:
            with contextlib.suppress(RedisError, OSError):
                allow(leases.touch(who.pool, refs(), who.worker))
            native_sleep(settings.renew_every)

    start_native_thread("messages in hand", loop)
