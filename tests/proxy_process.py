"""A small HTTP proxy as a real process: GET of a whole URL, and CONNECT. It resolves names that nobody else knows.

    with ProxyProcess(names={"good.example": 8443}, credentials="user:secret") as proxy: proxy.url

What it was asked is in ``proxy.requests()``: request line, and whether the credentials were right.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from stack.processes import Command, Process
from tests.tied import tied
from tests.waiting import wait_for


class ProxyProcess:
    """Args:
    names: hosts that are ports of this machine, whatever port is asked for.
    deny: hosts that get a 403.
    """

    def __init__(
        self, names: Mapping[str, int] | None = None, *, credentials: str = "", deny: tuple[str, ...] = ()
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="proxy-")
        folder = Path(self._folder.name)
        self._log, port = folder / "log", folder / "port"
        command = [sys.executable, "-m", "tests.proxy_process", "--log", str(self._log), "--port-file", str(port)]
        command += ["--names", json.dumps(dict(names or {})), "--credentials", credentials, "--deny", ",".join(deny)]
        self._process = Process(Command("proxy", tied(command), os.environ, Path(__file__).parents[1]))
        wait_for(lambda: port.exists() or not self._process.running, what="the proxy to listen")
        self.port = int(port.read_text())
        self.url = f"http://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"

    def requests(self) -> list[dict[str, Any]]:
        text = self._log.read_text() if self._log.exists() else ""
        return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._folder.cleanup()


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    options: argparse.Namespace

    def do_CONNECT(self) -> None:
        if far := self.reach(self.path):
            with far:
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=_carry, args=(far, self.connection), daemon=True)
                back.start()
                _carry(self.connection, far)
                back.join(60)

    def do_GET(self) -> None:
        authority, _, path = self.path.removeprefix("http://").partition("/")
        if far := self.reach(authority):
            own = ("proxy-", "connection")
            kept = [f"{name}: {value}" for name, value in self.headers.items() if not name.lower().startswith(own)]
            head = [f"{self.command} /{path} HTTP/1.1", *kept]
            with far:
                far.sendall("\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1"))
                _carry(far, self.connection)

    def reach(self, authority: str) -> socket.socket | None:
        """A connection to the host, or none if the answer says why there is none. Nothing follows on this one."""
        self.close_connection = True
        names, denied = json.loads(self.options.names), self.options.deny.split(",")
        basic = f"Basic {base64.b64encode(self.options.credentials.encode()).decode()}"
        known = not self.options.credentials or self.headers["Proxy-Authorization"] == basic
        with Path(self.options.log).open("a") as log:
            log.write(json.dumps({"line": self.requestline, "known": known}) + "\n")
        host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "80")
        status = 407 if not known else 403 if host in denied else 502
        if status == 502:
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", names[host]) if host in names else (host, int(port)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("log", "port-file", "names", "credentials", "deny"):
        parser.add_argument(f"--{name}")
    _Proxy.options = parser.parse_args()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Proxy) as server:
        ready = Path(_Proxy.options.port_file)
        ready.with_suffix(".new").write_text(str(server.server_port))
        ready.with_suffix(".new").replace(ready)
        server.serve_forever()


if __name__ == "__main__":
    main()
