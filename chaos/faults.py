"""Carries out the deck, one fault after the other; those that take time go on in the background."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path

from chaos.feed import Feed, FeedError
from chaos.fleet import Fleet, Member, found_within
from chaos.mix import PARTIAL, POISON
from chaos.schedule import Fault, Kind
from chaos.subject import Blow
from ledger.messages import Envelope, Texts
from stack.stack import Stack

CUT_AFTER = 2.0  # seconds between SIGTERM and SIGKILL of a stop that is cut short
GRACE = 40.0  # seconds for a stop that is not: more than any job needs
_SLOW = frozenset({Kind.PRODUCER, Kind.REFUSED, Kind.DISK, Kind.POISON, Kind.FROZEN, Kind.CUT_SHORT, Kind.STOPPED})
_OF_NO_POOL = frozenset({Kind.SWEEP, Kind.REDIS, Kind.REFUSED, Kind.REMOVED, Kind.DISK})
_KILL_BATCH = 600  # jobs at least in a submission that is killed: more than one pipeline
_PATIENCE = 30.0  # seconds until Redis takes a command again
_TAKEN = 5.0  # seconds for malformed messages to be taken, or for a temp file to be there
_POISONED = 240.0  # seconds for a job that kills to have its end
_BROKEN = (b"", b"hello", b"\xff\xfe\0", b"42", b"{}", b"[" * 20_000, b"x" * 70_000, b'{"body": "W10=", "headers": {}}')


class Disk:
    """A folder on a file system of its own, which is full when it is as small as what lies on it. Needs root.

    Raises:
        OSError, subprocess.CalledProcessError: it cannot be had.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size  # bytes
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)  # noqa: S603, S607

    def fill(self) -> bool:
        for _ in range(50):  # until nothing is written between the look and the mount
            disk = os.statvfs(self._folder)
            if self._resized((disk.f_blocks - disk.f_bfree) * disk.f_frsize):
                return True
        return False

    def free(self) -> None:
        self._resized(self._size)

    def close(self) -> None:
        subprocess.run(["umount", "-l", self._folder], check=False)  # noqa: S603, S607

    def _resized(self, size: int) -> bool:
        command = ["mount", "-o", f"remount,size={size}", str(self._folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603


class Faults:
    def __init__(self, stack: Stack, fleet: Fleet, feed: Feed, seed: int, disk: Disk | None) -> None:
        self.blows: list[Blow] = []
        self.spared = 0
        self.away: list[float] = []  # seconds until Redis answered again
        self.malformed = 0  # messages that were put on queues
        self._stack, self._fleet, self._feed, self._disk = stack, fleet, feed, disk
        self._redis_client = feed.subject.redis
        self._dice = random.Random(f"victims/{seed}")
        self._background: list[threading.Thread] = []
        self._lock = threading.Lock()

    def strike(self, fault: Fault) -> None:
        """Carry one out; returns when its moment is over, or when it goes on by itself."""
        beside = {
            Kind.REDIS: self._redis,
            Kind.PRODUCER: self._producer,
            Kind.REFUSED: self._refused,
            Kind.MALFORMED: self._malformed,
            Kind.REMOVED: self._removed,
            Kind.DISK: self._disk_full,
            Kind.POISON: self._poison,
        }
        if fault.kind in beside:
            act = partial(beside[fault.kind], fault)
        else:
            pool = None if fault.kind in _OF_NO_POOL else fault.pool  # a subject without a sweep is spared it
            some = self._fleet.of(pool)
            members = self._fleet.take(pool, fault.first, all_=fault.kind is Kind.TWO) if some else []
            act = partial(self._members, fault, members)
        if fault.kind in _SLOW:
            self._go_on(act)
        else:
            act()

    def settle(self, seconds: float) -> bool:
        """Wait for those that go on; whether all are over."""
        deadline = time.monotonic() + seconds
        for thread in self._background:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._background)

    def _members(self, fault: Fault, members: list[Member]) -> None:
        if not members:
            self.spared += 1
        elif fault.kind is Kind.CHILD:
            at, children = time.time(), sorted(members[0].pids()[1:])
            pid = self._dice.choice(children) if children else 0
            self._note(fault, at, members, {pid} if members[0].kill_child(pid) else set())
        elif fault.kind is Kind.FROZEN:
            self._signal(fault, members, signal.SIGSTOP, group=True)
            time.sleep(fault.seconds)
            members[0].signal(signal.SIGCONT, group=True)
        elif fault.kind in (Kind.CUT_SHORT, Kind.STOPPED):
            self._stop(fault, members)
        else:
            self._signal(fault, members, signal.SIGKILL, group=fault.kind is not Kind.MAIN)
        self._fleet.release(members)

    def _signal(self, fault: Fault, members: list[Member], number: signal.Signals, *, group: bool) -> None:
        pids = {pid for member in members for pid in member.pids()}  # children end soon after their main process
        for member in members:
            if number is signal.SIGKILL:
                member.asked_to_end = member.process
        at = time.time()
        hit = [member.signal(number, group=group) for member in members]
        self._note(fault, at, members, pids if any(hit) else set())

    def _stop(self, fault: Fault, members: list[Member]) -> None:
        """Of a stop that is cut short the kill is the fault: what it interrupts is counted from there."""
        member, process, cut = members[0], members[0].process, fault.kind is Kind.CUT_SHORT
        if not cut:
            self._note(fault, time.time(), members, set(member.pids()))
        member.asked_to_end = process
        process.signal(signal.SIGTERM)
        if not found_within(CUT_AFTER if cut else GRACE, lambda: not process.running):
            self._signal(fault, members, signal.SIGKILL, group=True)
        elif cut:
            self._note(fault, time.time(), members, set(), f"it had stopped within the {CUT_AFTER:.0f} s")

    def _redis(self, fault: Fault) -> None:
        at = time.time()
        self._stack.processes["valkey"].kill()
        self._stack.start("valkey")
        self.away.append(time.time() - at)
        self._note(fault, at, ["valkey"])

    def _producer(self, fault: Fault) -> None:
        at = time.time()
        count = max(self._feed.batch, _KILL_BATCH)
        made = self._feed.submit(fault.pool, count, name="killed", kill_after=fault.seconds)
        note = None if made.killed else "it was too quick to be killed"
        self._note(fault, at, [made.batch], note=note)

    def _refused(self, fault: Fault) -> None:
        at = time.time()
        self._insist(lambda: self._redis_client.config_set("min-replicas-to-write", 1))
        self._note(fault, at, ["valkey"])
        time.sleep(fault.seconds)
        self._insist(lambda: self._redis_client.config_set("min-replicas-to-write", 0))

    def _malformed(self, fault: Fault) -> None:
        """The next that workers of the pool take; one that is killed with some in its hand would spoil the count."""
        at, good = time.time(), Texts().of(Envelope("b.0", fault.pool, "f.bin from a.example"))
        other = [good[:-1], good.replace("b.0", "b.0-999999999"), good.replace("downpour.download", "downpour.delete")]
        broken = [*_BROKEN, *(text.encode() for text in other)]
        queue = f"{self._feed.subject.prefix}{fault.pool.queue}"
        self._insist(lambda: self._redis_client.rpush(queue, *broken))
        self.malformed += len(broken)
        found_within(_TAKEN, lambda: self._feed.subject.dead_letters() >= self.malformed)
        self._note(fault, at, [f"{len(broken)} messages"])

    def _removed(self, fault: Fault) -> None:
        at, folder = time.time(), self._stack.plan.downloads / PARTIAL

        def remove() -> list[Path]:
            found = [file for file in folder.rglob("*") if file.is_file()]
            for file in found:
                file.unlink(missing_ok=True)
            return found

        removed = found_within(_TAKEN, remove) or []
        self._note(fault, at, [f"{len(removed)} files"])

    def _disk_full(self, fault: Fault) -> None:
        at = time.time()
        if self._disk and self._disk.fill():
            self._note(fault, at, ["downloads"])
            time.sleep(fault.seconds)
            self._disk.free()
        else:
            self.spared += 1

    def _poison(self, fault: Fault) -> None:
        """Submit a job, and kill the process that runs it, whenever the ledger says that one does."""
        made = self._feed.submit(fault.pool, 1, name=POISON)
        subject, killed = self._feed.subject, set[int]()

        def ended() -> bool:
            pid = subject.holder(made.jobs[0].id)
            if pid and pid not in killed and self._kill(fault, pid):
                killed.add(pid)
            return not subject.awaited({made.batch: made.jobs})

        found_within(_POISONED, ended)

    def _kill(self, fault: Fault, pid: int) -> bool:
        at = time.time()
        for member in self._fleet.of(fault.pool):
            if pid in (pids := member.pids()):
                if pid == pids[0]:
                    self._signal(fault, [member], signal.SIGKILL, group=True)
                elif member.kill_child(pid):
                    self._note(fault, at, [member], {pid})
                return True
        return False

    def _insist(self, command: Callable[[], object]) -> None:
        """Until Redis does it, which may be away or refuse writes."""
        if not found_within(_PATIENCE, lambda: command() or True):
            raise FeedError(f"expected Redis to take a command within {_PATIENCE:.0f} s")

    def _note(
        self,
        fault: Fault,
        at: float,
        hit: Sequence[Member | str],
        pids: Set[int] = frozenset(),
        note: str | None = None,
    ) -> None:
        names = tuple(each if isinstance(each, str) else each.name for each in hit)
        pool = None if fault.kind in _OF_NO_POOL else fault.pool
        with self._lock:
            self.blows.append(Blow(fault.kind, pool, at, names, frozenset(pids), note))

    def _go_on(self, course: Callable[[], None]) -> None:
        def run() -> None:
            try:
                course()
            except FeedError as error:
                self._feed.error = str(error)

        thread = threading.Thread(target=run, name="fault", daemon=True)
        self._background.append(thread)
        thread.start()
