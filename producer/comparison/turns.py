"""From records to a turn: spans, books, and what is kept of each job."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized

from ledger.jobs import Executor, JobRecord, JobState, Pool
from producer.comparison.experiment import Books, Contestant, MeasuredJob, Spans

_STEP = re.compile(r"[a-z-]+: .*, (\d+\.\d+) s")  # as ``worker.steps`` notes it
_FAULTS = 5  # that are told

Belongs = Callable[[Executor], bool]


def step_of(record: JobRecord) -> float | None:
    """Seconds of the job's step."""
    if record.job.step is None:
        return None
    found = [match for note in record.notes if (match := _STEP.fullmatch(note))]
    return float(found[-1][1]) if found else None


def measured_job(record: JobRecord, nominal: float | None, received: float | None, expected: str | None) -> MeasuredJob:
    """
    Args:
        received: by Redis' clock, about; put between queued and started, where it must be.
    """
    if received is not None and record.attempts:
        received = max(record.queued, min(received, record.attempts[0].started))
    return MeasuredJob(
        id=record.id,
        filename=record.job.filename,
        url=record.job.url,
        state=record.state,
        nominal=nominal,
        queued=record.queued,
        received=received,
        bytes=record.bytes,
        expected_sha256=expected,
        sha256=record.sha256,
        attempts=record.attempts,
        step=step_of(record),
    )


def wall(submitted: float, records: Sequence[JobRecord]) -> float | None:
    """Seconds until the last job's end; None: not every job is done."""
    if not records or any(record.state is not JobState.DONE or not record.attempts for record in records):
        return None
    return round(max(record.attempts[-1].finished for record in records) - submitted, 6)


def spans(submitted: float, records: Sequence[JobRecord]) -> Spans:
    """Empty if not every job is done."""
    if wall(submitted, records) is None:
        return Spans()
    begun = [record.attempts[0].started for record in records]
    steps = [step_of(record) for record in records]
    return Spans(
        queued=_rounded(max(0.0, record.queued - submitted) for record in records),
        waited=_rounded(max(0.0, at - record.queued) for at, record in zip(begun, records, strict=True)),
        ran=_rounded(record.attempts[-1].finished - at for at, record in zip(begun, records, strict=True)),
        first_byte=tuple(
            None if (first := record.attempts[-1].first_byte) is None else round(first - at, 4)
            for at, record in zip(begun, records, strict=True)
        ),
        step=_rounded(step or 0.0 for step in steps) if any(step is not None for step in steps) else (),
    )


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)


# -- the books


class Digests:
    """What each job's bytes must be: what the manifest says, or else what they were the first time."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], str] = {}

    def expected(self, record: JobRecord) -> str | None:
        job = record.job
        if job.sha256 or record.sha256 is None:
            return job.sha256
        return self._seen.setdefault((job.url, job.filename), record.sha256)


def books(contestant: Contestant, jobs: int, records: Sequence[JobRecord], belongs: Belongs, digests: Digests) -> Books:
    """Whether every job ran exactly once, on the contestant's workers, and is done with the right bytes."""
    done = [record for record in records if record.state is JobState.DONE]
    found = [(record, _faults(record, belongs, digests)) for record in records]
    wrong = [f"{record.job.filename} {fault}" for record, faults in found for fault in faults.values()]
    if len(records) < jobs:
        wrong.insert(0, f"{jobs - len(records)} records are missing")
    more = [f"and {len(wrong) - _FAULTS} more"] if len(wrong) > _FAULTS else []
    return Books(
        jobs=jobs,
        done=len(done),
        once=sum("once" not in faults for record, faults in found if record.state is JobState.DONE),
        here=sum("here" not in faults for record, faults in found if record.state is JobState.DONE),
        right=sum("right" not in faults for record, faults in found if record.state is JobState.DONE),
        executors=executors(contestant.pool, records),
        faults=(*wrong[:_FAULTS], *more),
    )


def _faults(record: JobRecord, belongs: Belongs, digests: Digests) -> Mapping[str, str]:
    found = {}
    if record.state is not JobState.DONE:
        found["done"] = f"is {record.state}"
    if len(record.attempts) != 1:
        found["once"] = f"ran {len(record.attempts)} times"
    elsewhere = sorted(
        {each.executor.worker for each in record.attempts if each.executor and not belongs(each.executor)}
    )
    if elsewhere:
        found["here"] = f"ran on {', '.join(elsewhere)}"
    expected = digests.expected(record)
    if record.state is JobState.DONE and expected and record.sha256 != expected:
        found["right"] = "has another sha256 than the origin's"
    return found


def executors(pool: Pool, records: Sequence[JobRecord] | Sequence[MeasuredJob]) -> str:
    """``2 processes``, ``2 threads of 1 process``, ``2 greenlets of 1 thread``: counted, not assumed."""
    ran = [attempt.executor for record in records for attempt in record.attempts if attempt.executor]
    processes = {(who.worker, who.pid) for who in ran}
    threads = {(who.worker, who.pid, who.thread) for who in ran}
    greenlets = {(who.worker, who.pid, who.thread, who.greenlet) for who in ran if who.greenlet is not None}
    if greenlets:
        return f"{_count(greenlets, 'greenlet')} of {_count(threads, 'thread')}"
    if pool is Pool.THREADS or len(threads) > len(processes):
        return f"{_count(threads, 'thread')} of {_count(processes, 'process')}"
    return _count(processes, "process")


def _count(things: Sized, word: str) -> str:
    plural = word + ("es" if word.endswith("s") else "s")
    return f"{len(things)} {word if len(things) == 1 else plural}"
