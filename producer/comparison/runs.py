"""What a comparison measured: a report of runs, a run of deployments, a deployment of jobs. Plain values and JSON.

Times are seconds since the epoch by the ledger's clock (Redis' TIME), spans are seconds, sizes are bytes.
``SCHEMA`` changes when a reader of the old shape would misread the new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from ledger.jobs import Attempt, JobRecord, JobState, Pool

SCHEMA: Literal["downpour.report/1"] = "downpour.report/1"


@dataclass(frozen=True, slots=True)
class MeasuredJob:
    """A job's record as the comparison found it, and what was planned for it."""

    id: str
    filename: str
    url: str
    path: str  # below the downloads folder
    pool: Pool
    state: JobState
    nominal: float  # seconds for which the origin was asked to pace it
    queued: float
    bytes: int
    expected_sha256: str | None
    sha256: str | None
    attempts: tuple[Attempt, ...]

    @classmethod
    def of(cls, record: JobRecord, nominal: float) -> MeasuredJob:
        return cls(
            id=record.id,
            filename=record.job.filename,
            url=record.job.url,
            path=record.path,
            pool=record.pool,
            state=record.state,
            nominal=nominal,
            queued=record.queued,
            bytes=record.bytes,
            expected_sha256=record.job.sha256,
            sha256=record.sha256,
            attempts=record.attempts,
        )

    @property
    def finished(self) -> float | None:
        return self.attempts[-1].finished if self.attempts else None

    @property
    def ran(self) -> float:
        """Seconds from the claim of the first attempt to the end of the last."""
        return self.attempts[-1].finished - self.attempts[0].started if self.attempts else 0.0

    @property
    def waited(self) -> float:
        """Seconds in the queue before the first claim."""
        return self.attempts[0].started - self.queued if self.attempts else 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """A deployment in four numbers; ``total`` and ``ratio`` are None unless every job is done.

    ``sum`` and ``longest`` are of the nominal seconds, not of the measured ones: so whatever submission, queue,
    claim, HTTP, publication and books cost stands in ``total`` and ``ratio``, and cannot hide in the yardstick.
    """

    sum: float
    longest: float
    total: float | None  # from just before the submission to the last file's finish
    ratio: float | None  # total ÷ longest


@dataclass(frozen=True, slots=True)
class MeasuredDeployment:
    name: str
    pool: Pool
    one_at_a_time: bool
    batch: str
    submitted: float  # just before the first submission
    totals: Totals
    jobs: tuple[MeasuredJob, ...]
    note: str | None = None  # why it ended early

    @property
    def done(self) -> bool:
        return all(job.state is JobState.DONE for job in self.jobs)


def totals(submitted: float, jobs: tuple[MeasuredJob, ...]) -> Totals:
    nominal = [job.nominal for job in jobs]
    longest = max(nominal, default=0.0)
    ends = [job.finished for job in jobs if job.state is JobState.DONE and job.finished is not None]
    if not jobs or len(ends) < len(jobs):
        return Totals(sum(nominal), longest, None, None)
    total = max(ends) - submitted
    return Totals(sum(nominal), longest, total, total / longest if longest else None)


@dataclass(frozen=True, slots=True)
class Run:
    """A scenario, run once."""

    scenario: str
    seed: int
    size: int
    seconds: tuple[int, int]
    started: float
    finished: float
    deployments: tuple[MeasuredDeployment, ...]
    verdict: str
    books: str
    books_balance: bool


@dataclass(frozen=True, slots=True)
class Report:
    versions: dict[str, str]
    machine: dict[str, str | int | float]
    runs: tuple[Run, ...]
    schema: Literal["downpour.report/1"] = field(default=SCHEMA)


_REPORT = TypeAdapter(Report)


def to_json(report: Report) -> str:
    return _REPORT.dump_json(report, indent=2).decode() + "\n"


def from_json(text: str | bytes) -> Report:
    """
    Raises:
        pydantic.ValidationError: this is not a report of this schema.
    """
    return _REPORT.validate_json(text)
