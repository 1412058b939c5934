"""Watching a batch: snapshots of its counters and of what runs, until every job has its end.

A look costs one hash and the records of the jobs that run, however large the batch is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ledger.jobs import Batch, JobRecord, JobState
from producer.client import Client
from producer.errors import RedisUnusableError, redis_errors

LOOK_EVERY = 0.5  # seconds
_WINDOW = 20.0  # seconds over which rates are measured
_QUIET = 15.0  # seconds without any change after which we say what may be wrong
_MOST_RUNNING = 500  # records of running jobs per look; of more than these a sample
_FINAL = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Snapshot:
    batch: Batch
    running: tuple[JobRecord, ...]  # longest-running first
    bytes: int  # of done and running jobs
    jobs_per_s: float
    bytes_per_s: float
    quiet_s: float = 0.0  # for how long nothing has changed
    away: str | None = None  # Redis does not answer; the rest is what we saw last

    @property
    def ended(self) -> int:
        return self.batch.count(*_FINAL)

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last job ends, if the rest goes like the last seconds did."""
        left = (self.batch.total or self.batch.known) - self.ended
        return left / self.jobs_per_s if left and self.jobs_per_s > 0 and self.batch.total is not None else None

    @property
    def remark(self) -> str | None:
        """What a person should know who wonders why nothing moves."""
        if self.away:
            return f"{self.away}; still trying"
        if self.quiet_s < _QUIET or self.batch.finished:
            return None
        still = f"nothing has changed for {self.quiet_s:.0f} s"
        if self.batch.total is None:
            return f"{still}; the submission was cut off after {self.batch.known} jobs: run its command again"
        if not self.batch.count(JobState.RUNNING) and self.batch.count(JobState.QUEUED):
            idle = [pool for pool, states in self.batch.counts.items() if states.get(JobState.QUEUED)]
            return f"{still}; is a worker running for {', '.join(idle)}, and the sweep?"
        return still


def exit_code(batch: Batch) -> int:
    """0 if every job of the batch is done, 1 if not."""
    return 0 if batch.finished and batch.count(JobState.DONE) == batch.total else 1


class Watch:
    """Args: clock and sleep are for tests."""

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        every: float = LOOK_EVERY,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._name = name
        self._every = every
        self._clock = clock
        self._sleep = sleep
        self._seen: deque[tuple[float, int, int]] = deque()  # when, jobs ended, bytes
        self._changed = clock()
        self._state: tuple[object, ...] = ()

    def snapshots(self) -> Iterator[Snapshot]:
        """Until the batch has finished.

        Raises:
            UnknownBatchError: there is none of this name, or Redis forgot it.
            RedisUnusableError: no answer at the first look, or later for ``redis_patience``.
        """
        last = self._look()
        answered = self._clock()
        yield last
        while not last.batch.finished:
            self._sleep(self._every)
            try:
                last = self._look()
                answered = self._clock()
            except RedisUnusableError as error:
                if self._clock() - answered > self._client.settings.redis_patience:
                    raise
                last = replace(last, away=str(error))
            yield last

    def _look(self) -> Snapshot:
        with redis_errors(self._client.settings):
            batch = self._client.batch(self._name)
            running = self._running(batch)
        size = sum(batch.bytes_done.values()) + sum(record.bytes for record in running)
        now, ended = self._clock(), batch.count(*_FINAL)
        state = (batch.counts, batch.total, size)
        if state != self._state:
            self._state, self._changed = state, now
        self._seen.append((now, ended, size))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        then, ended_then, size_then = self._seen[0]
        took = max(now - then, 1e-9)
        moved = now > then
        return Snapshot(
            batch=batch,
            running=running,
            bytes=size,
            jobs_per_s=max(ended - ended_then, 0) / took if moved else 0.0,
            bytes_per_s=max(size - size_then, 0) / took if moved else 0.0,
            quiet_s=now - self._changed,
        )

    def _running(self, batch: Batch) -> tuple[JobRecord, ...]:
        count = batch.count(JobState.RUNNING)
        if not count:
            return ()
        ledger = self._client.ledger
        if count <= _MOST_RUNNING:
            records = ledger.running(self._name)
        else:
            ids = ledger.redis.srandmember(ledger.keys.running(self._name), _MOST_RUNNING)
            records = list(ledger.read(map(str, ids or ())))
        return tuple(sorted((r for r in records if r.started is not None), key=lambda r: r.started or 0))
