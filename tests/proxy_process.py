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
from pathlib import Path
from typing import Any, Self

from stack.processes import Command, Process
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
        self._process = Process(Command("proxy", command, os.environ, Path(__file__).parents[1], tied=True))
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


class _Proxy:
    def __init__(self, options: argparse.Namespace) -> None:
        self.names: dict[str, int] = json.loads(options.names)
        self.denied = set(filter(None, options.deny.split(",")))
        basic = base64.b64encode(options.credentials.encode()).decode()
        self.wanted = f"proxy-authorization: basic {basic.lower()}" if options.credentials else ""
        self.log = options.log

    def serve(self, near: socket.socket) -> None:
        with suppress(OSError), near:
            near.settimeout(60)
            while head := _head(near):
                if not self.answer(near, head):
                    return

    def answer(self, near: socket.socket, head: str) -> bool:
        """Whether the connection may go on."""
        line, *headers = head.split("\r\n")
        known = not self.wanted or self.wanted in [header.lower() for header in headers]
        with Path(self.log).open("a") as log:
            log.write(json.dumps({"line": line, "known": known}) + "\n")
        if not known:
            return _refuse(near, "407 Who are you")
        method, place, _ = line.split()
        tunnel = method == "CONNECT"
        authority, _, path = (place, "", "") if tunnel else place.removeprefix("http://").partition("/")
        host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "80")
        if host in self.denied:
            return _refuse(near, "403 Not there")
        try:
            far = socket.create_connection(
                ("127.0.0.1" if host in self.names else host, self.names.get(host, int(port)))
            )
        except OSError:
            return _refuse(near, "502 Nobody there")
        with far:
            if tunnel:
                near.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=_carry, args=(far, near), daemon=True)
                back.start()
                _carry(near, far)
                back.join(60)
                return False
            kept = [h for h in headers if not h.lower().startswith(("proxy-", "connection:"))]
            far.sendall(
                "\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode("latin-1")
            )
            _carry(far, near)
            return False


def _refuse(near: socket.socket, status: str) -> bool:
    near.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    return False


def _head(near: socket.socket) -> str:
    heard = b""
    while b"\r\n\r\n" not in heard:
        piece = near.recv(1 if heard.endswith(b"\r") else 4096)
        if not piece:
            return ""
        heard += piece
    return heard.partition(b"\r\n\r\n")[0].decode("latin-1")


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
    options = parser.parse_args()
    proxy = _Proxy(options)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        ready = Path(options.port_file)
        ready.with_suffix(".new").write_text(str(listener.getsockname()[1]))
        ready.with_suffix(".new").replace(ready)
        while True:
            near, _ = listener.accept()
            threading.Thread(target=proxy.serve, args=(near,), daemon=True).start()


if __name__ == "__main__":
    main()
