"""Small jobs run together: when a process that has one takes more of them off its queue, to run them as a group.

A message of one small job costs more than its download. What is taken, and when, is told in ``docs/claims.md``.
Durability does not change: a message is a hint, and each job has its own claim.

At most one group runs in a process. Meanwhile a further message of one job waits before it claims, then leads the next
group: on the single path it would compete with the group for the interpreter.
Kept true by ``tests/pools/test_gather.py`` and ``tests/fault/test_gathered.py``.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock

from redis.exceptions import RedisError

from ledger.jobs import Pool, Ref
from ledger.ledger import Claim, IncarnationLostError
from ledger.redis_client import PerProcess, once
from ledger.settings import get_settings
from worker import drain, group
from worker.process import this_worker

log = logging.getLogger("downpour.worker")

_MOST = 63  # messages taken at once: with the leader's, as many jobs as are published together
_SHORT = 0.25  # seconds; a job that waits less than this for its server, Redis and the disk is short
_LONGEST = 1.0  # seconds; longer waits count as this
_FADES = 0.8  # of the longest wait of late is left after each further job
_PATIENCE = 0.5  # seconds that a group may run until no message waits for its end
_LONGEST_WAIT = 2.0  # seconds for a message, while one group follows the other
_READ_EVERY = 1.0  # seconds between two looks at what the system knows of this process, at least
_SLICE = 0.05  # seconds between two looks whether to wait on, at least


class _Recent:
    """What a process knows of its jobs, and whose turn it is to lead a group."""

    def __init__(self) -> None:
        self.waited = 0.3  # seconds, above _SHORT; one short job brings it below
        self._starved = (time.monotonic(), _without_core(), 0.0)  # when that was read, what it was, its share of time
        self._lock = Lock()
        self._running = False  # a group
        self._since = 0.0  # ... by time.monotonic()
        self._waiting: deque[Event] = deque()  # messages that may lead the next ones

    @property
    def short(self) -> bool:
        return self.waited < _SHORT

    def note(self, waited: float) -> None:
        self.waited = min(max(waited, _FADES * self.waited), _LONGEST)

    def starved(self) -> float:
        """Of late, for which part of the time this process was ready to compute and had no core."""
        at, before, share = self._starved
        now = time.monotonic()
        if now - at >= _READ_EVERY:
            self._starved = now, before, share  # of a thousand threads that ask now, one reads what all of them waited
            seconds = _without_core()
            share = min(max(0.0, (seconds - before) / (now - at)), 1.0)  # what a thread knew goes with it
            self._starved = now, seconds, share
        return share

    def begin(self) -> bool:
        """Wait while groups run, each of them shortly; whether the caller may lead the next one, and has to ``end``."""
        mine, came = Event(), time.monotonic()
        with self._lock:
            if not self.short:
                return False
            self._waiting.append(mine)
            if not self._running:
                self._next()
        interrupted = True
        try:
            while not mine.wait(max(_SLICE, min(self._since + _PATIENCE, came + _LONGEST_WAIT) - time.monotonic())):
                now = time.monotonic()
                if not self.short or drain.stopping() or now - self._since >= _PATIENCE or now - came >= _LONGEST_WAIT:
                    break
            interrupted = False
        finally:
            with self._lock:
                if not mine.is_set():
                    self._waiting.remove(mine)
                elif interrupted:  # in its turn
                    self._next()
        return mine.is_set()

    def end(self) -> None:
        with self._lock:
            self._next()

    def _next(self) -> None:
        self._running, self._since = bool(self._waiting), time.monotonic()
        if self._waiting:
            self._waiting.popleft().set()


def _without_core() -> float:
    """Seconds for which threads of this process were ready to compute and had no core; 0: the system does not say."""
    nanoseconds = 0
    with suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError, IndexError, ValueError):  # that thread has ended
                nanoseconds += int((task / "schedstat").read_text().split()[1])
    return nanoseconds / 1e9


_recent = PerProcess(_Recent)


class Turn:
    """A message's turn to be claimed and run; to be closed, or no other message leads a group."""

    def __init__(self, ref: Ref) -> None:
        self._recent = _recent()
        compared = get_settings().lateness is not None  # how a pool runs single jobs is what is compared
        self._leads = ref.first == ref.last and not compared and self._recent.begin()
        self._begun = (0.0, 0.0)  # time.monotonic(), and seconds that this process had computed

    def take(self, claims: Sequence[Claim], pool: Pool) -> list[Claim]:
        """More jobs for the group that these claims lead; none if they lead none."""
        more: list[Claim] = []
        if self._leads and not drain.stopping() and group.leads(claims):
            try:
                leave, deadline = this_worker.slots - 1, get_settings().deadline
                with once():
                    more = this_worker.ledger().take(claims[0], pool, _MOST, leave=leave, deadline=deadline)
            except (RedisError, IncarnationLostError) as error:  # what it took all the same, this process gives back
                log.warning("job=%s runs alone: %s", claims[0].record.id, error)
                self.long()
        if not more:
            self.close()
        self._begun = time.monotonic(), time.process_time()
        return more

    def long(self) -> None:
        """A job of the group is long: no message waits for the group, and the process takes no more for now."""
        self._recent.note(_LONGEST)

    def over(self, jobs: int) -> None:
        """They are over. They did not wait while the process computed, or had no core for it, for whatever job."""
        begun, computed = self._begun
        waves = -(-jobs // get_settings().chunk_parallel)
        took = (time.monotonic() - begun) * (1 - self._recent.starved())
        self._recent.note((took - (time.process_time() - computed)) / waves)

    def close(self) -> None:
        if self._leads:
            self._leads = False
            self._recent.end()
