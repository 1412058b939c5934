"""Deployments as a comparison would have measured them, for tests: seconds count from the submission."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.jobs import Attempt, Executor, FailureKind, JobState, Pool
from producer.comparison.runs import MeasuredDeployment, MeasuredJob, totals

EPOCH = 1_700_000_000.0
SHA256 = "0" * 64


def who(pool: Pool, pid: int, thread: int | None = None, greenlet: int | None = None) -> Executor:
    return Executor(f"{pool}@host", pid, pid if thread is None else thread, greenlet)


def attempt(executor: Executor | None, started: float, finished: float, kind: FailureKind | None = None) -> Attempt:
    return Attempt(
        executor=executor,
        started=EPOCH + started,
        finished=EPOCH + finished,
        bytes=1000,
        status=200,
        kind=kind,
        reason=f"{kind} happened" if kind else None,
    )


def job(
    pool: Pool,
    filename: str,
    nominal: float,
    *attempts: Attempt,
    queued: float = 0.0,
    state: JobState = JobState.DONE,
) -> MeasuredJob:
    return MeasuredJob(
        id=f"batch.{filename}",
        filename=filename,
        url=f"http://origin:8080/paced/{nominal:g}/{filename}?size=1000",
        path=f"batch/{filename}",
        pool=pool,
        state=state,
        nominal=nominal,
        queued=EPOCH + queued,
        bytes=1000,
        expected_sha256=SHA256,
        sha256=SHA256 if state is JobState.DONE else None,
        attempts=attempts,
    )


def deployment(
    pool: Pool, jobs: Sequence[MeasuredJob], *, name: str | None = None, one_at_a_time: bool = False
) -> MeasuredDeployment:
    return MeasuredDeployment(
        name=name or pool.value,
        pool=pool,
        one_at_a_time=one_at_a_time,
        batch="batch",
        submitted=EPOCH,
        totals=totals(EPOCH, tuple(jobs)),
        jobs=tuple(jobs),
    )


def two(pool: Pool, first: Executor, second: Executor, seconds: tuple[float, float] = (7, 5)) -> MeasuredDeployment:
    """Two files side by side, with 0.1 s of overhead each."""
    names = ("Guide.pdf", "Demo_Video.mp4")
    return deployment(
        pool,
        [
            job(pool, name, nominal, attempt(executor, 0.02, nominal + 0.1))
            for name, nominal, executor in zip(names, seconds, (first, second), strict=True)
        ],
    )


def prefork() -> MeasuredDeployment:
    return two(Pool.PREFORK, who(Pool.PREFORK, 101), who(Pool.PREFORK, 102))


def threads() -> MeasuredDeployment:
    return two(Pool.THREADS, who(Pool.THREADS, 200, 201), who(Pool.THREADS, 200, 202), (10, 6))


def gevent() -> MeasuredDeployment:
    return two(Pool.GEVENT, who(Pool.GEVENT, 300, 300, 3), who(Pool.GEVENT, 300, 300, 4), (8, 9))


def serial() -> MeasuredDeployment:
    first, second = who(Pool.PREFORK, 101), who(Pool.PREFORK, 102)
    jobs = [
        job(Pool.PREFORK, "Guide.pdf", 7, attempt(first, 0.02, 7.1)),
        job(Pool.PREFORK, "Demo_Video.mp4", 5, attempt(second, 7.13, 12.2), queued=7.12),
    ]
    return deployment(Pool.PREFORK, jobs, name="serial", one_at_a_time=True)
