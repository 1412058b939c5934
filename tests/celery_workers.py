"""Workers of a Celery project of others, on a broker of one's choice, and what their tasks noted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from tests.worker_process import Service

PROJECT = "tests.celery_project"


class ProjectWorker(Service):
    """``celery worker`` with Celery's defaults, but for what the test is about."""

    HEALTH = "PROJECT_READY"


@dataclass(frozen=True, slots=True)
class Note:
    at: float  # seconds since the epoch
    pid: int
    what: str  # start, end, success, or the class of what the body was ended with
    name: str  # of the job; of a success its id


class Project(ExitStack):
    """One project on one database of a broker. Its app sends tasks and asks; its workers are processes.

    Args:
        conf: of the workers, and, but for late acknowledgement, of the app that sends.
    """

    def __init__(self, folder: Path, broker: str, *, sick: bool = False, **conf: Any) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / "notes"
        self.environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "PROJECT_BROKER": broker,
            "PROJECT_CONF": json.dumps(conf),
            "PROJECT_NOTES": str(self.file),
            **({"PROJECT_SICK": "1"} if sick else {}),
        }
        self.app = Celery("sender", broker=broker, set_as_current=False)
        self.app.conf.update({**conf, "task_acks_late": False})
        self.callback(self.app.close)

    def launch(
        self, name: str, *options: str, file: str = "", before: Sequence[str] = (), variables: Mapping[str, str] = {}
    ) -> ProjectWorker:
        """A worker that need not be ready yet, or never will be. Before: words in front of its command."""
        command = [*before, sys.executable, "-m", "celery", "-A", PROJECT, "worker", "-l", "INFO", "-n", f"{name}@%h"]
        environment = self.environment | dict(variables)
        return self.enter_context(ProjectWorker(file or name, [*command, *options], environment, self.folder))

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        return self.app.send_task(f"project.{task}", args=args, **options)

    def notes(self) -> list[Note]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        rows = (line.split(maxsplit=3) for line in lines)
        return [Note(float(at), int(pid), what, name) for at, pid, what, name in rows]

    def noted(self, what: str) -> list[str]:
        """Names of those that noted a ``start``, an ``end`` or whatever."""
        return [note.name for note in self.notes() if note.what == what]
