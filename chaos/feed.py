"""Keeps the queues full: a producer process per batch, as people run it, while the faults go on.

A command that fails (Redis was killed under it) is run again, the very same, until it says that all is in.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from chaos.mix import Planned, plan_batch, write_manifest
from chaos.subject import Subject
from ledger.jobs import Pool
from stack.processes import Process

PATIENCE = 90.0  # seconds for one submission, repetitions included
_POLL = 0.005


class FeedError(Exception):
    """A submission could not be completed."""


@dataclass(slots=True)
class Submission:
    batch: str
    pool: Pool
    jobs: list[Planned]
    runs: int = 0  # of the command
    killed: bool = False
    complete: bool = False


@dataclass(slots=True)
class Feed:
    """
    Args:
        jobs: at least so many are submitted, and more while faults go on.
        batch: jobs in a batch.
        low: messages on a queue below which the next batch is submitted.
    """

    subject: Subject
    seed: int
    jobs: int
    batch: int
    low: int
    submissions: list[Submission] = field(default_factory=list)
    error: str | None = None
    faults_over: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    @property
    def submitted(self) -> int:
        return sum(len(each.jobs) for each in tuple(self.submissions))

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                raise FeedError(f"expected the last batch to be submitted within {seconds:.0f} s")

    def stop(self) -> None:
        self.stopped.set()
        self.join(PATIENCE + 10)

    def planned(self) -> dict[str, Sequence[Planned]]:
        return {each.batch: each.jobs for each in tuple(self.submissions)}

    def submit(self, pool: Pool, count: int, *, name: str = "load", kill_after: float | None = None) -> Submission:
        """Submit a batch; with ``kill_after`` the producer is killed that long after its first job was accepted.

        Raises:
            FeedError: it could not be completed in time.
        """
        with self._lock:
            batch = f"{name}-{len(self.submissions):03d}-{pool}"
            made = Submission(batch, pool, plan_batch(self.seed, batch, pool, count))
            self.submissions.append(made)
        stack = self.subject.stack
        manifest = stack.plan.private / f"{batch}.jsonl"
        write_manifest(manifest, stack.plan.origin_url, made.jobs)
        deadline = time.monotonic() + PATIENCE
        while not made.complete:
            if time.monotonic() > deadline:
                raise FeedError(f"batch {batch}: not submitted after {made.runs} runs within {PATIENCE:.0f} s")
            process = Process(self.subject.submission(batch, pool, manifest))
            made.runs += 1
            try:
                if kill_after is not None and not made.killed:
                    made.killed = self._kill(process, batch, kill_after)
                made.complete = process.wait(max(1.0, deadline - time.monotonic())) == 0
            except subprocess.TimeoutExpired as error:
                raise FeedError(f"batch {batch}: the producer hangs") from error
            finally:
                process.kill()
        manifest.unlink()
        return made

    def _kill(self, process: Process, batch: str, after: float) -> bool:
        """Kill it in the middle; False if it was too quick for that."""
        while process.running:
            if self.subject.begun(batch):
                time.sleep(after)
                alive = process.running
                process.kill()
                return alive
            time.sleep(_POLL)
        return False

    def _run(self) -> None:
        dice = random.Random(self.seed)
        try:
            while not self.stopped.is_set() and not (self.faults_over.is_set() and self.submitted >= self.jobs):
                hungry = [pool for pool in Pool if self._queued(pool) < self.low]
                if not hungry:
                    time.sleep(0.2)
                    continue
                self.submit(dice.choice(hungry), self.batch)
        except (FeedError, OSError) as error:
            self.error = str(error)

    def _queued(self, pool: Pool) -> int:
        """As many as it takes to wait, if Redis is away."""
        try:
            return self.subject.queued(pool)
        except RedisError:
            return self.low
