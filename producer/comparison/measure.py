"""One deployment on the running stack: submitted, watched to its end, and read back from the ledger.

Nothing is timed here but what the ledger cannot know: the moment before the submission, by Redis' own clock. Every
other time is in the records, so how often we look does not change a result. (One exception: one at a time, the next
job is submitted at the first look that finds the last one finished.)
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from redis.exceptions import RedisError

from ledger.jobs import Job, JobRecord, Pool, Ref, job_id
from ledger.ledger import Ledger, Message
from ledger.messages import Envelope, Publisher, label
from producer.comparison.runs import MeasuredDeployment, MeasuredJob, totals
from producer.comparison.scenarios import Deployment
from producer.errors import bounded

LOOK_EVERY = 0.05  # seconds
WORRY_AFTER = 3.0  # seconds without a live worker of the pool: say so
_AT_ONCE = 500  # jobs per call of the ledger
GIVE_UP_AFTER = 10.0  # ... and after so long cancel what is left; a worker that is just starting needs less


class UnservedError(Exception):
    """Nobody runs the pool's jobs."""

    def __init__(self, pool: Pool, seconds: float) -> None:
        super().__init__(f"no worker served {pool.queue} for {seconds:.0f} s; its jobs were cancelled")


class Audience(Protocol):
    """Who is told what happens while it happens."""

    def progress(self, elapsed: float, records: Sequence[JobRecord]) -> None: ...

    def ended(self, record: JobRecord) -> None: ...

    def unserved(self, pool: Pool) -> None: ...


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

    def measure(self, deployment: Deployment, jobs: Sequence[Job], batch: str) -> MeasuredDeployment:
        """Run the deployment's jobs to their end; on any exception, Ctrl-C too, what is left is cancelled.

        Raises:
            redis.RedisError, kombu.exceptions.OperationalError: Redis is away or full.
        """
        everything = dict(enumerate(jobs))
        turns = [{n: job} for n, job in everything.items()] if deployment.one_at_a_time else [everything]
        begun, note = time.monotonic(), None
        submitted = self.now()
        try:
            for turn in turns:
                self._submit(deployment.pool, batch, turn)
                if turn is turns[-1]:
                    self.ledger.seal(batch, len(jobs))
                self._until_final(deployment.pool, [job_id(batch, n) for n in turn], begun)
        except UnservedError as error:
            note = str(error)
            self._record(deployment.pool, batch, everything)  # those whose turn did not come are in the books too
            self.ledger.seal(batch, len(jobs))
            self._cancel(batch, len(jobs))
        except BaseException:
            with contextlib.suppress(RedisError):
                self._cancel(batch, len(jobs))
            raise
        return self._measured(deployment, batch, submitted, note)

    def _submit(self, pool: Pool, batch: str, jobs: Mapping[int, Job]) -> None:
        """As ``Client.submit`` does it, but for a part of a batch: one at a time, the next part comes later."""
        envelopes = [Envelope(str(each.ref), pool, label(each.jobs[0])) for each in self._record(pool, batch, jobs)]
        bounded(lambda: self._publisher.send(envelopes), self._redis_timeout)

    def _record(self, pool: Pool, batch: str, jobs: Mapping[int, Job]) -> list[Message]:
        messages = [Message(Ref(batch, n, n), pool, (job,)) for n, job in jobs.items()]
        for at in range(0, len(messages), _AT_ONCE):
            self.ledger.submit(messages[at : at + _AT_ONCE])
        return messages

    def _cancel(self, batch: str, count: int) -> None:
        self.ledger.cancel(Ref(batch, 0, count - 1))

    def _until_final(self, pool: Pool, ids: Sequence[str], begun: float) -> None:
        """
        Raises:
            UnservedError: the pool has had no live worker for ``GIVE_UP_AFTER`` seconds.
        """
        served, worried = time.monotonic(), False
        pending = list(ids)
        while True:
            records = list(self.ledger.read(pending))
            for record in records:
                if record.state.final:
                    pending.remove(record.id)
                    self._audience.ended(record)
            now = time.monotonic()
            if not pending:
                return
            self._audience.progress(now - begun, [record for record in records if not record.state.final])
            if self._has_worker(pool):
                served, worried = now, False
            if now - served > GIVE_UP_AFTER:
                raise UnservedError(pool, now - served)
            if now - served > WORRY_AFTER and not worried:
                worried = True
                self._audience.unserved(pool)
            time.sleep(LOOK_EVERY)

    def _has_worker(self, pool: Pool) -> bool:
        """Whether a process that serves the pool is alive. One shows up at its first job, and then stays."""
        redis, keys = self.ledger.redis, self.ledger.keys
        known = redis.hgetall(keys.incarnations).items()
        leases = [keys.lease(str(incarnation)) for incarnation, who in known if json.loads(who)["pool"] == pool]
        return bool(leases) and bool(redis.exists(*leases))

    def _measured(self, deployment: Deployment, batch: str, submitted: float, note: str | None) -> MeasuredDeployment:
        records = self.ledger.read(job_id(batch, n) for n in range(len(deployment.jobs)))
        jobs = tuple(
            MeasuredJob.of(record, planned.seconds) for record, planned in zip(records, deployment.jobs, strict=True)
        )
        return MeasuredDeployment(
            name=deployment.name,
            pool=deployment.pool,
            one_at_a_time=deployment.one_at_a_time,
            batch=batch,
            submitted=submitted,
            totals=totals(submitted, jobs),
            jobs=jobs,
            note=note,
        )
