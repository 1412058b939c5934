"""The real stack under a project name of its own: what a test asks of `docker compose`, each call bounded in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "downpour-test"
WORKERS = ("worker-prefork", "worker-threads", "worker-gevent")
LASTING = ("redis", "sweep", "origin", "flower", *WORKERS)  # all services but the one-shot and the producer

# A person's shell must not change what is tested.
_FOREIGN = (
    "DOWNPOUR_",
    "FLOWER_",
    "ORIGIN_",
    "COMPOSE_",
    "PREFORK_",
    "THREADS_",
    "GEVENT_",
    "WORKER_",
    "DOWNLOADS_",
    "STOP_",
)


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    def lines(self) -> Iterator[Any]:
        """The JSON lines of its standard output."""
        return (json.loads(line) for line in self.out.splitlines() if line.startswith(("{", "[")))


def run(*command: str, seconds: float = 60, env: Mapping[str, str] | None = None, stdin: str = "") -> Said:
    """Run to the end, or kill the command with all its children and fail."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=ROOT,
        start_new_session=True,  # the compose plugin is a child of `docker` and would keep our pipes open
    )
    try:
        out, err = process.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=10)
        raise AssertionError(
            f"still running after {seconds} s: {' '.join(command)}\n{out[-2000:]}\n{err[-4000:]}"
        ) from None
    return Said(process.returncode, out, err)


@dataclass
class Stack:
    """One project; ``settings`` is what a person would have in .env."""

    env_file: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def flower_url(self) -> str:
        return f"http://127.0.0.1:{self.settings['FLOWER_PORT']}"

    def compose(self, *args: str, seconds: float = 60, stdin: str = "") -> Said:
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        command = ("docker", "compose", "--project-name", PROJECT, "--env-file", str(self.env_file), "--ansi", "never")
        return run(*command, *args, seconds=seconds, env=env, stdin=stdin)

    def done(self, *args: str, seconds: float = 60, stdin: str = "") -> str:
        """Standard output of a compose command that must succeed."""
        said = self.compose(*args, seconds=seconds, stdin=stdin)
        assert said.code == 0, f"exit {said.code}: {' '.join(args)}\n{said.out[-2000:]}\n{said.err[-4000:]}"
        return said.out

    def up(self, *args: str, seconds: float = 180) -> None:
        self.done("up", "--detach", "--wait", *args, seconds=seconds)

    def inside(self, service: str, *command: str, seconds: float = 60) -> str:
        return self.done("exec", "-T", service, *command, seconds=seconds)

    def producer(self, *args: str, seconds: float = 180, stdin: str = "") -> Said:
        return self.compose("run", "--rm", "-T", "producer", *args, seconds=seconds, stdin=stdin)

    def containers(self) -> dict[str, list[dict[str, Any]]]:
        """What `docker inspect` says of each container, by service."""
        ids = run(
            "docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"
        ).out.split()
        found: dict[str, list[dict[str, Any]]] = {}
        for container in json.loads(run("docker", "inspect", *ids).out) if ids else []:
            found.setdefault(container["Config"]["Labels"]["com.docker.compose.service"], []).append(container)
        return found

    def redis(self, *command: str) -> str:
        """Ask Redis as the administrator, whose password no running container is shown."""
        password = self.done("run", "--rm", "-T", "--no-deps", "keys", "cat", "/keys/admin/password").strip()
        cli = ("redis-cli", "-e", "--no-auth-warning", "--user", "admin", "--pass", password)
        return self.inside("redis", *cli, *command).strip()

    def logs(self, *services: str) -> str:
        return self.done("logs", "--no-log-prefix", *services)
