"""A claimed job in this process: may it go on, and what the ledger is told of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import RedisError

from download.errors import CancelledError, DiskFullError, DownloadError, HandedBackError, LeaseLostError
from ledger.host_limits import Admission, HostLimits
from ledger.jobs import Attempt, Executor, FailureKind, JobState, Result
from ledger.ledger import Claim, Closed, Ledger
from ledger.redis_client import once
from worker import drain
from worker.incarnation import Incarnation
from worker.pace import Pace

T = TypeVar("T")

_SLICE = 0.5  # seconds between two looks at cancel, drain and lease while a job waits

log = logging.getLogger("downpour.worker")

_pace = Pace(25, at_once=25)  # notes of progress by this process


class Hold:
    """
    Args:
        incarnation: the one that claimed the job.
        who: runs the job.
        progress_every: seconds between two notes of progress.
    """

    def __init__(
        self, claim: Claim, ledger: Ledger, incarnation: Incarnation, who: Executor, progress_every: float
    ) -> None:
        self.claim = claim
        self.id = claim.record.id
        self._mark = f"{self.id} {claim.number}"
        self._ledger = ledger
        self._incarnation = incarnation
        self._who = who
        self._progress_every = progress_every
        self.begun = self._told = time.monotonic()
        self.awaited = False  # closed, and somebody waits for the slot of its host
        self.closed = False  # by this hold, or the ledger said that the claim is void

    @property
    def open(self) -> bool:
        """Whether the record still names this process, and the process is alive for the ledger."""
        return not (self.closed or self._incarnation.lost)

    def lose(self) -> None:
        """The record could not be closed: the lease of this process lapses, and the sweep takes its jobs over."""
        self._incarnation.lost = True

    def check(self) -> None:
        """Whether to go on; asked often, so it asks nobody but this process.

        Raises:
            Interrupted: cancelled, draining, or no longer ours.
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
        if now - self._told < self._progress_every:
            return False
        if self._incarnation.away:  # the download itself does not need Redis, and does not wait for it
            return False
        if not _pace.allows(now):
            return False
        self._told = now
        try:
            with once():
                self._ledger.progress(self.claim, size, total)
        except RedisError:
            self._incarnation.away = True  # until a renewal gets through
            return False
        return True

    def confirm(self) -> None:
        """To be asked before anything gets a final name.

        Raises:
            LeaseLostError: another worker holds the job.
        """
        self._held(lambda: self._ledger.holds(self.claim))

    def note_fault(self, reason: str, error: DownloadError) -> None:
        """A fault of the machine ends the job here: the worker takes no others until it is over."""
        need = error.need if isinstance(error, DiskFullError) else 0
        self.insist(lambda: self._ledger.note_fault(self._who.worker, reason, need))

    def note(self, attempt: Attempt) -> None:
        """A failed attempt, after which this holder tries again itself.

        Raises:
            LeaseLostError: another worker holds the job.
        """
        self._held(lambda: self._ledger.note_attempt(self.claim, attempt))

    def close(self, state: JobState, attempt: Attempt, *, due_in: float = 0.0, result: Result | None = None) -> None:
        """See ``Ledger.close``.

        Raises:
            LeaseLostError: another worker holds the job.
        """
        closed = self.insist(lambda: self._ledger.close(self.claim, state, attempt, due_in=due_in, result=result))
        self.closed = True
        if not closed:
            raise LeaseLostError("another worker holds the job now")
        self.awaited = closed is Closed.AWAITED

    def acquire(self, host_limits: HostLimits, host: str) -> bool:
        """Whether the host has a slot for this job. If not, the job waits for one, and this hold is over.

        Raises:
            LeaseLostError: another worker holds the job.
        """
        admission = self.insist(lambda: host_limits.acquire(self.claim, host))
        self.closed = admission is not Admission.GRANTED
        if admission is Admission.VOID:
            raise LeaseLostError("another worker holds the job now")
        return admission is Admission.GRANTED

    def attempt(
        self,
        begun: float,
        *,
        kind: FailureKind | None = None,
        reason: str | None = None,
        received: int = 0,
        status: int | None = None,
        first_byte: float | None = None,
    ) -> Attempt:
        """An attempt that ends now. Times given are ``time.monotonic()``, those of the result by Redis' clock."""
        epoch = self.claim.epoch
        return Attempt(
            executor=self._who,
            started=epoch + begun,
            finished=epoch + time.monotonic(),
            first_byte=None if first_byte is None else epoch + first_byte,
            bytes=received,
            status=status,
            kind=kind,
            reason=reason,
        )

    def _held(self, call: Callable[[], bool]) -> None:
        if not self.insist(call):
            self.closed = True
            raise LeaseLostError("another worker holds the job now")

    def insist(self, call: Callable[[], T]) -> T:
        """Ask the ledger until it answers: nothing else can be done with this job."""
        warned = False
        while True:
            try:
                return call()
            except RedisError as error:
                if self._incarnation.lost or drain.over():
                    self._incarnation.lost = True  # the record still says that we hold it: let the lease lapse
                    raise LeaseLostError(f"the ledger could not be asked: {error}") from error
                if not warned:
                    log.warning("job=%s waits for the ledger: %s", self.id, error)
                warned = True
                time.sleep(_SLICE)
