"""A stock Celery on a Valkey of its own: workers, what their bodies wrote down, and where a message is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
from celery import Celery

from ledger.jobs import Pool
from tests.matrix.times import PATIENCE
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for
from tests.worker_process import Service

FSYNC = {
    "appendfsync": "everysec"
}  # whatever a cell kills, the kernel lives: no write is lost, and none waits for a disk
QUEUE = "celery"  # Celery's default
BODY = frozenset({"start", "end", "success"})  # marks that are no exceptions


@dataclass(frozen=True, slots=True)
class Mark:
    at: float  # seconds since the epoch
    what: str  # start, end, success, or the class of what the body was ended with
    name: str  # of the job
    pid: int


class StockWorker(Service):
    """``celery worker`` with Celery's defaults, but for what the row is about."""

    HEALTH = "MATRIX_READY"

    @property
    def alive(self) -> bool:
        return self.running

    def ready_or_gone(self) -> bool:
        """Whether it became ready; False if it ended instead."""
        wait_for(lambda: self.health.exists() or not self.alive, seconds=PATIENCE, what=f"{self.name} to be ready")
        return self.alive


class Stock:
    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self._folder = folder
        self._marks = folder / "marks"
        self._stack = ExitStack()
        self.valkey = self._stack.enter_context(ValkeyProcess(appendonly=True, options=FSYNC))
        self._redis = self._stack.enter_context(self.valkey.client())
        self.results = self.valkey.url.replace("/0", "/1")
        self.app = Celery("caller", broker=self.valkey.url, set_as_current=False)
        self.app.conf.broker_connection_retry = True
        self._reader = Celery("reader", backend=self.results, set_as_current=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        self.app.close()
        self._reader.close()

    def launch(
        self, *options: str, slots: int = 1, name: str = "first", variables: dict[str, str] | None = None, **conf: Any
    ) -> StockWorker:
        """A worker that need not be ready yet, or never will be."""
        words = f"-m celery -A tests.matrix.stock_app worker -P {self.pool} -n {name}@%h -l INFO"
        count = [] if any(option.startswith("--autoscale") for option in options) else ["-c", str(slots)]
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "MATRIX_BROKER": self.valkey.url,
            "MATRIX_CONF": json.dumps(conf),
            "MATRIX_MARKS": str(self._marks),
            **(variables or {}),
        }
        command = [sys.executable, *words.split(), *count, *options]
        return self._stack.enter_context(StockWorker(name, command, environment, self._folder))

    def start(self, *options: str, **more: Any) -> StockWorker:
        """A worker that is ready, for remote commands too: those are heard a moment later than jobs are taken."""
        worker = self.launch(*options, **more)
        worker.wait_until_ready()
        wait_for(lambda: self.ask("ping", seconds=1.0), seconds=PATIENCE, what="the worker to hear remote commands")
        return worker

    # -- jobs

    def send(self, task: str, name: str, *args: float, **options: Any) -> None:
        """The job's name is its task id too."""
        self.app.send_task(task, args=(name, *args), task_id=name, **options)

    def marks(self, name: str | None = None) -> list[Mark]:
        if not self._marks.exists():
            return []
        rows = [line.split() for line in self._marks.read_text().splitlines()]
        marks = [Mark(float(at), what, whose, int(pid)) for at, what, whose, pid in rows]
        return [mark for mark in marks if name in (None, mark.name)]

    def count(self, what: str, name: str) -> int:
        return sum(mark.what == what for mark in self.marks(name))

    def begun(self, name: str) -> Mark:
        """Wait until the body has begun."""
        return wait_for(lambda: self._first(name, {"start"}), seconds=PATIENCE, what=f"{name} to begin")

    def ended(self, name: str, *, seconds: float = PATIENCE) -> str:
        """Wait until the body is over: ``end``, the class it was ended with, or ``gone`` with its process."""
        pid = self.begun(name).pid

        def over() -> str | None:
            gone = _gone(pid)  # first, so that a mark written before is seen
            mark = next((mark for mark in self.marks(name) if mark.what not in {"start", "success"}), None)
            return mark.what if mark else "gone" if gone else None

        return wait_for(over, seconds=seconds, every=0.05, what=f"{name} to be over")

    def _first(self, name: str, what: Collection[str]) -> Mark | None:
        return next((mark for mark in self.marks(name) if mark.what in what), None)

    def serves(self, worker: StockWorker, name: str = "sentinel") -> bool:
        """Whether the worker runs one more job. It comes after all others: the queue is first in, first out."""
        self.send("sleep", name, 0.0)
        wait_for(lambda: self.count("end", name) or not worker.alive, seconds=PATIENCE, what=f"{name} to run")
        return worker.alive

    def most_at_once(self, *names: str) -> int:
        """How many of the jobs were running at the same moment."""
        now = most = 0
        for mark in sorted((mark for name in names for mark in self.marks(name)), key=lambda mark: mark.at):
            now += {"start": 1, "end": -1}.get(mark.what, 0)
            most = max(most, now)
        return most

    # -- what the broker and the results know

    def on_queue(self, name: str) -> bool:
        return any(json.loads(text)["headers"]["id"] == name for text in self._redis.lrange(QUEUE, 0, -1))

    def restoring(self) -> bool:
        """Whether a worker holds the lock under which messages of lost workers are put back."""
        return bool(self._redis.exists("unacked_mutex"))

    def looks(self) -> int:
        """How often workers tried to get that lock; before the first job, which is when they SET nothing else."""
        return int(self._redis.info("commandstats").get("cmdstat_set", {"calls": 0})["calls"])

    def unacked(self, name: str) -> bool:
        """In a worker's hands, as far as the broker knows."""
        return any(json.loads(text)[0]["headers"]["id"] == name for text in self._redis.hvals("unacked"))

    def state(self, name: str) -> str:
        """The job's state in the result back end, once it is final."""
        read = self._reader.backend.get_state
        wait_for(lambda: read(name) in {"SUCCESS", "FAILURE", "REVOKED"}, seconds=PATIENCE, what=f"result of {name}")
        return str(read(name))

    def failure(self, name: str) -> str:
        """The class of what the job failed with, by the result back end."""
        return type(self._reader.backend.get_result(name)).__name__

    def ask(self, command: str, *, seconds: float = PATIENCE, **arguments: Any) -> dict[str, Any]:
        """The first worker's reply to a remote command; empty if there is none in that time."""
        replies = self.app.control.broadcast(command, arguments=arguments, reply=True, timeout=seconds, limit=1)
        return dict(next(iter(replies[0].values()))) if replies else {}


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
