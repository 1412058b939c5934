"""The origin as a real process, for tests and benchmarks: `with OriginProcess() as origin: origin.url`."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from stack.processes import Command, Process
from tests.tied import tied
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
READY = "origin listening on "


class OriginProcess:
    """Starts the hostile origin, or `python -m origin` itself, on a free port; each wait has a deadline."""

    def __init__(
        self, access_log: Path | None = None, *, module: str = "tests.hostile_origin", options: Sequence[str] = ()
    ) -> None:
        """Start the process and wait until it says that it listens."""
        self._folder = tempfile.TemporaryDirectory(prefix="origin-")
        self.access_log = access_log or Path(self._folder.name) / "access.jsonl"
        command = [sys.executable, "-m", module, "--port", "0", "--access-log", str(self.access_log), *options]
        log = Path(self._folder.name) / "stderr"
        self.process = Process(Command("origin", tied(command), os.environ, ROOT, log))
        self.pid = self.process.pid
        with ExitStack() as unless_it_listens:
            unless_it_listens.callback(self.stop)
            wait_for(self._listens_or_ended, what="the origin to listen")
            assert self.process.running, f"the origin ended; it said: {self.stderr}"
            unless_it_listens.pop_all()
        self.url = self.stderr[0].removeprefix(READY)

    def _listens_or_ended(self) -> bool:
        return READY in self.process.tail() or not self.process.running

    @property
    def stderr(self) -> list[str]:
        """Return what it said. Read it before `stop`."""
        log = self.process.command.log
        return log.read_text().splitlines() if log else []

    @property
    def port(self) -> int:
        """Return the port that the system chose."""
        return int(self.url.rsplit(":", 1)[1])

    def requests(self) -> list[dict[str, Any]]:
        """Return the access log: one record per finished request, in order of finishing. Read it before `stop`."""
        if not self.access_log.exists():
            return []
        complete, _, _ = self.access_log.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in complete.splitlines()]

    def wait_for_request(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 10) -> dict[str, Any]:
        """Return the first logged request that is wanted, or fail after the timeout."""

        def logged() -> dict[str, Any] | None:
            return next((record for record in self.requests() if wanted(record)), None)

        return wait_for(logged, seconds=timeout_s, what="a request in the origin's log")

    def raw(self, target: str, *headers: str, method: str = "GET", timeout_s: float = 10) -> bytes:
        """Return every byte that answers one request, up to the end of the connection."""
        lines = [f"{method} {target} HTTP/1.1", "Host: origin", "Connection: close", *headers, "", ""]
        with self.connect(timeout_s) as client:
            client.sendall("\r\n".join(lines).encode("latin-1"))
            return b"".join(iter(lambda: client.recv(65536), b""))

    def connect(self, timeout_s: float = 10) -> socket.socket:
        """Return a plain connection; each of its operations ends within the timeout."""
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)

    def stop(self, timeout_s: float = 10) -> int:
        """Ask the process to end, insist after the timeout, and return its exit code."""
        self.process.stop(timeout_s)
        self._folder.cleanup()
        return self.process.wait(0)

    def __enter__(self) -> Self:
        """Return the running origin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()
