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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PROJECTS = ["gevent", "django>=5", "flask>=3"]


@dataclass(frozen=True, slots=True)
class Compared:
    """A run of ``poolbench run`` that is over."""

    text: str  # stdout and stderr, in one line
    run: dict[str, Any]

    @property
    def turns(self) -> dict[str, dict[str, Any]]:
        """The last measurement of each deployment."""
        return {turn["deployment"]: turn for turn in self.run["measurements"]}


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

    def call(self, *words: object, cwd: Path = Path("/"), timeout: float = 200) -> subprocess.CompletedProcess[str]:
        env = {
            k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "CELERY_", "DJANGO_", "POOLBENCH_"))
        }
        name, *rest = map(str, words)
        argv = [self.command(name), *rest]
        return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)

    def compare(
        self, project: Path, calls: Iterable[tuple[object, ...]], *words: object, code: int = 0,
        program: Sequence[str] = ("poolbench", "run", "-A", "shop.celery"),
    ) -> Compared:  # fmt: skip
        """One short round on a project; each call is a task's name, then its arguments."""
        source, target = project / "calls.jsonl", project / "run.json"
        source.write_text("".join(json.dumps({"task": task, "args": args}) + "\n" for task, *args in calls))
        quick = ("--seconds", 10, "--repeat", 1, "--noise", 1, "--json", target)
        done = self.call(*program, "--args", source, *quick, *words, cwd=project)
        assert done.returncode == code, done.stdout + done.stderr
        return Compared(" ".join((done.stdout + done.stderr).split()), json.loads(target.read_text()))


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


@dataclass(frozen=True, slots=True)
class Listener:
    """Somebody else's server: counts who comes, and says nothing."""

    host: str
    port: int
    came: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"


@contextlib.contextmanager
def listening(host: str) -> Iterator[Listener]:
    with socket.create_server((host, 0), backlog=1000) as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(server.getsockname())
        found = Listener(*server.getsockname())

        def come(take: Callable[[], tuple[Any, Any]]) -> None:
            with contextlib.suppress(OSError):
                while True:
                    what, peer = take()
                    found.came.append(peer)
                    if isinstance(what, socket.socket):
                        what.close()

        for take in (server.accept, lambda: datagrams.recvfrom(100)):
            threading.Thread(target=come, args=(take,), daemon=True).start()
        yield found
        for each in (server, datagrams):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # so that the threads end


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
