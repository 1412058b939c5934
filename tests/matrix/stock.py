"""A stock Celery on a Valkey of its own: workers, what their bodies noted, and where a message is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psutil
from celery import Celery

from ledger.jobs import Pool
from tests.celery_workers import Note, Project, ProjectWorker
from tests.matrix.times import PATIENCE
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for

# Whatever a cell kills, the kernel lives: no write is lost, and none waits for a disk.
FSYNC = {"appendfsync": "everysec"}
QUEUE = "celery"  # Celery's default


class System:
    """What a cell of either column has: a folder, a Valkey, and Celery's remote control. All is gone afterwards."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self._folder = folder
        self._stack = ExitStack()
        self.valkey = self._stack.enter_context(ValkeyProcess(appendonly=True, options=FSYNC))
        self._project = self._stack.enter_context(Project(folder, self.valkey.url, sick=True))
        self.app = self._project.app
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
        self._redis = self._stack.enter_context(self.valkey.client())
        self.results = self.valkey.url.replace("/0", "/1")
        self._reader = self._stack.enter_context(Celery("reader", backend=self.results, set_as_current=False))

    def launch(
        self, *options: str, slots: int = 1, name: str = "first", variables: Mapping[str, str] = {}, **conf: Any
    ) -> ProjectWorker:
        """A worker that need not be ready yet, or never will be."""
        count = [] if any(option.startswith("--autoscale") for option in options) else ["-c", str(slots)]
        variables = {"PROJECT_CONF": json.dumps(conf), **variables}
        return self._project.launch(name, "-P", self.pool, *count, *options, variables=variables)

    def start(self, *options: str, **more: Any) -> ProjectWorker:
        """A worker that is ready, for remote commands too."""
        worker = self.launch(*options, **more).wait_until_ready()
        self.hears()
        return worker

    # -- jobs

    def send(self, task: str, name: str, *args: float, **options: Any) -> None:
        """The job's name is its task id too."""
        self._project.send(task, name, *args, task_id=name, **options)

    def notes(self, name: str) -> list[Note]:
        return [note for note in self._project.notes() if note.name == name]

    def count(self, what: str, name: str) -> int:
        return sum(note.what == what for note in self.notes(name))

    def begun(self, name: str) -> Note:
        """Wait until the body has begun."""

        def start() -> Note | None:
            return next((note for note in self.notes(name) if note.what == "start"), None)

        return wait_for(start, seconds=PATIENCE, what=f"{name} to begin")

    def running(self, seconds: float, task: str = "note", **options: Any) -> Note:
        """A job by the name of "job" has begun, and takes so long."""
        self.send(task, "job", seconds, **options)
        return self.begun("job")

    def ended(self, name: str) -> str:
        """Wait until the body is over: ``end``, the class it was ended with, or ``gone`` with its process."""
        pid = self.begun(name).pid

        def over() -> str | None:
            gone = _gone(pid)  # first, so that a note written before is seen
            note = next((note for note in self.notes(name) if note.what not in {"start", "success"}), None)
            return note.what if note else "gone" if gone else None

        return wait_for(over, seconds=PATIENCE, every=0.05, what=f"{name} to be over")

    def serves(self, worker: ProjectWorker, name: str = "sentinel") -> bool:
        """Whether the worker runs one more job. It comes after all others: the queue is first in, first out."""
        self.send("note", name, 0.0)
        wait_for(lambda: self.count("end", name) or not worker.running, seconds=PATIENCE, what=f"{name} to run")
        return worker.running

    def most_at_once(self, *names: str) -> int:
        """How many of the jobs were running at the same moment."""
        now = most = 0
        for note in sorted((note for name in names for note in self.notes(name)), key=lambda note: note.at):
            now += {"start": 1, "end": -1}.get(note.what, 0)
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
