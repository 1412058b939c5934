"""Processes: each is started in a session of its own, stopped so that no job is lost, and nothing of them left behind.

SIGTERM goes to the main process alone. SIGTERM to the process group, which most Procfile runners send, ends the
children of a prefork worker before the worker and loses their jobs. After the grace the whole session is killed,
and so is what a main process left behind when it ended.

A launcher that is killed with SIGKILL cannot clean up. So a stack has a reaper, a small process in a session of its
own, which waits at the end of a pipe that only the launcher holds open. A byte, or the pipe's end, tells it to
begin: it kills what still carries the stack's mark and removes the stack's directory. It does so after every stop.

The mark is an environment variable that every service and every child of it inherits. It is proof: a process id may
be reused, an environment with our private directory in it is not. The pipe closes only after the last fork has
become another program, so no service can start too late to be seen.

Not covered: a reaper killed together with its launcher; a child that empties its environment and outlives its
parent. Held by tests/unit/test_stack_processes.py and tests/service/test_stack_run.py.

The reaper is this file as a script (``python -P processes.py MARK [FILE...]``): it loads nothing else of the project.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

MARK = "DOWNPOUR_STACK"
PATIENCE = 10.0  # seconds for killed processes to go away
POLL = 0.05  # seconds between two looks at a process


@dataclass(frozen=True, slots=True)
class Command:
    """What it takes to start a process."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]  # the whole environment, the mark included
    cwd: Path
    log: Path | None = None  # receives stdout and stderr; None: they are the launcher's own


class Process:
    """A started command. Used in a ``with`` block, it is killed at its end."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.name = command.name
        self.started = time.time()
        self._looking = threading.Lock()
        # Straight into a file: a reader in between could hold the service up, or die under it.
        with command.log.open("ab") if command.log else contextlib.nullcontext() as sink:
            self._popen = subprocess.Popen(  # noqa: S603 - what it is for
                command.argv,
                env=dict(command.env),
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT if sink else None,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number if one ended it."""
        with self._looking:
            return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    def signal(self, number: int, *, group: bool = False) -> None:
        """To the main process alone, or to its group at once; nothing happens when it has ended."""
        with self._looking:  # what is not reaped yet has an id that is still its own
            if self._popen.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    (os.killpg if group else os.kill)(self.pid, number)

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
        mark = self.command.env.get(MARK)
        # The system gives the id to another process only when the last one of the session has gone.
        kill_all(lambda: [] if psutil.pid_exists(self.pid) else members(mark, self.pid))

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


@dataclass(slots=True)
class Restarts:
    """When a process that ended by itself is started again: after a pause that doubles while its lives are short."""

    first: float = 1.0  # seconds, as all of these
    longest: float = 30.0
    steady: float = 60.0  # after a life of that length the next pause is the first one again
    pause: float = 0.0  # the last one
    _due: float | None = None

    def noticed(self, process: Process) -> bool:
        """Whether this is the first look after its end; then the pause begins."""
        if self._due is not None or process.running:
            return False
        before = self.pause if time.time() - process.started < self.steady else 0.0
        self.pause = min(self.longest, 2 * before or self.first)
        self._due = time.monotonic() + self.pause
        return True

    def due(self) -> bool:
        """Whether the pause is over; True once."""
        if self._due is None or time.monotonic() < self._due:
            return False
        self._due = None
        return True


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


def members(mark: str | None, session: int | None = None) -> list[psutil.Process]:
    """The living processes that carry the mark (None: no mark); with a session, those of that session only."""
    found = []
    for pid in psutil.pids():
        try:
            if session is not None and os.getsid(pid) != session:
                continue
            process = psutil.Process(pid)
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or not ours to look at
    return found


def kill_all(find: Callable[[], Sequence[psutil.Process]]) -> bool:
    """SIGKILL to what is found, until nothing is; whether all are gone in time."""
    deadline = time.monotonic() + PATIENCE
    while (left := find()) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.Error):  # it is gone; psutil does not kill a stranger with its id
                process.kill()
        time.sleep(0.02)
    return not left


def reap(mark: str, files: Sequence[Path] = ()) -> bool:
    """Kill what carries the mark until nothing does, then remove its directory and the files. True: all gone."""
    gone = kill_all(lambda: members(mark))
    for file in files:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            file.parent.rmdir()  # only if that leaves it empty
    shutil.rmtree(mark, ignore_errors=True)
    return gone and not Path(mark).exists()


def start_reaper(private: Path, files: Iterable[Path]) -> subprocess.Popen[bytes]:
    """The reaper of a stack with this private directory; ``communicate`` makes it begin and waits for its end."""
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-P", __file__, str(private), *(str(file.resolve()) for file in files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def main() -> int:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.read(sys.stdin.fileno(), 1)
    return 0 if reap(sys.argv[1], [Path(name) for name in sys.argv[2:]]) else 1


if __name__ == "__main__":
    sys.exit(main())
