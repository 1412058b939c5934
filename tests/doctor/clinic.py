"""Asks ``poolbench doctor`` about a project's workers on a real Valkey."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.celery_workers import PROJECT, Project, ProjectWorker
from tests.waiting import wait_for
from tests.worker_process import ROOT

PATIENCE = 60.0  # seconds
DOCTOR = [sys.executable, "-c", "from poolbench.cli import main; main()", "doctor"]


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


class Clinic(Project):
    def admit(self, *workers: ProjectWorker) -> None:
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

    def ask(self, *options: str, app: str = PROJECT) -> subprocess.CompletedProcess[str]:
        return self.call(*DOCTOR, "-A", app, *options)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)

    def report(self, *options: str) -> Report:
        done = self.ask("--json", "--timeout", "3", *options)
        assert done.returncode in (0, 1), done.stderr + done.stdout
        return Report(done.returncode, json.loads(done.stdout), done.stderr)
