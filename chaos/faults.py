"""Carries out the deck, one fault after the other; those that take time go on in the background."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chaos.feed import Feed, FeedError
from chaos.fleet import Fleet, Member
from chaos.schedule import Fault, Kind
from chaos.subject import Blow
from ledger.jobs import Pool
from stack.run import Stack

CUT_AFTER = 2.0  # seconds between SIGTERM and SIGKILL of a stop that is cut short
GRACE = 40.0  # seconds for a stop that is not: more than any job needs
_KILL_BATCH = 600  # jobs at least in a submission that is killed: more than one pipeline


class Faults:
    """Args:
    say: takes a line of progress.
    """

    def __init__(self, stack: Stack, fleet: Fleet, feed: Feed, seed: int, say: Callable[[str], None]) -> None:
        self.blows: list[Blow] = []
        self.spared = 0
        self.away: list[float] = []  # seconds until Redis answered again
        self._stack, self._fleet, self._feed, self._say = stack, fleet, feed, say
        self._dice = random.Random(f"victims/{seed}")
        self._background: list[threading.Thread] = []
        self._lock = threading.Lock()

    def strike(self, fault: Fault) -> None:
        """Carry one out; returns when its moment is over, or when it goes on by itself."""
        if fault.kind is Kind.REDIS:
            self._redis()
        elif fault.kind is Kind.PRODUCER:
            self._go_on(lambda: self._producer(fault))
        else:
            pool = None if fault.kind is Kind.SWEEP else fault.pool
            members = self._fleet.take(pool, fault.first, all_=fault.kind is Kind.TWO) if self._has(pool) else []
            if members:
                self._workers(fault, members)
            else:
                self.spared += 1

    def settle(self, seconds: float) -> bool:
        """Wait for those that go on; whether all are over."""
        deadline = time.monotonic() + seconds
        for thread in self._background:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._background)

    def _has(self, pool: Pool | None) -> bool:
        return bool(self._fleet.of(pool))  # a subject without a sweep is spared it

    def _workers(self, fault: Fault, members: list[Member]) -> None:
        member = members[0]
        if fault.kind in (Kind.WORKER, Kind.TWO, Kind.SWEEP):
            with self._released(members):
                self._signal(fault, members, signal.SIGKILL, everybody=True)
        elif fault.kind is Kind.MAIN:
            with self._released(members):
                self._signal(fault, members, signal.SIGKILL, everybody=False)
        elif fault.kind is Kind.CHILD:
            with self._released(members):
                at, pid = time.time(), member.kill_child(self._dice.randrange(100))
                self._note(fault, at, members, {pid} if pid else set())
        elif fault.kind is Kind.FROZEN:
            self._go_on(lambda: self._freeze(fault, members))
        elif fault.kind is Kind.CUT_SHORT:
            self._go_on(lambda: self._cut_short(fault, members))
        else:
            self._go_on(lambda: self._stop(fault, members))

    def _signal(self, fault: Fault, members: list[Member], number: signal.Signals, *, everybody: bool) -> None:
        pids = {
            pid for member in members for pid in member.pids()
        }  # children do not outlive their main process for long
        for member in members:
            member.asked_to_end = number is signal.SIGKILL
        at = time.time()
        hit = [member.signal(number, everybody=everybody) for member in members]
        self._note(fault, at, members, pids if any(hit) else set())

    def _freeze(self, fault: Fault, members: list[Member]) -> None:
        with self._released(members):
            self._signal(fault, members, signal.SIGSTOP, everybody=True)
            time.sleep(fault.seconds)
            members[0].signal(signal.SIGCONT, everybody=True)

    def _cut_short(self, fault: Fault, members: list[Member]) -> None:
        """The kill is the fault: what it interrupts is counted from there."""
        with self._released(members):
            member, starts = members[0], members[0].starts
            member.asked_to_end = True
            member.signal(signal.SIGTERM, everybody=False)
            deadline = time.monotonic() + CUT_AFTER
            while time.monotonic() < deadline and member.starts == starts and member.pids():
                time.sleep(0.05)
            if member.starts == starts and member.pids():
                self._signal(fault, members, signal.SIGKILL, everybody=True)
            else:
                self._note(fault, time.time(), members, set(), "it had stopped within the 2 s")

    def _stop(self, fault: Fault, members: list[Member]) -> None:
        with self._released(members):
            member, starts = members[0], members[0].starts
            self._note(fault, time.time(), members, set(member.pids()))
            member.asked_to_end = True
            member.signal(signal.SIGTERM, everybody=False)
            deadline = time.monotonic() + GRACE
            while member.starts == starts and time.monotonic() < deadline:
                time.sleep(0.05)
            if member.starts == starts:
                self._signal(fault, members, signal.SIGKILL, everybody=True)

    def _redis(self) -> None:
        at = time.time()
        self._stack.processes["valkey"].kill()
        self._stack.start("valkey")
        with self._lock:
            self.away.append(time.time() - at)
            self.blows.append(Blow(Kind.REDIS, None, at, ("valkey",), frozenset()))

    def _producer(self, fault: Fault) -> None:
        at = time.time()
        count = max(self._feed.batch, _KILL_BATCH)
        try:
            made = self._feed.submit(fault.pool, count, name="killed", kill_after=fault.seconds)
        except FeedError as error:
            self._feed.error = str(error)
            return
        note = None if made.killed else "it was too quick to be killed"
        with self._lock:
            self.blows.append(Blow(fault.kind, fault.pool, at, (made.batch,), frozenset(), note))

    def _note(self, fault: Fault, at: float, members: list[Member], pids: set[int], note: str | None = None) -> None:
        names = tuple(member.name for member in members)
        pool = None if fault.kind is Kind.SWEEP else fault.pool
        with self._lock:
            self.blows.append(Blow(fault.kind, pool, at, names, frozenset(pids), note))

    def _go_on(self, course: Callable[[], None]) -> None:
        thread = threading.Thread(target=course, name="fault", daemon=True)
        self._background.append(thread)
        thread.start()

    @contextmanager
    def _released(self, members: list[Member]) -> Iterator[None]:
        try:
            yield
        finally:
            self._fleet.release(members)
