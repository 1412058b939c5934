"""The one who is left when the launcher is gone: ends every process of a stack and removes its files.

A launcher that is killed with SIGKILL cannot clean up. So each stack has a guardian, a small process in a
session of its own, which waits at the end of a pipe that only the launcher holds open. A byte, or the pipe's
end, means "it is over": the guardian kills what still carries the stack's mark and removes its directory.
It does so after every stop, so the path that matters most is also the one that runs most.

The mark is an environment variable that every service and every child of it inherits. It is proof: a process
id may have been given to a stranger since, an environment with our private directory in it may not. The pipe
closes only after the last fork has become another program, so no service can start too late to be seen.

Not covered: a guardian killed together with its launcher; a child that empties its environment and outlives
its parent. Held by tests/unit/test_stack_supervisor.py and tests/service/test_stack_run.py.

Runs as a script (``python -P guardian.py MARK [FILE...]``), so that it is there within a tenth of a second.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

MARK = "DOWNPOUR_STACK"
PATIENCE = 10.0  # seconds for killed processes to go away


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


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL each; psutil makes sure that the id still belongs to the process that was found."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue


def end(mark: str, files: Sequence[Path] = ()) -> bool:
    """Kill what carries the mark until nothing does, then remove its directory and the files. True: all gone."""
    deadline = time.monotonic() + PATIENCE
    while (left := members(mark)) and time.monotonic() < deadline:
        kill(left)
        time.sleep(0.02)
    for file in files:
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            file.parent.rmdir()  # only if that leaves it empty
    shutil.rmtree(mark, ignore_errors=True)
    return not left and not Path(mark).exists()


def main() -> int:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.read(sys.stdin.fileno(), 1)
    return 0 if end(sys.argv[1], [Path(name) for name in sys.argv[2:]]) else 1


if __name__ == "__main__":
    sys.exit(main())
