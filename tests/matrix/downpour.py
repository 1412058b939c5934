"""A Downpour for a cell, and Celery's remote control as its workers hear it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from celery import Celery

from ledger.jobs import JobRecord, JobState, Pool
from ledger.messages import broker_options
from tests.matrix.stock import FSYNC
from tests.matrix.times import PATIENCE
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for
from tests.worker_process import Service, environment_of
from tests.world import World


class Downpour:
    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self._folder = folder
        self._stack = ExitStack()
        self._app: Celery | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if self._app:
            self._app.close()

    def world(self, **settings: Any) -> World:
        """Valkey and origin; nobody works yet."""
        valkey = self._stack.enter_context(ValkeyProcess(appendonly=True, options=FSYNC))
        world = self._stack.enter_context(World(self._folder, valkey=valkey, **settings))
        self._app = Celery("caller", set_as_current=False)
        self._app.conf.update(broker_options(world.settings))
        return world

    def launch(self, world: World, *options: str) -> Service:
        """A worker with further options; it need not become ready."""
        words = f"-m celery -A worker.app worker -P {self.pool} -Q {self.pool.queue} -n options@%h -E"
        command = [sys.executable, *words.split(), *options]
        service = Service("worker-options", command, environment_of(world.settings), self._folder)
        world.services.append(service)
        return service

    def send(self, task: str, *args: Any) -> None:
        """A task that is no download, for a worker that was told to include it."""
        assert self._app is not None
        self._app.send_task(task, args=args, queue=self.pool.queue)

    def hears(self) -> None:
        """Wait until remote commands reach the worker; it is ready for jobs a moment earlier."""
        wait_for(lambda: self.ask("ping", seconds=1.0), seconds=PATIENCE, what="the worker to hear remote commands")

    def ask(self, command: str, *, seconds: float = PATIENCE, **arguments: Any) -> dict[str, Any]:
        """The first worker's reply to a remote command of Celery; empty if there is none in that time."""
        assert self._app is not None
        replies = self._app.control.broadcast(command, arguments=arguments, reply=True, timeout=seconds, limit=1)
        return dict(next(iter(replies[0].values()))) if replies else {}


def one(world: World, batch: str = "b") -> JobRecord:
    """The record of a batch's first job."""
    return next(iter(world.ledger.read([f"{batch}.0"])))


def closed(world: World, batch: str = "b") -> JobRecord:
    """The same, once it is final."""
    return world.finished(batch, seconds=PATIENCE)[0]


def running(world: World, batch: str = "b") -> JobRecord:
    """The same, once it has received bytes."""
    wait_for(lambda: one(world, batch).bytes > 0, seconds=PATIENCE, what=f"{batch} to receive something")
    return one(world, batch)


def done_in(record: JobRecord, attempts: int) -> bool:
    return record.state is JobState.DONE and len(record.attempts) == attempts
