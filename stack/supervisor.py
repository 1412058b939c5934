"""Starts processes, each in a session of its own, and stops them so that no job is lost and nothing stays.

SIGTERM goes to the main process alone. A process group's worth of SIGTERM, which most Procfile runners send,
ends a prefork worker's children under it and loses their jobs. What has not ended after the grace is killed,
session and all, and so is what a main process left behind when it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from stack.guardian import MARK, PATIENCE, kill, members

POLL = 0.05  # seconds between two looks at a process
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Command:
    """What it takes to start a process."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]  # the whole environment, the mark included
    cwd: Path
    log: Path | None = None  # receives stdout and stderr; None: they are the launcher's own
    tied: bool = False  # the kernel kills its main process when the launcher has ended; see ``_tie``


class Process:
    """A started command. Used in a ``with`` block, it is killed at its end."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.name = command.name
        self.started = time.time()
        with contextlib.ExitStack() as stack:
            # Straight into a file: a reader in between could hold the service up, or die under it.
            sink = stack.enter_context(command.log.open("ab")) if command.log else None
            self._popen = subprocess.Popen(  # noqa: S603 - what it is for; one libc call, looked up before
                command.argv,
                env=dict(command.env),
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if sink else None,
                start_new_session=True,
                preexec_fn=_tie() if command.tied else None,  # noqa: PLW1509 - one libc call, looked up before
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number if one ended it."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    def children(self) -> list[int]:
        """The pids of its children and theirs; none when it has ended."""
        with contextlib.suppress(psutil.Error):
            if self.running:
                return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        return []

    def signal(self, number: int, *, group: bool = False) -> None:
        """To the main process alone, or to its group at once; nothing happens when it has ended."""
        if not group:
            self._popen.send_signal(number)
        elif self.running:  # not reaped yet, so the group's id is still ours
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Its return code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._popen.wait(timeout)

    def kill(self) -> None:
        """SIGKILL to every process of its session, and reap."""
        self.signal(signal.SIGKILL, group=True)
        self._popen.wait()
        deadline = time.monotonic() + PATIENCE
        # The system gives the id to another process only when the last one of the session has gone.
        while not psutil.pid_exists(self.pid) and (left := members(self.command.env.get(MARK), self.pid)):
            if time.monotonic() > deadline:
                break
            kill(left)
            time.sleep(POLL)

    def stop(self, grace: float) -> bool:
        """SIGTERM, and SIGKILL after the grace. True: it ended by itself."""
        return stop([self], grace) == []

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        if self.command.log is None or not self.command.log.exists():
            return ""
        with self.command.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16384))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def _tie() -> Callable[[], None] | None:
    """On Linux the kernel kills a child when the *thread* that started it ends, so only the main thread may ask."""
    if _LIBC is None or os.getpid() != threading.get_native_id():
        return None
    prctl = _LIBC.prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return ask


def describe_exit(code: int | None) -> str:
    """A return code in words."""
    if code is None:
        return "still running"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def stop(processes: Iterable[Process], grace: float) -> list[str]:
    """Stop all at once; the names of those that had to be killed."""
    waiting = list(processes)
    for process in waiting:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(process.running for process in waiting) and time.monotonic() < deadline:
        time.sleep(POLL)
    late = [process.name for process in waiting if process.running]
    for process in waiting:
        process.kill()
    return late
