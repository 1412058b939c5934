"""Downpour's downloads as a workload of poolbench: submitted to a deployment's queue, watched, and read back.

Nothing is timed here but what the ledger cannot know: the moment before the submission, by Redis' own clock. Every
other time is in the records, so how often we look does not change a result. (One exception: one at a time, the next
job is submitted at the first look that finds the last one finished; those looks come quickly, see ``_pause``.)
"""

from __future__ import annotations

import contextlib
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from redis.exceptions import RedisError

from ledger.jobs import FINAL_STATES, Attempt, Job, JobRecord, JobState, Message, Pool, Ref
from ledger.leases import Leases
from ledger.redis_client import AT_ONCE, connect
from poolbench import experiment
from poolbench.experiment import Deployment, MeasuredJob, MeasuredState, Note
from poolbench.workers import ON_THE_WAY, Arrivals
from poolbench.workload import Display, Ran, Running, Workers
from producer.client import Client
from producer.errors import ProducerError
from producer.fleet import Private, Shared, start
from producer.scenarios import PlannedWork

LOOK_EVERY = 0.05  # seconds
GIVE_UP_AFTER = 10.0  # seconds without a live worker of the pool: cancel what is left; one that starts needs less
FEW = 20  # jobs that are looked at one by one; of more, only the batch's counters

_BATCHES = 50  # newest ones that are asked whether they ran meanwhile
_WARM_MOST = 200  # jobs that warm a fresh worker up
_PACKAGES = ("celery", "kombu", "redis", "gevent", "urllib3")


class GivenUpError(Exception):
    """What is left of a run will not be waited for: its jobs are cancelled."""


class Downloads(AbstractContextManager["Downloads"]):
    """A workload, inside of a context: the work of an experiment on the deployments of a fleet."""

    failures: tuple[type[Exception], ...] = (RedisError, TimeoutError, ProducerError)

    def __init__(self, fleet: Shared | Private, work: PlannedWork) -> None:
        self.scenario, self.deployments = work.scenario, fleet.deployments
        self._fleet = fleet
        self._work = work
        self._client = Client(fleet.settings)
        self._ledger = self._client.ledger
        self._digests = Digests()
        self._dead: set[str] = set()  # batches whose workers are gone: the sweep ends their jobs when the lease is over
        self._hosts: set[str] = set()
        self._offset = 0.0  # seconds by which Redis' clock is ahead of ours
        self._ahead: dict[str, float] = {}  # host: seconds by which its clock is ahead of ours, as last heard

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def share(self, deployment: Deployment, *, warm_up: bool = False) -> Sequence[str]:
        return [job.filename for job in self._work.share(deployment, warm_up=warm_up).jobs]

    @contextmanager
    def deployed(self, deployment: Deployment, batch: str) -> Iterator[Workers]:
        with self._fleet.deployed(deployment) as workers:
            if workers.fresh:
                self._warm_up(deployment, f"{batch}-warm", workers)
            yield workers

    def _warm_up(self, deployment: Deployment, batch: str, workers: Workers) -> None:
        """Tiny jobs, two per job at once: connections are made, threads are started, modules are loaded."""
        origin, count = self._fleet.settings.origin_url, min(2 * (deployment.concurrency or 1), _WARM_MOST)
        jobs = [Job(f"{origin}/files/warm-{n}?size=1", f"warm-{n}") for n in range(count)]
        _BatchRun(self._client, batch, _messages(batch, deployment, jobs), workers).to_the_end()
        self._fleet.discard(batch)

    @contextmanager
    def arrivals(self) -> Iterator[Callable[[], Mapping[str, float]]]:
        self._offset = self.now() - time.time()

        def moments() -> Mapping[str, float]:
            found = {job: moment + self._offset for job, moment in heard.moments().items()}
            self._ahead |= heard.ahead()
            return found

        settings = self._fleet.settings
        with Arrivals(connect(settings, connections=1), settings.key_prefix) as heard:
            yield moments

    def run(
        self, deployment: Deployment, batch: str, workers: Workers, display: Display, *, warm_up: bool = False
    ) -> Ran:
        """
        Raises:
            redis.RedisError, RedisUnusableError: Redis is away or full.
        """
        part = self._work.share(deployment, warm_up=warm_up)
        how = "" if not deployment.running else f"start {start(deployment.pool, 2, experiment.PLAIN)}"
        run = _BatchRun(self._client, batch, _messages(batch, deployment, part.jobs), workers, display)
        submitted, records, note = run.to_the_end(one_at_a_time=deployment.serial)
        self._hosts |= {each.executor.host for record in records for each in record.attempts if each.executor}
        jobs = tuple(
            measured_job(record, nominal, right=self._digests.right(record))
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
        if not self.scenario.demonstration:  # a person may look at its files
            self._fleet.discard(batch)

    def now(self) -> float:
        return _now(self._client)

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
        """A demonstration has none of its workers: it measures nothing that they could distort."""
        of_workers = [] if self.scenario.demonstration else self._fleet.notes()
        return [*of_workers, *self._work.notes(self.deployments)]

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


def _now(client: Client) -> float:
    """Seconds since the epoch by Redis' clock."""
    seconds, microseconds = client.ledger.redis.time()
    return int(seconds) + int(microseconds) / 1e6


class _BatchRun:
    """A batch on a deployment: submitted, watched to its end, read back."""

    def __init__(
        self, client: Client, batch: str, messages: Sequence[Message], workers: Workers, display: Display | None = None
    ) -> None:
        self._client, self._ledger, self._workers, self._display = client, client.ledger, workers, display
        self._pool, self._batch, self._messages = messages[0].pool, batch, messages
        self._begun = self._looked = self._served = time.monotonic()  # the last: when a live worker was seen

    def to_the_end(self, *, one_at_a_time: bool = False) -> tuple[float, Sequence[JobRecord], str | None]:
        """Run the jobs; on any exception, Ctrl-C too, what is left is cancelled.

        Returns:
            The moment before the submission, by Redis' clock; the records; why it ended early.

        Raises:
            redis.RedisError, RedisUnusableError: Redis is away or full.
        """
        messages, note, submitted = self._messages, None, _now(self._client)
        parts = list(_parts(messages, 1 if one_at_a_time else AT_ONCE))
        try:
            for part in parts:
                self._ledger.submit(part)
                self._client.send(part)
                if part is parts[-1]:
                    self._ledger.seal(self._batch, len(messages))
                if one_at_a_time:
                    self._watch(part, quickly=True)
            if not one_at_a_time:
                self._watch(messages, quickly=False)
        except GivenUpError as error:
            note = str(error)
            for part in _parts(messages, AT_ONCE):  # those whose turn did not come are in the ledger too
                self._ledger.submit(part)
            self._ledger.seal(self._batch, len(messages))
            self._cancel()
        except BaseException:
            with contextlib.suppress(ProducerError):
                self._cancel()
            raise
        return submitted, list(self._ledger.read(str(each.ref) for each in messages)), note

    def _cancel(self) -> None:
        self._client.cancel([Ref(self._batch, 0, len(self._messages) - 1)])

    def _watch(self, part: Sequence[Message], *, quickly: bool) -> None:
        """Look at these jobs until all of them are final.

        Raises:
            GivenUpError: the pool has had no live worker for ``GIVE_UP_AFTER`` seconds, or one of the run's own ended.
        """
        begun, jobs, before = time.monotonic(), len(self._messages), part[0].ref.first
        pending = [str(each.ref) for each in part]
        while True:
            if jobs <= FEW or quickly:
                left, running = self._look_at_each(pending)
            else:
                batch = self._ledger.batch(self._batch)
                left, running = jobs - (batch.count(*FINAL_STATES) if batch else 0), []
            if not left:
                return
            now = time.monotonic()
            if now - self._looked >= LOOK_EVERY or not quickly:
                self._looked = now
                if self._display:
                    self._display.progress(now - self._begun, before + len(part) - left, jobs, running)
                self._check_workers(now)
            time.sleep(_pause(now - begun) if quickly else LOOK_EVERY)

    def _look_at_each(self, pending: list[str]) -> tuple[int, list[Running]]:
        records = list(self._ledger.read(pending))
        for record in records:
            if record.state.final:
                pending.remove(record.id)
                if self._display and len(self._messages) <= FEW:
                    self._display.ended(measured_job(record))
        return len(pending), [_running(record) for record in records if not record.state.final]

    def _check_workers(self, now: float) -> None:
        queue = self._pool.queue
        if self._workers.ended():
            raise GivenUpError(f"a worker of {queue} has ended; its jobs were cancelled")
        known = Leases(self._ledger.redis, self._ledger.keys.prefix, 0.0).known()
        if any(lease.alive and lease.identity.pool is self._pool for lease in known):
            self._served = now
        if now - self._served > GIVE_UP_AFTER:
            raise GivenUpError(f"no worker served {queue} for {now - self._served:.0f} s; its jobs were cancelled")


def _messages(batch: str, deployment: Deployment, jobs: Sequence[Job]) -> list[Message]:
    return [Message(Ref(batch, n, n), Pool(deployment.pool), (job,)) for n, job in enumerate(jobs)]


def _parts(messages: Sequence[Message], size: int) -> Iterator[Sequence[Message]]:
    return (messages[at : at + size] for at in range(0, len(messages), size))


def _running(record: JobRecord) -> Running:
    size = record.total or record.job.size
    share = record.bytes / size if record.state is JobState.RUNNING and size else None
    return Running(record.job.filename, MeasuredState(record.state), share)


def _pause(waited: float) -> float:
    """A twentieth of what was waited already: looking adds 5 % at the most, or 1 ms, to a job that is run alone."""
    return min(LOOK_EVERY, max(0.001, waited / 20))


# -- from a record to what was measured of it


class Digests:
    """What each job's bytes must be: what the manifest says, or else what they were the first time."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], str] = {}

    def right(self, record: JobRecord) -> bool:
        job, found = record.job, record.sha256
        return found == (job.sha256 or (found and self._seen.setdefault((job.url, job.filename), found)))


def measured_job(record: JobRecord, nominal: float | None = None, *, right: bool = True) -> MeasuredJob:
    return MeasuredJob(
        id=record.id,
        filename=record.job.filename,
        state=MeasuredState(record.state),
        queued=record.queued,
        attempts=tuple(_attempt(each) for each in record.attempts),
        nominal=nominal,
        right=right,
        step=record.step,
    )


def _attempt(of: Attempt) -> experiment.MeasuredAttempt:
    who = experiment.MeasuredExecutor(**asdict(of.executor)) if of.executor else None
    kind = of.kind and of.kind.value
    return experiment.MeasuredAttempt(who, of.started, of.finished, of.first_byte, kind, of.reason)
