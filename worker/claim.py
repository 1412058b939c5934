"""A claimed job in this process: may it go on, and what the ledger hears of it until its record is closed.

What the ledger is asked about one job or about many it is asked in one call: ``confirm`` and ``close``.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from redis.exceptions import RedisError

from download.errors import (
    CancelledError,
    DiskFullError,
    DownloadError,
    Ended,
    HandedBackError,
    LeaseLostError,
    printable,
)
from download.fetch import Fetched
from download.tempfile import TempFiles
from ledger.jobs import Attempt, Executor, FailureKind, JobState
from ledger.ledger import Claim, Closed, Closing
from ledger.redis_client import once
from ledger.settings import get_settings
from worker import drain
from worker.heartbeat import Incarnation
from worker.pools import executor
from worker.process import this_worker

T = TypeVar("T")

HELD = "another worker holds the job now"

_SLICE = 0.5  # seconds between two looks at cancel, drain and lease while a job waits

log = logging.getLogger("downpour.worker")


class Throttle:
    """How often all jobs of a process together may note their progress.

    A note is a call to Redis and an event for Flower, about a millisecond. A thousand downloads in one process that
    noted it every half second left two thirds of the processor to that. After a while without any, ``at_once`` notes
    may come together.
    """

    def __init__(self, per_second: float, at_once: int) -> None:
        self._every = 1.0 / per_second  # seconds
        self._ahead = (at_once - 1) * self._every
        self._due = 0.0  # time.monotonic() of the next one, if they came evenly

    def allows(self, now: float) -> bool:
        """Whether there may be one more note at this moment of ``time.monotonic()``; if so, it counts.

        Threads that ask at one moment may get one more between them, without harm.
        """
        if self._due > now + self._ahead:
            return False
        self._due = max(self._due, now) + self._every
        return True


_throttle = Throttle(25, at_once=25)


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of a claimed job, or will once its record is closed."""

    job: ClaimedJob
    state: JobState | None  # None: the job is another holder's now
    text: str
    closing: Closing | None = None  # how its record is to be closed; None: the claim is over
    machine_fault: bool = False  # it ended by one: no other job should begin


class ClaimedJob:
    """Raises ``LeaseLostError`` wherever the ledger says that another worker holds the job now."""

    def __init__(self, claim: Claim, incarnation: Incarnation, who: Executor) -> None:
        """
        Args:
            incarnation: the one that claimed the job.
            who: runs the job.
        """
        self.claim = claim
        self.record = claim.record
        self.id = claim.record.id
        self.temps = TempFiles(get_settings().downloads, self.id, claim.number)
        self._mark = f"{self.id} {claim.number}"
        self._incarnation = incarnation
        self._who = who
        self.begun = self._noted = time.monotonic()
        self.awaited = False  # closed, and another job waits for the slot of its host
        self.closed = False  # by this process, or the ledger said that the claim is void

    def __str__(self) -> str:
        """For the log: which job, and what runs it. In each pool other numbers of two jobs differ."""
        return f"job={self.id} {self.where}"

    @property
    def where(self) -> str:
        name, who = shlex.quote(printable(self.record.name or self.record.job.filename)), self._who
        greenlet = "" if who.greenlet is None else f" greenlet={who.greenlet}"
        return f"file={name} pool={self.record.pool} pid={who.pid} thread={who.thread}{greenlet}"

    @property
    def open(self) -> bool:
        """Whether the record still names this process, and the process is alive for the ledger."""
        return not (self.closed or self._incarnation.lost)

    def lose(self) -> None:
        """The record could not be closed: the lease of this process lapses, and the sweep takes its jobs over."""
        self._incarnation.lost = True

    def check(self) -> None:
        """Whether to go on; called often, so it asks only this process.

        Raises:
            Interrupted: cancelled, the worker stops, or no longer ours.
        """
        if self._mark in self._incarnation.stopping:
            raise CancelledError("cancelled by request")
        if self._incarnation.lost:
            raise LeaseLostError(f"incarnation {self._incarnation.id} lost its lease")
        if drain.over():
            raise HandedBackError("the worker stops; handed back")

    def wait(self, seconds: float) -> None:
        """
        Raises:
            Interrupted: as ``check`` says.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _SLICE))

    def progress(self, size: int, total: int | None) -> bool:
        """Note bytes on disk and announced length, unless this job or many others did a moment ago; whether it was."""
        now = time.monotonic()
        # The download itself does not need Redis, and does not wait for it.
        if now - self._noted < get_settings().progress_every or self._incarnation.away or not _throttle.allows(now):
            return False
        self._noted = now
        try:
            with once():
                this_worker.ledger().progress(self.claim, size, total, self._who)
        except RedisError:
            self._incarnation.away = True  # until a renewal gets through
            return False
        return True

    def confirm(self) -> None:
        self.must_hold(confirm([self])[0])

    def note_fault(self, reason: str, error: DownloadError) -> None:
        """A fault of the machine ends the job here: the worker takes no others until it is over."""
        need = error.need if isinstance(error, DiskFullError) else 0
        self.insist(lambda: this_worker.ledger().note_fault(self._who.worker, reason, need))

    def note_attempt(self, attempt: Attempt) -> None:
        """A failed attempt, after which this process tries again itself."""
        self.must_hold(self.insist(lambda: this_worker.ledger().note_attempt(self.claim, attempt)))

    def attempt(
        self, begun: float, came: Fetched | Ended | None, kind: FailureKind | None, reason: str | None
    ) -> Attempt:
        """An attempt that ends now. Times of the result are by Redis' clock.

        Args:
            begun: time.monotonic()
            came: what came of its request; None: there was none.
        """
        epoch, first_byte = self.claim.epoch, came.first_byte if came else None
        return Attempt(
            executor=self._who,
            started=epoch + begun,
            finished=epoch + time.monotonic(),
            first_byte=None if first_byte is None else epoch + first_byte,
            bytes=came.received if came else 0,
            status=came.status if came else None,
            kind=kind,
            reason=reason,
        )

    def lost(self, why: object) -> JobOutcome:
        """Another worker holds the job, or will; that one may continue what came, if the ledger has not told us so."""
        if self.closed:
            self.temps.clear()
        return JobOutcome(self, None, f"lost: {why}; nothing published")

    def must_hold(self, holds: bool) -> None:
        """What the ledger said."""
        if not holds:
            self.closed = True
            raise LeaseLostError(HELD)

    def insist(self, call: Callable[[], T]) -> T:
        """Ask the ledger until it answers: nothing else can be done with this job.

        Raises:
            LeaseLostError: it does not answer, and the worker stops or lost its lease.
        """
        warned = False
        while True:
            try:
                return call()
            except RedisError as error:
                if self._incarnation.lost or drain.over():
                    self.lose()  # the record still says that we hold it
                    raise LeaseLostError(f"the ledger could not be asked: {error}") from error
                if not warned:
                    log.warning("%s waits for the ledger: %s", self, error)
                warned = True
                time.sleep(_SLICE)


@contextmanager
def claimed(claims: Sequence[Claim], incarnation: Incarnation) -> Iterator[list[ClaimedJob]]:
    """Claimed jobs in this process. A record that is still open in the end is handed back."""
    who = executor(this_worker.name)
    jobs = [ClaimedJob(claim, incarnation, who) for claim in claims]
    try:
        yield jobs
    finally:
        for job in jobs:
            if job.open:
                log.warning("%s claim=%d %s", job, job.claim.number, hand_back(job, "interrupted").text)


def confirm(jobs: Sequence[ClaimedJob]) -> list[bool]:
    """For each of some jobs whether its claim still stands: to be asked before a file gets its final name.

    Raises:
        LeaseLostError: as ``ClaimedJob.insist``.
    """
    standing = jobs[0].insist(lambda: this_worker.ledger().standing([job.claim for job in jobs]))
    for job, stands in zip(jobs, standing, strict=True):
        job.closed = not stands
    return standing


def close(outcomes: Sequence[JobOutcome]) -> list[JobOutcome]:
    """Close the records of jobs that end so; what became of each."""
    outcomes = [outcome for outcome in outcomes if outcome.closing]
    closings = [outcome.closing for outcome in outcomes if outcome.closing]
    if not closings:
        return []
    try:
        closed = outcomes[0].job.insist(lambda: this_worker.ledger().close_all(closings))
    except LeaseLostError as end:
        return [outcome.job.lost(end) for outcome in outcomes]
    ended = []
    for outcome, how in zip(outcomes, closed, strict=True):
        outcome.job.closed, outcome.job.awaited = True, how is Closed.AWAITED
        ended.append(outcome if how else outcome.job.lost(HELD))
    return ended


def hand_back(job: ClaimedJob, why: str, kind: FailureKind | None = None, *, machine_fault: bool = False) -> JobOutcome:
    """Close an open record: QUEUED, or FAILED when a bug handed the job back before.

    If the ledger cannot be told, this process loses its lease.
    """
    attempts = job.record.attempts[job.record.before :]
    before = kind is FailureKind.INTERNAL and any(each.kind is kind for each in attempts)
    state, text = (JobState.FAILED, "failed") if before else (JobState.QUEUED, "handed back")
    try:
        closing = Closing(job.claim, state, job.attempt(job.begun, None, kind, why))
        return close([JobOutcome(job, state, f"{text}: {why}", closing, machine_fault)])[0]
    except BaseException:
        job.lose()
        raise
