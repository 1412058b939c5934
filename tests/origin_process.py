"""The origin as a real process, for tests and benchmarks: `with OriginProcess() as origin: origin.url`."""

import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
READY = "origin listening on "


class OriginProcess:
    """Starts the hostile origin, or `python -m origin` itself, on a free port; each wait has a deadline."""

    def __init__(
        self,
        access_log: Path | None = None,
        start_timeout_s: float = 20,
        *,
        module: str = "tests.hostile_origin",
        options: Sequence[str] = (),
    ) -> None:
        """Start the process and wait until it says that it listens."""
        self._folder = tempfile.TemporaryDirectory(prefix="origin-")
        self.access_log = access_log or Path(self._folder.name) / "access.jsonl"
        command = [sys.executable, "-m", module, "--port", "0", "--access-log", str(self.access_log), *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.pid = self.process.pid
        self.stderr: deque[str] = deque(maxlen=1000)
        self.url = ""
        self._ready = threading.Event()
        # A full pipe would stop the origin, so somebody always reads it.
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()
        if not self._ready.wait(start_timeout_s) or not self.url:
            self.stop()
            raise RuntimeError(f"the origin did not start within {start_timeout_s} s; it said: {list(self.stderr)}")

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
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(timeout_s)
        if self.process.stderr is not None:
            self.process.stderr.close()
        self._folder.cleanup()
        return code

    def __enter__(self) -> Self:
        """Return the running origin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop it."""
        self.stop()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr.append(line.rstrip("\n"))
            if line.startswith(READY):
                self.url = line.removeprefix(READY).strip()
                self._ready.set()
        # The end of stderr is news too: a process that died at the start must not cost the timeout.
        self._ready.set()
