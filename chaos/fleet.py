"""Services of the stack that are started again when they have ended, at once, as a container runtime does it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import psutil
from redis.exceptions import RedisError

from ledger.jobs import Pool
from stack.processes import Command, Process, Restarts
from stack.stack import Stack

POLL = 0.03  # seconds between two looks
T = TypeVar("T")


def found_within(seconds: float, look: Callable[[], T]) -> T | None:
    """The first true value, or None if there was none; Redis may be away meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(RedisError):
            if found := look():
                return found
        time.sleep(POLL)
    return None


@dataclass(eq=False, slots=True)
class Member:
    """One of them: a process and its successors."""

    stack: Stack
    command: Command
    pool: Pool | None = None
    free: bool = True  # no fault is being played on it
    asked_to_end: Process | None = None  # its end is our doing
    restarts: Restarts = field(default_factory=lambda: Restarts(0.1, 5.0, 10.0))  # as Docker does it

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def process(self) -> Process:
        return self.stack.processes[self.name]

    @property
    def ready(self) -> bool:
        process = self.process
        return process.running and self.stack.plan.ready(self.name, process)

    def pids(self) -> list[int]:
        """The main process and its children; none when it has ended."""
        process = self.process
        with contextlib.suppress(psutil.Error):
            if process.running:
                return [process.pid, *(each.pid for each in psutil.Process(process.pid).children(recursive=True))]
        return []

    def signal(self, number: signal.Signals, *, group: bool) -> bool:
        """To the main process, or to all of its group at once; whether there was one."""
        process = self.process
        if running := process.running:
            process.signal(number, group=group)
        return running

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
        process = self.process
        if self.restarts.noticed(process) and self.asked_to_end is not process:
            return f"{self.name}: {process.returncode}"
        if self.restarts.due():
            self.stack.processes[self.name] = Process(self.command)
        return None


class Fleet:
    def __init__(self, stack: Stack, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.exits: list[str] = []  # that no fault asked for
        self._stack = stack
        self._deserted: dict[Pool, list[float]] = {pool: [] for pool in Pool}  # looks that found no worker, epoch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="fleet", daemon=True)
        self._choice = threading.Lock()

    def start(self) -> None:
        """
        Raises:
            StackError: one ended, or was not ready in time.
        """
        self._stack.launch(*(member.command for member in self.members))
        self._thread.start()

    def of(self, pool: Pool | None) -> list[Member]:
        return [member for member in self.members if member.pool is pool]

    def deserted(self, pool: Pool, begin: float, end: float) -> bool:
        """Whether at some moment of that time no worker of the pool was ready and spared by faults."""
        looks = self._deserted[pool]
        return bisect_left(looks, begin) < bisect_right(looks, end)

    def take(self, pool: Pool | None, first: int, *, patience: float = 20.0, all_: bool = False) -> list[Member]:
        """One ready member that no other fault is played on (or all of the pool's); none if there is none for long."""
        candidates = self.of(pool)
        candidates = candidates[first % len(candidates) :] + candidates[: first % len(candidates)]

        def choose() -> list[Member]:
            with self._choice:
                fit = [member for member in candidates if member.free and member.ready]
                chosen = fit[:1] if not all_ else fit if len(fit) == len(candidates) else []
                for member in chosen:
                    member.free = False
            return chosen

        return found_within(patience, choose) or []

    def release(self, members: Sequence[Member]) -> None:
        for member in members:
            member.free = True

    @property
    def unready(self) -> list[str]:
        return [member.name for member in self.members if not member.ready]

    def stop(self) -> None:
        """From now on nothing is started again."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _supervise(self) -> None:
        while not self._stop.wait(POLL):
            self.exits += [ended for member in self.members if (ended := member.look())]
            for pool, looks in self._deserted.items():
                if not any(member.free and member.ready for member in self.of(pool)):
                    looks.append(time.time())
