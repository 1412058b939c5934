"""Downpour's downloads as a workload of poolbench: submitted to a deployment's queue, watched, and read back.

Nothing is timed here but what the ledger cannot know: the moment before the submission, by Redis' own clock. Every
other time is in the records, so how often we look does not change a result. (One exception: one at a time, the next
job is submitted at the first look that finds the last one finished; those looks come quickly, see ``_pause``.)
"""

from __future__ import annotations

import contextlib
import platform
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Self

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from ledger.jobs import FINAL_STATES, Attempt, Job, JobRecord, JobState, Message, Pool, Ref, job_id
from ledger.leases import Leases
from ledger.ledger import Ledger
from ledger.messages import Envelope, Publisher, label
from ledger.redis_client import connect
from poolbench import experiment
from poolbench.experiment import Deployment, MeasuredJob, Note, State
from poolbench.workers import ON_THE_WAY, Arrivals
from poolbench.workload import Display, Ran, Running, Share, Workers
from producer.client import Client
from producer.deployments import Fleet, start
from producer.errors import ProducerError, bounded
from producer.scenarios import Work

LOOK_EVERY = 0.05  # seconds
WORRY_AFTER = 3.0  # seconds without a live worker of the pool: say so
GIVE_UP_AFTER = 10.0  # ... and after so long cancel what is left; a worker that is just starting needs less
FEW = 20  # jobs that are looked at one by one; of more, only the batch's counters
_AT_ONCE = 500  # jobs per call of the ledger


_BATCHES = 50  # newest ones that are asked whether they ran meanwhile
_WARM_MOST = 200  # jobs that warm a fresh worker up
_PACKAGES = ("celery", "kombu", "redis", "gevent", "urllib3")
_STEP = re.compile(r"[a-z-]+: .*, (\d+\.\d+) s")  # as ``worker.steps`` notes it


class GivenUpError(Exception):
    """What is left of a run will not be waited for: its jobs are cancelled."""


class UnservedError(GivenUpError):
    """No worker runs the pool's jobs."""

    def __init__(self, pool: Pool, seconds: float) -> None:
        super().__init__(f"no worker served {pool.queue} for {seconds:.0f} s; its jobs were cancelled")


class WorkerEndedError(GivenUpError):
    """A worker that was started for the run is gone, so that the run cannot count any more."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(f"a worker of {pool.queue} has ended; its jobs were cancelled")


class _Quiet:
    """Is told nothing."""

    def progress(self, elapsed: float, done: int, jobs: int, running: Sequence[Running]) -> None: ...

    def ended(self, job: MeasuredJob) -> None: ...

    def unserved(self, text: str) -> None: ...


class Downloads:
    """A workload, inside of a context: the work of an experiment on the deployments of a fleet."""

    failures: tuple[type[Exception], ...] = (RedisError, KombuError, TimeoutError, ProducerError)

    def __init__(self, fleet: Fleet, work: Work) -> None:
        self.scenario, self.deployments = work.scenario, fleet.deployments
        self._fleet = fleet
        self._work = work
        self._settings = fleet.settings
        self._ledger = Client(fleet.settings).ledger
        self._digests = Digests()
        self._dead: set[str] = set()  # batches whose workers are gone: the sweep ends their jobs when the lease is over
        self._hosts: set[str] = set()
        self._offset = 0.0  # seconds by which Redis' clock is ahead of ours
        self._ahead: dict[str, float] = {}  # host: seconds by which its clock is ahead of ours, as last heard

    def __enter__(self) -> Self:
        """
        Raises:
            redis.RedisError, kombu.exceptions.OperationalError, TimeoutError: Redis cannot be used.
        """
        self._publisher = Publisher(self._settings)
        try:  # connects: the first turn must not pay for it
            bounded(lambda: self._publisher.send([]), self._settings.redis_timeout)
        except BaseException:
            self._publisher.close()
            raise
        self._queue = Queue(self._ledger, self._publisher, self._settings.redis_timeout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.close()

    def share(self, deployment: Deployment, *, warm_up: bool = False) -> Share:
        part = self._work.share(deployment, warm_up=warm_up)
        return Share([job.filename for job in part.jobs], part.nominal)

    @contextmanager
    def deployed(self, deployment: Deployment, batch: str) -> Iterator[Workers]:
        with self._fleet.deployed(deployment) as workers:
            if workers.fresh:
                self._warm_up(deployment, f"{batch}-warm", workers)
            yield workers

    def _warm_up(self, deployment: Deployment, batch: str, workers: Workers) -> None:
        """Tiny jobs, two per job at once: connections are made, threads are started, modules are loaded."""
        origin, count = self._settings.origin_url, min(2 * (deployment.concurrency or 1), _WARM_MOST)
        jobs = [Job(f"{origin}/files/warm-{n}?size=1", f"warm-{n}") for n in range(count)]
        pool = Pool(deployment.pool)
        self._queue.run(jobs, _Watch(self._queue, _Quiet(), pool, batch, count, workers=workers, start=""))
        self._fleet.discard(batch)

    @contextmanager
    def arrivals(self) -> Iterator[Callable[[], Mapping[str, float]]]:
        self._offset = self.now() - time.time()

        def moments() -> Mapping[str, float]:
            found = {job: moment + self._offset for job, moment in heard.moments().items()}
            self._ahead |= heard.ahead()
            return found

        with Arrivals(connect(self._settings, connections=1), self._settings.key_prefix) as heard:
            yield moments

    def run(
        self, deployment: Deployment, batch: str, workers: Workers, display: Display, *, warm_up: bool = False
    ) -> Ran:
        """
        Raises:
            redis.RedisError, kombu.exceptions.OperationalError: Redis is away or full.
        """
        part, pool = self._work.share(deployment, warm_up=warm_up), Pool(deployment.pool)
        how = "" if not deployment.running else f"start {start(deployment.pool, 2, experiment.PLAIN)}"
        watch = _Watch(self._queue, display, pool, batch, len(part.jobs), workers=workers, start=how)
        submitted, records, note = self._queue.run(part.jobs, watch, one_at_a_time=deployment.serial)
        executors = [each.executor for record in records for each in record.attempts if each.executor]
        self._hosts |= {who.host for who in executors}
        jobs = tuple(
            measured_job(record, nominal, self._digests.expected(record))
            for record, nominal in zip(records, part.nominal, strict=False)
        )
        return Ran(batch, submitted, jobs, f"{note}; {how}" if note and how else note)

    def disturbances(self, ran: Ran, workers: Workers) -> list[str]:
        found = workers.ended()
        if found:
            self._dead |= {ran.batch, f"{ran.batch}-warm"}
        for name in self._ledger.batches(_BATCHES):
            batch = self._ledger.batch(name) if name != ran.batch and name not in self._dead else None
            if batch and (batch.count(JobState.RUNNING) or (batch.ended or 0.0) > ran.submitted):
                return [*found, f"jobs of batch {name} ran meanwhile"]
        return found

    def discard(self, batch: str) -> None:
        if not self._work.keeps_files:
            self._fleet.discard(batch)

    def now(self) -> float:
        return self._queue.now()

    def versions(self) -> dict[str, str]:
        """Of what is installed here; with the one image that is what the workers run, too."""
        found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
        for package in _PACKAGES:
            with contextlib.suppress(PackageNotFoundError):
                found[package] = version(package)
        hello = self._ledger.redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
        answers = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
        return {**found, "redis server": f"{answers.get('server')} {answers.get('version')}"}

    def notes(self) -> list[Note]:
        return [*self._fleet.notes(), *self._work.notes(self.deployments)]

    def afterthoughts(self) -> list[Note]:
        """About clocks."""
        strange = sorted(self._hosts - {socket.gethostname()})
        if not strange:
            return []
        hosts = ", ".join(f"{host} (its clock is {self._clock(host)})" for host in strange)
        return [
            Note(
                f"workers run on {hosts}: only when they received a job is told by their clocks; it is set right by"
                " that difference, which the quickest of their events shows to some milliseconds, and put between"
                " queued and started"
            )
        ]

    def _clock(self, host: str) -> str:
        if host not in self._ahead:
            return "not known: nothing of it was heard"
        ahead = self._ahead[host] - self._offset
        if abs(ahead) < ON_THE_WAY:
            return f"Redis' to {ON_THE_WAY * 1000:.0f} ms"
        return f"{abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'} Redis'"


class Queue:
    """The pools' queues, as a producer sees them."""

    def __init__(self, ledger: Ledger, publisher: Publisher, redis_timeout: float) -> None:
        self.ledger = ledger
        self._publisher = publisher
        self._redis_timeout = redis_timeout

    def now(self) -> float:
        """Seconds since the epoch by the ledger's clock."""
        seconds, microseconds = self.ledger.redis.time()
        return int(seconds) + int(microseconds) / 1e6

    def run(
        self, jobs: Sequence[Job], watch: _Watch, *, one_at_a_time: bool = False
    ) -> tuple[float, Sequence[JobRecord], str | None]:
        """Run jobs to their end; on any exception, Ctrl-C too, what is left is cancelled.

        Returns:
            The moment before the submission, by Redis' clock; the records; why it ended early.

        Raises:
            redis.RedisError, kombu.exceptions.OperationalError: Redis is away or full.
        """
        pool, batch = watch.pool, watch.batch
        everything = dict(enumerate(jobs))
        parts = [{n: job} for n, job in everything.items()] if one_at_a_time else [everything]
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
            self._record(pool, batch, everything)  # those whose turn did not come are in the ledger too
            self.ledger.seal(batch, len(jobs))
            self._cancel(batch, len(jobs))
        except BaseException:
            with contextlib.suppress(RedisError):
                self._cancel(batch, len(jobs))
            raise
        return submitted, list(self.ledger.read(job_id(batch, n) for n in everything)), note

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
        self, queue: Queue, display: Display, pool: Pool, batch: str, jobs: int, *, workers: Workers, start: str
    ) -> None:
        """
        Args:
            start: how a person starts workers; empty: they are not a person's to start.
        """
        self._queue = queue
        self._display = display
        self.pool = pool
        self.batch = batch
        self._jobs = jobs
        self._deployed = workers
        self._start = start
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
        pending = [job_id(self.batch, n) for n in part]
        few = self._jobs <= FEW or quickly
        while True:
            left, records = self._look_at_each(pending) if few else self._look_at_counters(len(part))
            now = time.monotonic()
            if not left:
                self._done += len(part)
                return
            if not quickly or self._jobs <= FEW or now - self._checked > LOOK_EVERY:
                self._display.progress(now - self._begun, self._done + len(part) - left, self._jobs, records)
            self._care(now)
            time.sleep(_pause(now - begun) if quickly else LOOK_EVERY)

    def _look_at_each(self, pending: list[str]) -> tuple[int, list[Running]]:
        records = list(self._queue.ledger.read(pending))
        for record in records:
            if record.state.final:
                pending.remove(record.id)
                if self._jobs <= FEW:
                    self._display.ended(measured_job(record, None, record.job.sha256))
        return len(pending), [_running(record) for record in records if not record.state.final]

    def _look_at_counters(self, jobs: int) -> tuple[int, list[Running]]:
        batch = self._queue.ledger.batch(self.batch)
        return jobs - (batch.count(*FINAL_STATES) if batch else 0), []

    def _care(self, now: float) -> None:
        if now - self._checked < LOOK_EVERY:
            return
        self._checked = now
        if ended := self._deployed.ended():
            if len(ended) == len(self._deployed.roots) and not self._worried:
                self._say_unserved()
            raise WorkerEndedError(self.pool)
        if self._queue.has_worker(self.pool):
            self._served, self._worried = now, False
        if now - self._served > GIVE_UP_AFTER:
            raise UnservedError(self.pool, now - self._served)
        if now - self._served > WORRY_AFTER and not self._worried:
            self._worried = True
            self._say_unserved()

    def _say_unserved(self) -> None:
        self._display.unserved(f"no worker serves {self.pool.queue}" + (f": {self._start}" if self._start else ""))


def _running(record: JobRecord) -> Running:
    size = record.total or record.job.size
    share = record.bytes / size if record.state is JobState.RUNNING and size else None
    return Running(record.job.filename, State(record.state), share)


def _pause(waited: float) -> float:
    """A twentieth of what was waited already: looking adds 5 % at the most, or 1 ms, to a job that is run alone."""
    return min(LOOK_EVERY, max(0.001, waited / 20))


# -- from a record to what was measured of it


class Digests:
    """What each job's bytes must be: what the manifest says, or else what they were the first time."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], str] = {}

    def expected(self, record: JobRecord) -> str | None:
        job = record.job
        if job.sha256 or record.sha256 is None:
            return job.sha256
        return self._seen.setdefault((job.url, job.filename), record.sha256)


def measured_job(record: JobRecord, nominal: float | None, expected: str | None) -> MeasuredJob:
    return MeasuredJob(
        id=record.id,
        filename=record.job.filename,
        url=record.job.url,
        state=State(record.state),
        nominal=nominal,
        queued=record.queued,
        received=None,
        bytes=record.bytes,
        expected_sha256=expected,
        sha256=record.sha256,
        attempts=tuple(_attempt(each) for each in record.attempts),
        step=step_of(record),
    )


def _attempt(of: Attempt) -> experiment.Attempt:
    who = of.executor
    return experiment.Attempt(
        executor=experiment.Executor(who.worker, who.pid, who.thread, who.greenlet) if who else None,
        started=of.started,
        finished=of.finished,
        first_byte=of.first_byte,
        bytes=of.bytes,
        status=of.status,
        kind=of.kind.value if of.kind else None,
        reason=of.reason,
    )


def step_of(record: JobRecord) -> float | None:
    """Seconds of the job's step."""
    if record.job.step is None:
        return None
    found = [match for note in record.notes if (match := _STEP.fullmatch(note))]
    return float(found[-1][1]) if found else None
