"""A real worker, a real sweep: processes of their own, started with the very commands a deployment uses.

They are told everything by their environment, as in a deployment, and signalled by pid.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil
from pydantic import SecretStr

from ledger.jobs import Pool
from ledger.settings import Settings
from stack.processes import Command, Process
from tests.other_host import Host
from tests.tied import tied
from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent


class Service(Process):
    """A process that says by a file, whose name it has from its environment, that it is ready."""

    HEALTH = "DOWNPOUR_HEALTH_FILE"

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.health, self.log = folder / f"{name}.alive", folder / f"{name}.log"
        self.health.unlink(missing_ok=True)
        environment = {**environment, self.HEALTH: str(self.health)}
        super().__init__(Command(name, tied(command), environment, ROOT, self.log))

    def wait_until_ready(self) -> Self:
        wait_for(self._ready, seconds=60, what=f"{self.name} to be ready")
        return self

    def ready_or_gone(self) -> bool:
        """Whether it became ready; False if it ended instead."""
        wait_for(lambda: self.health.exists() or not self.running, seconds=60, what=f"{self.name} to be ready")
        return self.running

    def _ready(self) -> bool:
        if not self.running:
            raise AssertionError(f"{self.name} ended with {self.returncode}:\n{self.text()[-4000:]}")
        return self.health.exists()

    def children(self) -> list[int]:
        """The pids of its children and theirs; none when it has ended."""
        with contextlib.suppress(psutil.Error):
            if self.running:
                return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        return []

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def terminate(self, seconds: float = 40) -> int:
        """SIGTERM to the main process; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if error[0] is not None:
            print(f"--- {self.name}\n{self.text()[-6000:]}")


def worker(
    pool: Pool, settings: Settings, folder: Path, *, slots: int = 4, name: str = "", host: Host | None = None
) -> Service:
    name = name or str(pool)
    options = f"-m celery -A worker.app worker -P {pool} -Q {pool.queue} -n {name}@%h -c {slots} -l INFO -E"
    command = [sys.executable, *options.split()]
    if host is None:
        return Service(f"worker-{name}", command, environment_of(settings), folder)
    return Service(f"worker-{name}-{host.name}", host.command(command), environment_of(settings), folder)


def sweep(settings: Settings, folder: Path) -> Service:
    return Service("sweep", [sys.executable, "-m", "ledger.sweep"], environment_of(settings), folder)


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
