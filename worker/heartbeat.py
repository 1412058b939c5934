"""This process in the ledger: its lease, what it is told to stop, the messages in hand, and children that died.

All of it runs in native threads, which no busy gevent hub starves: a GIL-bound job delays a renewal by milliseconds, a
busy hub not at all. Each thread makes its own Redis client (under gevent, a socket belongs to the thread that opened
it) and shares nothing with jobs but a few attributes that it replaces as a whole.

With each renewal a process compares how many jobs the ledger says it runs with those that it does run. A job that only
the ledger knows of, in two looks one after the other, is given back: no other process ever would.
Kept true by ``tests/service/test_leases.py``, ``tests/fault/test_claims.py``, ``tests/fault/test_killed_workers.py``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from redis.exceptions import RedisError

from download.threads import native, start_native_thread
from ledger.jobs import Pool
from ledger.leases import End, Identity, Leases
from ledger.redis_client import PerProcess, connect
from ledger.settings import Settings
from worker import drain

log = logging.getLogger("downpour.worker")

_PATIENCE = 60.0  # seconds that a loop may fail before the process ends
_DOZE, _DOZE_EVERY = 4, 1.6  # leases: the lease of a process without a job, and how often it is renewed
_COMPARE_EVERY = 10  # renewals after which the lists are compared even if their lengths agree


def repeat(name: str, every: float, step: Callable[[], object], *, rest: Callable[[], object] | None = None) -> None:
    """Call a step every so many seconds in a native thread, until it returns ``False``.

    While Redis or the disk is away the step is tried again in silence. Any other error is logged once and the step is
    tried again; if that goes on for a minute the process is told to stop, because it would go on taking jobs without
    what the step does for them.

    Args:
        rest: sleeps until the next step, instead of for ``every`` seconds.
    """
    rest = rest or partial(native("time", "sleep"), every)

    def loop() -> None:
        failures = 0
        try:
            while failures * every < _PATIENCE:
                try:
                    if step() is False:
                        return
                    failures = 0
                except (RedisError, OSError):
                    pass
                except Exception:
                    failures += 1
                    if failures == 1:
                        log.exception("loop %s failed, it goes on", name)
                try:
                    rest()
                except Exception:
                    failures += 1
                    native("time", "sleep")(every)
            log.critical("loop %s fails again and again: the process stops", name)
        except BaseException:
            log.critical("loop %s ended: the process stops", name, exc_info=True)
            os.kill(os.getpid(), signal.SIGTERM)
            raise
        os.kill(os.getpid(), signal.SIGTERM)

    start_native_thread(name, loop)


def leases_of(settings: Settings) -> Leases:
    return Leases(connect(settings, connections=2, quick=True), settings.key_prefix, settings.lease)


class Incarnation:
    """One life of this process in the ledger. Without a job it dozes: it renews a longer lease, and seldom."""

    def __init__(self, settings: Settings, worker: str, pool: Pool, family: str) -> None:
        self._settings = settings
        with connect(settings, connections=1, patience=settings.redis_patience, stop=drain.over) as redis:
            leases = Leases(redis, settings.key_prefix, settings.lease)
            self.id = leases.register(Identity(worker, pool, os.getpid(), family))
        self.lost = False
        self.away = False  # whether Redis did not answer when it was last asked
        self.stopping: frozenset[str] = frozenset()  # "ID NUMBER" of claims that should stop
        self._working: dict[object, Sequence[str]] = {}  # ids of the jobs of each message that is being worked on
        self._renewals = 0
        self._held = 0  # jobs that the ledger says it runs, at the last renewal
        self._unknown: frozenset[str] = frozenset()  # ids that the ledger alone knew of at the last look
        self._worked = time.monotonic()  # when it last had a job
        self._dozing = False
        self._wake = native("_thread", "allocate_lock")()  # held: what releases it ends the thread's sleep
        self._wake.acquire()
        self._leases = PerProcess(lambda: leases_of(settings))  # of the thread that renews
        repeat(f"lease {self.id}", settings.renew_every, self._renew, rest=self._rest)

    def _rest(self) -> None:
        self._wake.acquire(timeout=self._settings.lease * _DOZE_EVERY if self._dozing else self._settings.renew_every)

    def _renew(self) -> bool:
        if self.lost:  # a job could not be closed: it is not to wait until the lease passes
            self._leases().end(self.id)
            return False
        self._dozing = True  # before the look at the jobs: one that begins meanwhile sees it, or is seen
        if self._working or self._held or time.monotonic() < self._worked + self._settings.lease:
            self._dozing = False
        try:
            renewed = self._leases().renew(self.id, times=_DOZE if self._dozing else 1)
            if renewed is None:
                self.lost = True  # never taken back: a job may have said so meanwhile
                return False
            self.away, self.stopping, self._held = False, renewed.stopping, renewed.held
            self._compare(self._leases(), renewed.held)
        except BaseException as error:
            self._dozing = False  # it tries again soon
            if not isinstance(error, (RedisError, OSError)):
                raise
            self.away = True  # the lease may pass meanwhile; the next renewal tells
        return True

    @contextlib.contextmanager
    def working(self, ids: Sequence[str]) -> Iterator[None]:
        """These jobs are being worked on."""
        message = object()
        self._working[message] = ids
        if self._dozing:
            self._stir()
        try:
            yield
        finally:
            del self._working[message]
            self._worked = time.monotonic()

    def _stir(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is released already
            self._wake.release()

    def _compare(self, leases: Leases, held: int) -> None:
        running = {id_ for ids in tuple(self._working.values()) for id_ in ids}
        self._renewals += 1
        if held <= len(running) and not self._unknown and self._renewals % _COMPARE_EVERY:
            return
        unknown = frozenset(leases.held(self.id) - running)
        if given_back := leases.give_back(self.id, unknown & self._unknown):
            log.warning("incarnation=%s gave back %d jobs that it does not run", self.id, given_back)
        self._unknown = unknown

    def end(self) -> None:
        """The process ends by itself: what it still holds is taken over at once."""
        self.lost = True
        with contextlib.suppress(RedisError, OSError):
            leases_of(self._settings).end(self.id)


def keep_watching_children(
    settings: Settings, family: str, started: set[int], living: Callable[[], Iterable[int]]
) -> None:
    """Tell the ledger at once of a prefork child that died: its parent has waited for it.

    The sweep takes its jobs over in its next round then, and not seconds later, when its lease expires. A child is
    named by its process id together with a name that the parent made up before it forked, so no other process is ever
    meant. If Redis is away or the parent died too, the lease expires.

    Args:
        family: of the children's incarnations.
        started: process ids of all children, however short they lived; those that were told of are taken off.
        living: those that have not been waited for.
    """
    leases = PerProcess(lambda: leases_of(settings))

    def look() -> None:
        gone = set(started)  # before the look at the living: one that starts meanwhile is among both, or neither
        gone.difference_update(living())
        if not gone:
            return
        stops = drain.stopping()
        ended = leases().end_children(family, gone, End.ENDED if stops else End.DIED)
        started.difference_update(gone)
        if ended:
            text = "children ended" if stops else "children died, their jobs go back"
            log.log(logging.INFO if stops else logging.WARNING, "%s: incarnations=%s", text, ",".join(ended))

    repeat("children", settings.renew_every, look)
