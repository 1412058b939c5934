"""Workers under a supervisor that starts again what ended, at once, as a container runtime with a restart policy does.

It signals only processes that it started and has not reaped: a look and a signal happen under one lock.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import psutil

from ledger.jobs import Pool
from stack.plan import Probe
from stack.processes import Command, Process, Restarts

POLL = 0.03  # seconds between two looks


class Member:
    """One supervised process and its successors.

    Args:
        probe: when it is ready.
    """

    def __init__(self, command: Command, probe: Probe, pool: Pool | None = None) -> None:
        self.command, self.pool = command, pool
        self.name = command.name
        self.starts = 0
        self.free = True  # no fault is being played on it
        self.asked_to_end = False  # its next end is our doing
        self._probe = probe
        self._process: Process | None = None
        self._lock = threading.Lock()
        self._restarts = Restarts(0.1, 5.0, 10.0)  # as Docker does it

    def start(self) -> None:
        with self._lock:
            self._process, self.asked_to_end = Process(self.command), False
            self.starts += 1

    @property
    def ready(self) -> bool:
        process = self._process
        return process is not None and process.running and self._probe.look(process)

    def pids(self) -> list[int]:
        """The main process and its children; none when it has ended."""
        with self._lock:
            if self._process is None or not self._process.running:
                return []
            return [self._process.pid, *self._process.children()]

    def signal(self, number: signal.Signals, *, group: bool) -> bool:
        """To the main process, or to all of its group at once; whether there was one."""
        with self._lock:
            if self._process is None or not self._process.running:
                return False
            self._process.signal(number, group=group)
            return True

    def kill_child(self, pid: int) -> bool:
        """SIGKILL to one child; whether there was one."""
        with contextlib.suppress(psutil.Error):
            child = psutil.Process(pid)  # the object knows when it was started: a stranger is not killed
            if child.ppid() in self.pids()[:1] and child.status() != psutil.STATUS_ZOMBIE:
                child.kill()
                return True
        return False

    def look(self) -> str | None:
        """Start it again if it has ended; its name and exit code, if no fault made it end."""
        with self._lock:
            process, unasked = self._process, None
            if process and self._restarts.noticed(process) and not self.asked_to_end:
                unasked = f"{self.name}: {process.returncode}"
        if self._restarts.due():
            self.start()
        return unasked

    def end(self, grace: float) -> None:
        if self._process is not None:
            self.signal(signal.SIGCONT, group=True)
            self._process.stop(grace)


class Fleet:
    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.exits: list[str] = []  # that no fault asked for
        self._deserted: dict[Pool, list[float]] = {pool: [] for pool in Pool}  # looks that found no worker, epoch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="fleet", daemon=True)
        self._choice = threading.Lock()

    def start(self) -> None:
        for member in self.members:
            member.start()
        self._thread.start()

    def of(self, pool: Pool | None) -> list[Member]:
        return [member for member in self.members if member.pool is pool]

    def deserted(self, pool: Pool, begin: float, end: float) -> bool:
        """Whether at some moment of that time no worker of the pool was ready and spared by faults."""
        looks = self._deserted[pool]
        return bisect_left(looks, begin) < bisect_right(looks, end)

    def take(self, pool: Pool | None, first: int, *, patience: float = 20.0, all_: bool = False) -> list[Member]:
        """One ready member that no other fault is played on (or all of the pool's); none if there is none for long."""
        deadline = time.monotonic() + patience
        candidates = self.of(pool)
        candidates = candidates[first % len(candidates) :] + candidates[: first % len(candidates)]
        while time.monotonic() < deadline:
            with self._choice:
                fit = [member for member in candidates if member.free and member.ready]
                if all_ and len(fit) < len(candidates):
                    fit = []
                for member in (chosen := fit if all_ else fit[:1]):
                    member.free = False
                if chosen:
                    return chosen
            time.sleep(POLL)
        return []

    def release(self, members: Sequence[Member]) -> None:
        for member in members:
            member.free = True

    def wait_ready(self, seconds: float) -> list[str]:
        """Wait until all members are ready; the names of those that are not."""
        deadline = time.monotonic() + seconds
        while late := [member.name for member in self.members if not member.ready]:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        return late

    def stop(self, grace: float) -> None:
        """SIGTERM to all at once, SIGKILL after the grace."""
        self._stop.set()
        self._thread.join(10)
        threads = [threading.Thread(target=member.end, args=(grace,)) for member in self.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(grace + 30)

    def _supervise(self) -> None:
        while not self._stop.wait(POLL):
            self.exits += [ended for member in self.members if (ended := member.look())]
            for pool, looks in self._deserted.items():
                if not any(member.free and member.ready for member in self.of(pool)):
                    looks.append(time.time())
