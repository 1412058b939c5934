"""What the ledger takes and gives: claims, results, messages, batches, and its refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from ledger.jobs import Job, JobRecord, JobState, Pool, Ref


class IncarnationLostError(Exception):
    """The lease expired and the sweep took over: claim under a new incarnation."""


class Closed(IntEnum):
    """What came of closing a record; true if the claim was good."""

    VOID = 0  # the caller does not hold the job; nothing was changed
    RECORDED = 1
    BEFORE = 2  # by an earlier call of this very claim
    AWAITED = 3  # recorded, and another job waits for the slot of its host; see ``ledger.host_limits``


class ConflictError(Exception):
    """A batch of this name already has another job at this place."""

    def __init__(self, batch: str, ordinal: int) -> None:
        super().__init__(f"batch {batch!r} already has another job number {ordinal}; choose another name")
        self.batch, self.ordinal = batch, ordinal


class PruningError(Exception):
    """A batch of this name is being removed."""

    def __init__(self, batch: str) -> None:
        super().__init__(f"batch {batch!r} is being removed; `producer prune {batch}` finishes that")


class TotalError(Exception):
    """A batch was to be sealed with another number of jobs than it has."""

    def __init__(self, batch: str, known: int, total: int) -> None:
        super().__init__(f"expected batch {batch!r} to have {total} jobs, the ledger knows {known}; it stays unsealed")
        self.known, self.total = known, total


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a job, and the token that proves it."""

    record: JobRecord
    incarnation: str
    number: int  # of the claim; grows with each
    epoch: float  # seconds to add to time.monotonic() of this process for the time by Redis' clock
    ends: float  # time.monotonic() of this process when the job's time is used up


@dataclass(frozen=True, slots=True)
class Result:
    """What a job that is done has brought."""

    size: int  # bytes
    sha256: str
    notes: tuple[str, ...] = ()
    etag: str | None = None  # of the answer that brought it
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message's jobs, before it is sent: consecutive jobs for one pool."""

    ref: Ref
    pool: Pool
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's counters."""

    name: str
    created: float
    total: int | None  # None while its submission is not complete
    counts: Mapping[Pool, Mapping[JobState, int]]
    bytes_done: Mapping[Pool, int]
    ended: float | None = None  # when the last job did, so far

    def count(self, *states: JobState) -> int:
        return sum(by_state.get(state, 0) for by_state in self.counts.values() for state in states)

    @property
    def known(self) -> int:
        return self.count(*JobState)

    @property
    def finished(self) -> bool:
        """Submitted completely, and every job has its final state."""
        final = self.count(JobState.DONE, JobState.FAILED, JobState.CANCELLED)
        return self.total is not None and final == self.total
