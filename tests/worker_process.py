"""A real worker, a real sweep: processes of their own, started with the very commands a deployment uses.

They are told everything by their environment, as in a deployment, and signalled by pid.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from pydantic import SecretStr

from ledger.jobs import Pool
from ledger.settings import Settings
from tests.other_host import Host
from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent


class Service:
    """A process that says by its health file that it is ready."""

    def __init__(self, name: str, command: list[str], settings: Settings, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.health = folder / f"{name}.alive"
        self.log = folder / f"{name}.log"
        self.health.unlink(missing_ok=True)
        environment = environment_of(settings.model_copy(update={"health_file": self.health}))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_until_ready(self) -> Self:
        wait_for(self._ready, seconds=60, what=f"{self.name} to be ready")
        return self

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.text()[-4000:]}")
        return self.health.exists()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def send(self, signal_: signal.Signals) -> None:
        os.kill(self.pid, signal_)

    def kill(self) -> None:
        """SIGKILL to the process and its children at the same moment, as when a container is killed."""
        for pid in [*self.children(), self.pid] if self.process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)

    def terminate(self, seconds: float = 40) -> int:
        """SIGTERM to the main process; its exit code."""
        self.send(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
            self.kill()
        if kind is not None:
            print(f"--- {self.name}\n{self.text()[-6000:]}")


def worker(
    pool: Pool, settings: Settings, folder: Path, *, slots: int = 4, name: str = "", host: Host | None = None
) -> Service:
    name = name or str(pool)
    options = f"-m celery -A worker.app worker -P {pool} -Q {pool.queue} -n {name}@%h -c {slots} -l INFO -E"
    command = [sys.executable, *options.split()]
    if host is None:
        return Service(f"worker-{name}", command, settings, folder)
    return Service(f"worker-{name}-{host.name}", host.command(command), settings, folder)


def sweep(settings: Settings, folder: Path) -> Service:
    return Service("sweep", [sys.executable, "-m", "ledger.sweep"], settings, folder)


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as the environment that makes them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOWNPOUR_", "FLOWER_"))}
    for name, value in settings.model_dump(exclude_defaults=True).items():
        kept[f"DOWNPOUR_{name.upper()}"] = _text(value)
    return kept | {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}  # as in the image


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, frozenset) else str(value)
