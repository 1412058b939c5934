"""One turn on the stack: its jobs submitted, watched to their end, and read back from the ledger.

Nothing is timed here but what the ledger cannot know: the moment before the submission, by Redis' own clock. Every
other time is in the records, so how often we look does not change a result. (One exception: one at a time, the next
job is submitted at the first look that finds the last one finished; those looks come quickly, see ``_pause``.)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from redis.exceptions import RedisError

from ledger.jobs import FINAL_STATES, Job, JobRecord, Pool, Ref, job_id
from ledger.leases import Leases
from ledger.ledger import Ledger, Message
from ledger.messages import Envelope, Publisher, label
from producer.errors import bounded

LOOK_EVERY = 0.05  # seconds
WORRY_AFTER = 3.0  # seconds without a live worker of the pool: say so
GIVE_UP_AFTER = 10.0  # ... and after so long cancel what is left; a worker that is just starting needs less
FEW = 20  # jobs that are looked at one by one; of more, only the batch's counters
_AT_ONCE = 500  # jobs per call of the ledger


Ended = Callable[[], Sequence[str]]  # says of each worker that has ended how; nothing of those that we cannot see


class GivenUpError(Exception):
    """What is left of a run will not be waited for: its jobs are cancelled."""


class UnservedError(GivenUpError):
    """Nobody runs the pool's jobs."""

    def __init__(self, pool: Pool, seconds: float) -> None:
        super().__init__(f"no worker served {pool.queue} for {seconds:.0f} s; its jobs were cancelled")


class WorkerEndedError(GivenUpError):
    """A worker that was started for the run is gone, so that the run cannot count any more."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(f"a worker of {pool.queue} has ended; its jobs were cancelled")


class Audience(Protocol):
    """Who is told what happens while it happens."""

    def progress(self, elapsed: float, done: int, jobs: int, records: Sequence[JobRecord]) -> None:
        """Records are of the jobs that are not final, if there are few."""

    def ended(self, record: JobRecord) -> None:
        """Told only if there are few jobs."""

    def unserved(self, pool: Pool) -> None: ...


class _Nobody:
    def progress(self, elapsed: float, done: int, jobs: int, records: Sequence[JobRecord]) -> None: ...

    def ended(self, record: JobRecord) -> None: ...

    def unserved(self, pool: Pool) -> None: ...


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch that is over."""

    batch: str
    submitted: float  # by Redis' clock
    records: Sequence[JobRecord]
    note: str | None = None  # why it ended early


class Bench:
    """The stack under test, as the producer sees it."""

    def __init__(self, ledger: Ledger, publisher: Publisher, audience: Audience, redis_timeout: float) -> None:
        self.ledger = ledger
        self._publisher = publisher
        self._audience = audience
        self._redis_timeout = redis_timeout

    def now(self) -> float:
        """Seconds since the epoch by the ledger's clock."""
        seconds, microseconds = self.ledger.redis.time()
        return int(seconds) + int(microseconds) / 1e6

    def run(
        self,
        pool: Pool,
        jobs: Sequence[Job],
        batch: str,
        *,
        one_at_a_time: bool = False,
        ended: Ended = tuple,
        workers: int = 1,
    ) -> Ran:
        """Run jobs to their end; on any exception, Ctrl-C too, what is left is cancelled.

        Args:
            ended: looked at all the time: the run is given up as soon as one of its workers has ended.
            workers: how many there are, of those that ``ended`` sees.

        Raises:
            redis.RedisError, kombu.exceptions.OperationalError: Redis is away or full.
        """
        everything = dict(enumerate(jobs))
        parts = [{n: job} for n, job in everything.items()] if one_at_a_time else [everything]
        watch = _Watch(self, self._audience, pool, batch, len(jobs), ended=ended, workers=workers)
        note = None
        submitted = self.now()
        try:
            for part in parts:
                self._submit(pool, batch, part)
                if part is parts[-1]:
                    self.ledger.seal(batch, len(jobs))
                watch.until_final(part, quickly=one_at_a_time)
        except GivenUpError as error:
            note = str(error)
            self._record(pool, batch, everything)  # those whose turn did not come are in the books too
            self.ledger.seal(batch, len(jobs))
            self._cancel(batch, len(jobs))
        except BaseException:
            with contextlib.suppress(RedisError):
                self._cancel(batch, len(jobs))
            raise
        return Ran(batch, submitted, list(self.ledger.read(job_id(batch, n) for n in everything)), note)

    def quietly(self, pool: Pool, jobs: Sequence[Job], batch: str, *, ended: Ended = tuple) -> None:
        """As ``run``, and nobody is told."""
        Bench(self.ledger, self._publisher, _Nobody(), self._redis_timeout).run(pool, jobs, batch, ended=ended)

    def _submit(self, pool: Pool, batch: str, jobs: Mapping[int, Job]) -> None:
        """As ``Client.submit`` does it, but for a part of a batch: one at a time, the next part comes later."""
        left = list(jobs.items())
        for at in range(0, len(left), _AT_ONCE):
            messages = self._record(pool, batch, dict(left[at : at + _AT_ONCE]))
            envelopes = [Envelope(str(each.ref), pool, label(each.jobs[0])) for each in messages]
            self._send(envelopes)

    def _send(self, envelopes: Sequence[Envelope]) -> None:
        bounded(lambda: self._publisher.send(envelopes), self._redis_timeout)

    def _record(self, pool: Pool, batch: str, jobs: Mapping[int, Job]) -> list[Message]:
        messages = [Message(Ref(batch, n, n), pool, (job,)) for n, job in jobs.items()]
        for at in range(0, len(messages), _AT_ONCE):
            self.ledger.submit(messages[at : at + _AT_ONCE])
        return messages

    def _cancel(self, batch: str, count: int) -> None:
        for first in range(0, count, _AT_ONCE):
            self.ledger.cancel(Ref(batch, first, min(first + _AT_ONCE, count) - 1))

    def has_worker(self, pool: Pool) -> bool:
        """Whether a process that serves the pool is alive."""
        known = Leases(self.ledger.redis, self.ledger.keys.prefix, 0.0).known()
        return any(lease.alive and lease.identity.pool is pool for lease in known)


class _Watch:
    """Looks at a batch until it is over."""

    def __init__(
        self, bench: Bench, audience: Audience, pool: Pool, batch: str, jobs: int, *, ended: Ended, workers: int
    ) -> None:
        self._bench = bench
        self._audience = audience
        self._pool = pool
        self._batch = batch
        self._jobs = jobs
        self._ended = ended
        self._workers = workers
        self._begun = self._served = self._checked = time.monotonic()
        self._done = 0  # of the parts that are over
        self._worried = False

    def until_final(self, part: Mapping[int, Job], *, quickly: bool) -> None:
        """
        Raises:
            UnservedError: the pool has had no live worker for ``GIVE_UP_AFTER`` seconds.
            WorkerEndedError: one of the run's own workers has ended.
        """
        begun = time.monotonic()
        pending = [job_id(self._batch, n) for n in part]
        few = self._jobs <= FEW or quickly
        while True:
            left, records = self._look_at_each(pending) if few else self._look_at_counters(len(part))
            now = time.monotonic()
            if not left:
                self._done += len(part)
                return
            if not quickly or self._jobs <= FEW or now - self._checked > LOOK_EVERY:
                self._audience.progress(now - self._begun, self._done + len(part) - left, self._jobs, records)
            self._care(now)
            time.sleep(_pause(now - begun) if quickly else LOOK_EVERY)

    def _look_at_each(self, pending: list[str]) -> tuple[int, list[JobRecord]]:
        records = list(self._bench.ledger.read(pending))
        for record in records:
            if record.state.final:
                pending.remove(record.id)
                if self._jobs <= FEW:
                    self._audience.ended(record)
        return len(pending), [record for record in records if not record.state.final]

    def _look_at_counters(self, jobs: int) -> tuple[int, list[JobRecord]]:
        batch = self._bench.ledger.batch(self._batch)
        return jobs - (batch.count(*FINAL_STATES) if batch else 0), []

    def _care(self, now: float) -> None:
        if now - self._checked < LOOK_EVERY:
            return
        self._checked = now
        if ended := self._ended():
            if len(ended) == self._workers and not self._worried:
                self._audience.unserved(self._pool)
            raise WorkerEndedError(self._pool)
        if self._bench.has_worker(self._pool):
            self._served, self._worried = now, False
        if now - self._served > GIVE_UP_AFTER:
            raise UnservedError(self._pool, now - self._served)
        if now - self._served > WORRY_AFTER and not self._worried:
            self._worried = True
            self._audience.unserved(self._pool)


def _pause(waited: float) -> float:
    """A twentieth of what was waited already: looking adds 5 % at the most, or 1 ms, to a job that is run alone."""
    return min(LOOK_EVERY, max(0.001, waited / 20))
