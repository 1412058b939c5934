"""Starts a project's workers on a real Valkey, and asks ``poolbench doctor`` about them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from tests.waiting import wait_for
from tests.worker_process import ROOT, Service

PROJECT = "tests.doctor.project"
PATIENCE = 60.0  # seconds
DOCTOR = [sys.executable, "-c", "from poolbench.cli import main; main()", "doctor"]


class Patient(Service):
    HEALTH = "DOCTOR_READY"


@dataclass(frozen=True, slots=True)
class Report:
    code: int
    data: dict[str, Any]
    error: str

    def found(self, code: str) -> str:
        """The places and findings of a check, a line each."""
        places = next((each["places"] for each in self.data["findings"] if each["code"] == code), ())
        return "\n".join(f"{place['where']}: {place['found']}" for place in places)

    def passed(self, code: str) -> bool:
        return code in self.data["passed"]


class Clinic(ExitStack):
    """One project on one database of a broker. Its app sends tasks and asks; its workers are processes."""

    def __init__(self, folder: Path, broker: str, *, sick: bool = False, **conf: Any) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.notes = folder, folder / "notes"
        self.environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "DOCTOR_BROKER": broker,
            "DOCTOR_CONF": json.dumps(conf),
            "DOCTOR_NOTES": str(self.notes),
            **({"DOCTOR_SICK": "1"} if sick else {}),
        }
        self.app = Celery("sender", broker=broker, set_as_current=False)
        self.app.conf.update({**conf, "task_acks_late": False})
        self.callback(self.app.close)

    def launch(self, name: str, *options: str, file: str = "", before: Sequence[str] = ()) -> Patient:
        """A worker that need not be ready yet. Before: words in front of its command, e.g. taskset."""
        command = [*before, sys.executable, "-m", "celery", "-A", PROJECT, "worker", "-l", "INFO", "-n", f"{name}@%h"]
        return self.enter_context(Patient(file or name, [*command, *options], self.environment, self.folder))

    def admit(self, *workers: Patient) -> None:
        """Wait until they take tasks and hear remote commands."""
        for worker in workers:
            worker.wait_until_ready()
        wait_for(lambda: len(self.ping(len(workers))) >= len(workers), seconds=PATIENCE, what="all to answer")

    def ping(self, most: int) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = self.app.control.ping(timeout=3.0, limit=most)
        return answers

    def inspect(self, most: int) -> Any:
        """For as many answers, whatever their names."""
        return self.app.control.inspect(timeout=5.0, limit=most)

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        return self.app.send_task(f"project.{task}", args=args, **options)

    def marks(self, what: str) -> list[str]:
        """Names of the notes that ``began``, ``ended`` or whatever they say."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [line.split()[0] for line in lines if line.split()[1] == what]

    def ask(self, *options: str, app: str = PROJECT) -> subprocess.CompletedProcess[str]:
        return self.call(*DOCTOR, "-A", app, *options)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)

    def report(self, *options: str) -> Report:
        done = self.ask("--json", "--timeout", "3", *options)
        assert done.returncode in (0, 1), done.stderr + done.stdout
        return Report(done.returncode, json.loads(done.stdout), done.stderr)
