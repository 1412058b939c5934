"""When a service is ready: each probe looks once and says yes or no."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from stack.ports import HOST, listens
from stack.processes import Process

TIMEOUT = 2.0  # seconds for one answer

# No proxy, whatever the environment says: everything is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Probe:
    """What we wait for, in words and in code."""

    expected: str
    look: Callable[[Process], bool]


def heartbeat(file: Path) -> Probe:
    """A file that the process has touched since it started."""

    def look(process: Process) -> bool:
        # A file system's clock may be some milliseconds behind.
        return file.exists() and file.stat().st_mtime >= process.started - 0.1

    return Probe(f"a heartbeat in {file}", look)


def http(port: int, path: str) -> Probe:
    """The process itself listens on the port, and the path is answered with a success."""
    return Probe(
        f"an answer on http://{HOST}:{port}{path}",
        lambda process: listens(process.pid, port) and get(f"http://{HOST}:{port}{path}") is not None,
    )


def ping(port: int) -> Probe:
    """The process itself listens on the port, and PING is answered."""
    return Probe(f"an answer to PING on port {port}", lambda process: listens(process.pid, port) and _ping(port))


def get(url: str) -> str | None:
    """The body, or None if there was no success."""
    try:
        with _opener.open(url, timeout=TIMEOUT) as answer:
            return str(answer.read().decode(errors="replace"))
    except (urllib.error.URLError, OSError):
        return None


def _ping(port: int) -> bool:
    with redis.Redis(host=HOST, port=port, username="health", socket_timeout=TIMEOUT) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False  # not there yet, or still loading
