"""What runs in a stack, and in which environment: the Procfile's commands, one private folder, three ports.

===================  =================================================================================
variable             who gets it
===================  =================================================================================
ORIGIN_PORT          all; the Procfile's commands take these five
FLOWER_PORT
POOL_CONCURRENCY     PREFORK_, THREADS_, GEVENT_
DOWNPOUR_*           ledger/settings.py; the Redis user and the password file are those of the role
DOWNPOUR_STACK       the mark of this stack, see processes.py
===================  =================================================================================

Nothing of this kind is inherited from the shell: a forgotten variable there must not change what we measure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from honcho.environ import parse_procfile

from ledger.jobs import Pool
from stack import probes
from stack.ports import HOST
from stack.probes import Probe
from stack.processes import MARK, Command

ROOT = Path(__file__).resolve().parent.parent
CONCURRENCY: Mapping[Pool, int] = {Pool.PREFORK: 4, Pool.THREADS: 8, Pool.GEVENT: 100}
FOLDERS = ("keys", "logs", "health", "tmp", "valkey", "downloads")

_OURS = ("DOWNPOUR_", "FLOWER_", "CELERY", "ORIGIN_", "PREFORK_", "THREADS_", "GEVENT_", "PORT")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first process starts."""

    private: Path  # removed at the end; also the mark
    downloads: Path
    redis_port: int
    origin_port: int
    flower_port: int
    pools: Mapping[Pool, int] = field(default_factory=lambda: dict(CONCURRENCY))
    settings: Mapping[str, str] = field(default_factory=dict)  # more variables, for every process

    @property
    def origin_url(self) -> str:
        return f"http://{HOST}:{self.origin_port}"

    @property
    def flower_url(self) -> str:
        return f"http://{HOST}:{self.flower_port}"

    def redis_url(self, role: str) -> str:
        return f"redis://{role}@{HOST}:{self.redis_port}/0"

    def log(self, name: str) -> Path:
        return self.private / "logs" / f"{name}.log"

    def health(self, name: str) -> Path:
        return self.private / "health" / name

    def downpour(self, role: str) -> dict[str, str]:
        """The settings of a role: worker, sweep, producer or flower."""
        return {
            "DOWNPOUR_REDIS_URL": self.redis_url(role),
            "DOWNPOUR_REDIS_PASSWORD_FILE": str(self.private / "keys" / role / "password"),
            "DOWNPOUR_DOWNLOADS": str(self.downloads),
            "DOWNPOUR_ORIGIN_URL": self.origin_url,
            "DOWNPOUR_ALLOW_NETWORKS": "127.0.0.0/8",
            "DOWNPOUR_ALLOW_PORTS": ",".join(map(str, sorted({80, 443, 8000, 8080, 8443, self.origin_port}))),
            "DOWNPOUR_GRACE": "2",
            **self.settings,
        }

    def env(self, role: str) -> dict[str, str]:
        """The whole environment of a process with this role."""
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
        """How the Procfile starts this service.

        Args:
            line: instead of the Procfile's own; see ``line``.

        Raises:
            KeyError: it has no such line.
        """
        env = {**self.env(name.partition("-")[0]), "DOWNPOUR_HEALTH_FILE": str(self.health(name))}
        # The shell fills in the variables and becomes the service: its process id is the service's.
        return Command(name, ["/bin/sh", "-c", f"exec {line or self.line(name)}"], env, ROOT, self.log(name))

    def line(self, name: str) -> str:
        """The Procfile's.

        Raises:
            KeyError: it has none of this name.
        """
        return str(parse_procfile((ROOT / "Procfile").read_text()).processes[name])

    def probe(self, name: str) -> Probe:
        """When this service is ready."""
        if name == "valkey":
            return probes.ping(self.redis_port)
        if name == "origin":
            return probes.http(self.origin_port, "/healthz")
        if name == "flower":
            return probes.http(self.flower_port, "/healthcheck")
        return probes.heartbeat(self.health(name))


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what could redirect or change a stack."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OURS) and name.lower() not in _PROXIES and name != MARK
    }
