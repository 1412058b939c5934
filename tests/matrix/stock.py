"""A stock Celery on a Valkey of its own: workers, what their bodies wrote down, and where a message is."""

from __future__ import annotations

import json
import os
import sys
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

# Whatever a cell kills, the kernel lives: no write is lost, and none waits for a disk.
FSYNC = {"appendfsync": "everysec"}
QUEUE = "celery"  # Celery's default


@dataclass(frozen=True, slots=True)
class Mark:
    at: float  # seconds since the epoch
    what: str  # start, end, success, or the class of what the body was ended with
    name: str  # of the job
    pid: int


class StockWorker(Service):
    """``celery worker`` with Celery's defaults, but for what the row is about."""

    HEALTH = "MATRIX_READY"


class System:
    """What a cell of either column has: a folder, a Valkey, and Celery's remote control. All is gone afterwards."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self._folder = folder
        self._stack = ExitStack()
        self.valkey = self._stack.enter_context(ValkeyProcess(appendonly=True, options=FSYNC))
        self.app = self._stack.enter_context(Celery("caller", broker=self.valkey.url, set_as_current=False))
        self.app.conf.broker_connection_retry = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def ask(self, command: str, *, seconds: float = PATIENCE, **arguments: Any) -> dict[str, Any]:
        """The first worker's reply to a remote command; empty if there is none in that time."""
        replies = self.app.control.broadcast(command, arguments=arguments, reply=True, timeout=seconds, limit=1)
        return dict(next(iter(replies[0].values()))) if replies else {}

    def hears(self) -> None:
        """Wait until remote commands reach the worker; it is ready for jobs a moment earlier."""
        wait_for(lambda: self.ask("ping", seconds=1.0), seconds=PATIENCE, what="the worker to hear remote commands")


class Stock(System):
    def __init__(self, pool: Pool, folder: Path) -> None:
        super().__init__(pool, folder)
        self._marks = folder / "marks"
        self._redis = self._stack.enter_context(self.valkey.client())
        self.results = self.valkey.url.replace("/0", "/1")
        self._reader = self._stack.enter_context(Celery("reader", backend=self.results, set_as_current=False))

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
        """A worker that is ready, for remote commands too."""
        worker = self.launch(*options, **more).wait_until_ready()
        self.hears()
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

        def start() -> Mark | None:
            return next((mark for mark in self.marks(name) if mark.what == "start"), None)

        return wait_for(start, seconds=PATIENCE, what=f"{name} to begin")

    def ended(self, name: str) -> str:
        """Wait until the body is over: ``end``, the class it was ended with, or ``gone`` with its process."""
        pid = self.begun(name).pid

        def over() -> str | None:
            gone = _gone(pid)  # first, so that a mark written before is seen
            mark = next((mark for mark in self.marks(name) if mark.what not in {"start", "success"}), None)
            return mark.what if mark else "gone" if gone else None

        return wait_for(over, seconds=PATIENCE, every=0.05, what=f"{name} to be over")

    def serves(self, worker: StockWorker, name: str = "sentinel") -> bool:
        """Whether the worker runs one more job. It comes after all others: the queue is first in, first out."""
        self.send("sleep", name, 0.0)
        wait_for(lambda: self.count("end", name) or not worker.running, seconds=PATIENCE, what=f"{name} to run")
        return worker.running

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


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
