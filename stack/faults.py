"""Faults on request: `make up ARGS=--faults` lets the page of lanes kill, freeze and wake this stack's workers.

The process that started them does it, on loopback; without the option nothing of this exists. A request needs

* our address as Host: a name that leads here (DNS rebinding) is another one;
* Flower's address as Origin: a page elsewhere cannot ask (CSRF);
* the token of this run. `make up` prints it behind the # of the page's address: that part reaches no server and no log.

Only workers of this stack and their children can be hit: ``members`` proves it by their session and the stack's mark.
Kept true by ``tests/service/test_faults.py`` and ``tests/browser/test_faults_page.py``.
"""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import Callable
from contextlib import suppress
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any, Self

import psutil

from stack.plan import HOST
from stack.processes import members
from stack.stack import Stack

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "wake": signal.SIGCONT}


class FaultServer(ThreadingTCPServer):
    """
    POST /kill/PID, /freeze/PID, /wake/PID: send that signal. GET /: send nothing. The answer is JSON: ``error``, or
    ``frozen`` with the name of the worker by the pid of each frozen process.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Answer)
        self.host = f"{HOST}:{self.server_address[1]}"
        self.token = secrets.token_urlsafe(16)
        self.stack: Stack | None = None  # until it is up all are refused

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def serve(self, stack: Stack) -> str:
        """Its workers can be hit from now on; returns the address of the page of lanes with the token."""
        self.stack = stack
        return f"{stack.plan.flower_url}/lanes#faults={self.token}"

    def refusal(self, headers: Any, *, preflight: bool) -> tuple[int, str] | None:
        """A status and why, or None if the request is allowed. A browser sends no token with its preflight."""
        plan = self.stack and self.stack.plan
        origins = [f"http://{name}:{plan.flower_port}" for name in (HOST, "localhost")] if plan else []
        told = (headers["Authorization"] or "").encode()
        if headers.get_all("Host") != [self.host]:
            return 421, f"expected {self.host} as Host"
        if headers["Origin"] not in origins:
            return 403, "expected the address of this stack's Flower as Origin"
        if not preflight and not compare_digest(told, f"Bearer {self.token}".encode()):
            return 401, "expected the token of this run: open the address of lanes that `make up` printed"
        return None

    def processes(self) -> dict[str, tuple[str, psutil.Process]]:
        """The workers and their children by pid: the worker's name, and the process."""
        if not self.stack:
            return {}
        mark, services = str(self.stack.plan.private), tuple(self.stack.processes.items())
        workers = [(name, service.pid) for name, service in services if name.startswith("worker-")]
        return {str(process.pid): (name, process) for name, pid in workers for process in members(mark, pid)}

    def frozen(self) -> dict[str, str]:
        """Names of workers by the pid of a frozen process."""
        found = {}
        for pid, (name, process) in self.processes().items():
            with suppress(psutil.Error):  # it ended meanwhile
                if process.status() == psutil.STATUS_STOPPED:
                    found[pid] = name
        return found

    def hit(self, what: str, pid: str) -> tuple[int, dict[str, Any]]:
        """Send the signal; a status and the answer."""
        found = self.processes().get(pid)
        if what not in SIGNALS or not found or not self.stack:
            wanted = f"{', '.join(SIGNALS)} and the pid of a worker or its child"
            return 404, {"error": f"expected {wanted}, got {what} {pid}"}
        name, process = found
        with suppress(psutil.NoSuchProcess):  # psutil also makes sure that the pid is still that process
            process.send_signal(SIGNALS[what])
            self.stack.say(f"{what} {pid}, of {name}, from the page of lanes")
        return 200, {"frozen": self.frozen()}


class _Answer(BaseHTTPRequestHandler):
    server: FaultServer
    timeout = 5.0  # seconds for a request

    def do_OPTIONS(self) -> None:
        self.answer(lambda: (200, {}), preflight=True)

    def do_GET(self) -> None:
        self.answer(lambda: (200, {"frozen": self.server.frozen()}))

    def do_POST(self) -> None:
        what, _, pid = self.path.removeprefix("/").partition("/")
        self.answer(lambda: self.server.hit(what, pid))

    def answer(self, does: Callable[[], tuple[int, dict[str, Any]]], *, preflight: bool = False) -> None:
        refusal = self.server.refusal(self.headers, preflight=preflight)
        status, said = (refusal[0], {"error": refusal[1]}) if refusal else does()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status not in (403, 421):  # Flower's page may read it
            self.send_header("Access-Control-Allow-Origin", self.headers["Origin"])
            self.send_header("Access-Control-Allow-Headers", "Authorization")
            self.send_header("Access-Control-Max-Age", "600")  # seconds
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_: Any) -> None:
        """Nothing: ``hit`` says what was done."""
