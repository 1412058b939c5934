"""What Flower is shown: in each pool two files that arrive, two that take long, and jobs that end otherwise."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ledger.jobs import JobRecord, JobState, Pool
from ledger.ledger import Ledger
from ledger.redis_client import connect
from ledger.settings import Settings
from poolbench import experiment
from producer.scenarios import ARTICLE_FILES
from stack.plan import ROOT
from stack.processes import Command, Process
from stack.stack import Stack
from tests.producer_process import finish, start

PURGE = 15  # seconds after which Flower forgets a worker that is gone
SETTINGS = {
    "FLOWER_PURGE_OFFLINE_WORKERS": str(PURGE),
    "DOWNPOUR_WAIT_IN_JOB": "0",  # a second attempt is another worker's or another task's, never the same one's
    "DOWNPOUR_RETRY_BASE": "0.1",
    "DOWNPOUR_MAX_ATTEMPTS": "2",
    "DOWNPOUR_GRACE": "0.1",  # the long ones need not be waited for at the end
}
SIZE = 400_000
FOR_LONG = "/paced/120"  # longer than the tests

# What becomes of the jobs of a pool, by their place in its batch.
FIRST, SECOND, MISSING, LONG, LONGER, TO_CANCEL, FLAKY, HOPELESS = range(8)


class Scene:
    """A stack with Flower. Its batches are named after their pools."""

    def __init__(self, prefer: Mapping[str, int] = {}) -> None:
        pools = {Pool.PREFORK: 4, Pool.THREADS: 8, Pool.GEVENT: 100}
        self.stack = Stack(pools, flower=True, settings=SETTINGS, prefer=prefer)

    def __enter__(self) -> Self:
        self.stack.__enter__()
        told = self.stack.plan.downpour("producer")
        password = Path(told["DOWNPOUR_REDIS_PASSWORD_FILE"])
        settings = Settings(redis_url=told["DOWNPOUR_REDIS_URL"], redis_password_file=password)
        self.ledger = Ledger(connect(settings), settings.key_prefix)
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    @property
    def url(self) -> str:
        return self.stack.plan.flower_url

    @property
    def host(self) -> str:
        """The origin as the rows name it."""
        return self.stack.plan.origin_url.removeprefix("http://")

    def worker(self, pool: Pool) -> str:
        return f"{pool}@{socket.gethostname()}"

    def submit_all(self) -> None:
        for pool in Pool:
            first, second = ARTICLE_FILES[experiment.PoolKind(pool)]
            self.submit(
                pool,
                f"/paced/2/{first}",
                f"/paced/3/{second}",
                "/faults/status/404/Missing_Page.pdf",
                f"{FOR_LONG}/Long_Movie.avi",
                f"{FOR_LONG}/Longer_Movie.avi",
                f"{FOR_LONG}/Unwanted_Movie.avi",
                f"/faults/flaky/503/Flaky_Mirror.pdf?key=flaky-{pool}&times=1&",
                f"/faults/flaky/503/Hopeless_Mirror.pdf?key=hopeless-{pool}&times=99&",
            )

    def submit(self, pool: Pool, *paths: str, batch: str = "", chunk: int = 1) -> None:
        urls = [f"{self.stack.plan.origin_url}{path}{'' if '?' in path else '?'}size={SIZE}" for path in paths]
        self._producer("submit", "--pool", pool, "--name", batch or pool, "--per-message", str(chunk), *urls)

    def counts(self, *batches: str) -> Counter[JobState]:
        """Jobs by state, of these batches or of all."""
        counts: Counter[JobState] = Counter()
        for name in batches or self.ledger.batches(1000):
            if batch := self.ledger.batch(name):
                counts.update({state: batch.count(state) for state in JobState})
        return counts

    def records(self, name: str) -> list[JobRecord]:
        batch = self.ledger.batch(name)
        return list(self.ledger.read_batch(batch)) if batch else []

    def cancel(self, batch: str, *which: int) -> None:
        self._producer("cancel", batch, *map(str, which))

    def cancel_all(self) -> None:
        for name in self.ledger.batches(1000):
            if (batch := self.ledger.batch(name)) and not batch.finished:
                self.cancel(name)

    def comparing(self, seed: int) -> Process:
        """The tutorial's comparison on the running workers."""
        words = f"-m producer compare article --seed {seed} --no-serial --pools prefork,threads,gevent"
        env, log = self.stack.plan.env("producer"), self.stack.plan.log("comparing")
        return Process(Command("comparing", [sys.executable, *words.split()], env, ROOT, log))

    def drain(self, worker: str) -> None:
        self._producer("drain", worker)

    def undrain(self, worker: str) -> None:
        self._producer("undrain", worker)

    def one_more_worker(self, pool: Pool, name: str) -> Process:
        """A worker as another container would have it; it lets short jobs end when it is told to stop."""
        command = f"-m celery -A worker.app worker -P {pool} -Q {pool.queue} -n {name} -c 2 -l INFO -E"
        env = self.stack.plan.env("worker") | {"DOWNPOUR_GRACE": "6"}
        log = self.stack.plan.log(name)
        return Process(Command(name, [sys.executable, *command.split()], env, ROOT, log))

    def _producer(self, *words: str) -> None:
        said = finish(start(self.stack.plan.env("producer"), *words), seconds=30)
        assert said.code == 0, said.err
