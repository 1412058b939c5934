"""Turns as a comparison would have measured them, for tests: seconds count from the submission."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ledger.jobs import Attempt, Executor, FailureKind, Job, JobRecord, JobState
from ledger.jobs import Pool as LedgerPool
from poolbench import checks
from poolbench import experiment as measured
from poolbench.experiment import (
    Deployment,
    Experiment,
    MeasuredExecutor,
    MeasuredJob,
    Measurement,
    Scenario,
    Spans,
)
from poolbench.experiment import MeasuredState as State
from poolbench.experiment import PoolKind as Pool
from poolbench.lanes import Shown, chart
from producer.downloads import measured_job

EPOCH = 1_700_000_000.0
SHA256 = "0" * 64


def who(pool: Pool, pid: int, thread: int | None = None, greenlet: int | None = None) -> MeasuredExecutor:
    return MeasuredExecutor(f"{pool}@host", pid, pid if thread is None else thread, greenlet)


def attempt(
    executor: MeasuredExecutor | None, started: float, finished: float, kind: FailureKind | None = None
) -> Attempt:
    return Attempt(
        executor=Executor(executor.worker, executor.pid, executor.thread, executor.greenlet) if executor else None,
        started=EPOCH + started,
        finished=EPOCH + finished,
        bytes=1000,
        status=200,
        kind=kind,
        reason=f"{kind} happened" if kind else None,
    )


def job(
    pool: Pool, filename: str, nominal: float, *attempts: Attempt, queued: float = 0.0, state: State = State.DONE
) -> MeasuredJob:
    return measured_job(record(pool, filename, *attempts, queued=queued, state=state), nominal)


def record(
    pool: Pool,
    filename: str,
    *attempts: Attempt,
    queued: float = 0.0,
    state: State = State.DONE,
    sha256: str = SHA256,
    asked: Job | None = None,
    step: float | None = None,
) -> JobRecord:
    return JobRecord(
        id=f"batch.{filename}",
        job=asked or Job(f"http://origin:8080/paced/{filename}?size=1000", filename, SHA256),
        pool=LedgerPool(pool),
        state=JobState(state),
        queued=EPOCH + queued,
        attempts=attempts,
        bytes=1000,
        sha256=sha256 if state is State.DONE else None,
        step=step,
    )


def on_its_pool(pool: Pool) -> Callable[[MeasuredExecutor], bool]:
    return lambda who: who.worker.startswith(f"{pool}@")


def shown(pool: Pool, jobs: Sequence[MeasuredJob], *, name: str | None = None, serial: bool = False) -> Shown:
    """A deployment and its only turn."""
    deployment = Deployment(name or pool.value, pool, None, serial)
    found = checks.check(deployment, len(jobs), jobs, on_its_pool(pool))
    measurement = Measurement(
        deployment.name, 1, "batch", EPOCH, checks.wall(EPOCH, jobs), Spans(), found, jobs=tuple(jobs)
    )
    return Shown(deployment, measurement, chart(measurement))


def experiment(*found: Shown, name: str = "article") -> Experiment:
    return Experiment(
        scenario=Scenario(name, "what it is", 2, 1, demonstration=name == "article"),
        deployments=tuple(each.deployment for each in found),
        measurements=tuple(each.measurement for each in found),
        started=EPOCH,
        finished=EPOCH + 60,
        request=measured.RunCommand(("producer", "compare", "article"), (("--seed", "1"),)),
        versions={"python": "3"},
        machine={"cores": 2, "load": 0.5},
    )


def two(pool: Pool, first: MeasuredExecutor, second: MeasuredExecutor, seconds: tuple[float, float] = (7, 5)) -> Shown:
    """Two files side by side, with 0.1 s of overhead each."""
    names = ("Guide.pdf", "Demo_Video.mp4")
    return shown(
        pool,
        [
            job(pool, name, nominal, attempt(executor, 0.02, nominal + 0.1))
            for name, nominal, executor in zip(names, seconds, (first, second), strict=True)
        ],
    )


def prefork() -> Shown:
    return two(Pool.PREFORK, who(Pool.PREFORK, 101), who(Pool.PREFORK, 102))


def threads() -> Shown:
    return two(Pool.THREADS, who(Pool.THREADS, 200, 201), who(Pool.THREADS, 200, 202), (10, 6))


def gevent() -> Shown:
    return two(Pool.GEVENT, who(Pool.GEVENT, 300, 300, 3), who(Pool.GEVENT, 300, 300, 4), (8, 9))


def serial() -> Shown:
    first, second = who(Pool.PREFORK, 101), who(Pool.PREFORK, 102)
    jobs = [
        job(Pool.PREFORK, "Guide.pdf", 7, attempt(first, 0.02, 7.1)),
        job(Pool.PREFORK, "Demo_Video.mp4", 5, attempt(second, 7.13, 12.2), queued=7.12),
    ]
    return shown(Pool.PREFORK, jobs, name="serial", serial=True)
