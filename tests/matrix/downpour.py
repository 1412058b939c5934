"""A Downpour for a cell, and what is asked of its records."""

from __future__ import annotations

import sys
from typing import Any

from ledger.jobs import JobRecord, JobState
from ledger.messages import broker_options
from tests.matrix.stock import System
from tests.matrix.times import PATIENCE
from tests.waiting import wait_for
from tests.worker_process import Service, environment_of
from tests.world import World


class Downpour(System):
    def world(self, **settings: Any) -> World:
        """The origin beside the Valkey; nobody works yet."""
        world = self._stack.enter_context(World(self._folder, valkey=self.valkey, **settings))
        self.app.conf.update(broker_options(world.settings))
        return world

    def busy(self, seconds: float, *, slots: int = 4, size: int = 100_000, **settings: Any) -> World:
        """A world with one worker, which has begun to receive the only file; it takes so long."""
        world = self.world(**settings).start(self.pool, slots=slots)
        world.submit(self.pool, [world.paced("job", seconds, size)])
        running(world)
        return world

    def launch(self, world: World, *options: str) -> Service:
        """A worker with further options; it need not become ready."""
        words = f"-m celery -A worker.app worker -P {self.pool} -Q {self.pool.queue} -n options@%h -E"
        command = [sys.executable, *words.split(), *options]
        service = Service("worker-options", command, environment_of(world.settings), self._folder)
        world.services.append(service)
        return service


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
