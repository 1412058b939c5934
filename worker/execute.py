"""HEART: one claimed job from claim to close: attempts, waits, the final name. Knows the ledger and the downloader.

The order that makes a killed worker harmless:
  1. download into a temp file whose name carries the claim's number, so no two holders ever share one;
  2. ask the ledger whether the claim still stands;
  3. publish: the temp file gets the final name, whole and verified, over nothing but an older file of this very job;
  4. close the record.
A job's step, if it has one, works on the temp file between 1 and 2.
Killed before 3, the next holder starts again or resumes what is there. Killed between 3 and 4, it downloads again and
finds an equal file. Frozen between 2 and 3 until another holder has published, it finds the name taken and leaves it
alone. Kept true by ``tests/fault``.

A holder closes each record, unless the claim is void. A bug or an interrupt hands the job back; if the ledger cannot be
told, the lease of the process lapses, and the sweep takes the job over. A temp file that something else removed,
replaced or locked is restarted. A fault of the machine (``worker.machine``) hands the job back and spends no attempt.
"""

from __future__ import annotations

import errno
import logging
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

from download import steps
from download.errors import (
    Backoff,
    DeadlineError,
    DiskFullError,
    DownloadError,
    Ended,
    HandedBackError,
    Interrupted,
    LeaseLostError,
    MachineError,
    ServerError,
    StatusError,
    TempLostError,
    fit_to_show,
    translate,
)
from download.fetch import Fetched
from download.threads import in_place
from download.timeouts import Limits
from download.validators import WORTH_KEEPING
from ledger.jobs import UNCOUNTED_KINDS, FailureKind, JobState, Result
from ledger.ledger import Closing
from ledger.settings import get_settings
from worker import drain, machine
from worker.claim import ClaimedJob, JobOutcome, close, hand_back
from worker.files import JobFiles, publish
from worker.mirrors import HostSlot, Route
from worker.process import this_worker

log = logging.getLogger("downpour.worker")

_MOST_NOTED = 100  # attempts that spend none: that only brought the file further, or found no room for it
_OFTEN_FULL, _LONG_PAUSE = 30, 900.0  # after so many tries without room, seconds between them at the most
_RESTARTS = 3  # times that a holder restarts a file whose temp file was taken away

Show = Callable[[str], None]  # shows a line of progress to people; called at most every half second


def run_jobs(jobs: Sequence[ClaimedJob], show: Show) -> list[JobOutcome]:
    """Run claimed jobs one after the other and close their records.

    The rest is handed back after a fault of the machine, and when the worker stops.
    """
    outcomes: list[JobOutcome] = []
    for job in jobs:
        outcomes.append(run_job(job, show))
        if (machine_fault := outcomes[-1].machine_fault) or drain.stopping():
            return outcomes + hand_back_unbegun(jobs[len(outcomes) :], machine_fault=machine_fault)
    return outcomes


def hand_back_unbegun(jobs: Sequence[ClaimedJob], *, machine_fault: bool) -> list[JobOutcome]:
    why = "a fault of the machine" if machine_fault else "the worker stops"
    end = HandedBackError(f"not begun: {why}; handed back")
    return close([Execution(job).interrupted(end) for job in jobs])


def run_job(job: ClaimedJob, show: Show) -> JobOutcome:
    """Run a claimed job and close its record, whatever happens."""
    try:
        execution = Execution(job)
        outcome = execution.run(show)
    except Exception as error:
        log.exception("%s an error beside the attempt", job)
        cause = translate(error)
        if isinstance(cause, MachineError):
            try:
                job.note_fault(str(cause), cause)
            except LeaseLostError as end:
                return job.lost(end)
            return hand_back(job, str(cause), cause.kind, machine_fault=True)
        return hand_back(job, fit_to_show(f"{type(error).__name__}: {error}"), FailureKind.INTERNAL)
    execution.slot.wake_next()
    log.info("%s claim=%d %s", job, job.claim.number, outcome.text)
    return outcome


@lru_cache(16)  # the jobs of a message were claimed at one moment, so mostly these are the same
def limits(deadline: float) -> Limits:
    return Limits.from_settings(get_settings(), deadline=deadline)


class Execution:
    """A claimed job under way: the attempts so far, and what follows from the end of the present one."""

    def __init__(self, job: ClaimedJob) -> None:
        self.job = job
        self.settings = get_settings()
        self.files = JobFiles(job, self.settings)
        self.begun = time.monotonic()  # of the attempt
        self.restarts = 0  # of the file, by this holder
        self._further = 0  # attempts by this holder that brought the file further
        self._wanted = job.record.job
        self._before = [each.kind for each in job.record.attempts[job.record.before :]]
        # Attempts that count: not those that a dead holder, a stopping worker or a fault of its machine cut short.
        self._attempts = 1 + sum(kind not in UNCOUNTED_KINDS for kind in self._before)
        self._full = self._before.count(FailureKind.DISK_FULL)  # attempts for which the disk had no room

    @cached_property
    def slot(self) -> HostSlot:
        return HostSlot(self.job)

    @cached_property
    def _route(self) -> Route:
        return Route(self._wanted.urls, self._before)

    def run(self, show: Show) -> JobOutcome:
        wait = 0.0
        ending: JobOutcome | float
        try:
            while True:
                try:
                    self._begin_after(wait)
                    ending = self._attempt(show)
                except Exception as error:
                    ending = self.ended(error)
                if isinstance(ending, JobOutcome):
                    return close([ending])[0] if ending.closing else ending
                wait = ending
        except LeaseLostError as end:
            return self.job.lost(end)

    def _begin_after(self, wait: float) -> None:
        try:
            self.job.wait(wait)
        finally:
            self.begun = time.monotonic()

    def _attempt(self, show: Show) -> JobOutcome:
        if found := self.files.find():
            return self.done(found, None)
        url = self._route.url
        if not self.slot.acquire(url):
            return JobOutcome(self.job, JobState.WAITING, "waits for its host")
        try:
            fetched = self._fetch(show)
        except StatusError as error:
            if error.status != 304:
                raise
            if found := self.files.unchanged():
                return self.done(found, error)
            fetched = self._fetch(show)  # nothing vouches for the existing file: without conditions
        self.files.fetched = fetched
        notes, took = [], None
        if self._wanted.step:
            note, took = steps.run(self._wanted.step, self.job.temps.mine, self._check)
            notes.append(note)
        self.files.choose_name(fetched)
        (unpublished,) = publish([self.files], this_worker.fetcher().run if self.settings.fsync else in_place)
        if unpublished:
            raise unpublished
        return self.done(self.files.result(url, *notes, step=took), fetched)

    def _fetch(self, show: Show) -> Fetched:
        def progress(size: int, total: int | None) -> None:
            if self.job.progress(size, total):
                show(f"{100 * size // total} %" if total else f"{size:,} bytes")

        return this_worker.fetcher().fetch(
            self.files.wanted(self._route.url),
            self.job.temps.mine,
            limits(self.job.claim.ends),
            check=self.job.check,
            progress=progress,
            resume=self.job.temps.newest,
        )

    def _check(self) -> None:
        """Whether the step may go on with the verified file; if not, the file is not published."""
        self.job.check()
        if time.monotonic() > self.job.claim.ends:
            raise DeadlineError("the time for the job is used up, in the middle of its step")

    # -- the end of an attempt, alone or in a group

    def done(self, result: Result, came: Fetched | Ended | None) -> JobOutcome:
        """
        Args:
            came: what came of the request; None: there was none.
        """
        took = time.monotonic() - self.begun
        what = f"in {took:.1f} s" if isinstance(came, Fetched) else "were there"
        text = f"done: {result.size:,} bytes {what}, sha256 {result.sha256[:12]}…"
        return self._ending(JobState.DONE, text, came, result=result)

    def ended(self, error: Exception, *, in_group: bool = False) -> JobOutcome | float:
        """What follows from an attempt without a file: an ending, or seconds until this process tries again alone.

        Args:
            in_group: the job does not wait here while others run.

        Raises:
            LeaseLostError: another worker holds the job.
        """
        if isinstance(error, LeaseLostError):
            raise error
        if isinstance(error, Interrupted):
            return self.interrupted(error)
        if isinstance(error, TempLostError):
            return self._restart(error)
        return self._failed(translate(error), in_group=in_group)

    def interrupted(self, end: Interrupted) -> JobOutcome:
        state = JobState.QUEUED if isinstance(end, HandedBackError) else JobState.CANCELLED
        return self._ending(state, str(end), end)

    def _restart(self, why: Ended) -> JobOutcome | float:
        """Restart the file in the same claim, which spends no attempt; an ending if that did not help."""
        self.job.confirm()  # else a later holder may have removed the temp file
        if self.restarts == _RESTARTS:
            return self._machine_fault(MachineError(str(why)), f"{why}, {_RESTARTS + 1} times in a row")
        self.restarts += 1
        log.warning("%s restarts its file: %s", self.job, why)
        if isinstance(why, TempLostError):
            self.job.temps.clear()
        return 0.0

    def _machine_fault(self, error: DownloadError, fault: str) -> JobOutcome:
        """Hand the job back because of a fault of this machine."""
        self.job.note_fault(fault, error)
        kind = error.kind if error.kind in UNCOUNTED_KINDS else FailureKind.MACHINE
        text = f"handed back: a fault of the machine: {fault}"
        return self._ending(JobState.QUEUED, text, error, kind=kind, machine_fault=True)

    def _failed(self, error: DownloadError, *, in_group: bool) -> JobOutcome | float:
        if fault := machine.fault_behind(error, self.settings.downloads, this_worker.fetcher().run):
            return self._machine_fault(error, fault)
        if error.kind is FailureKind.DISK and (error.errno == errno.ENOENT or not self.restarts):
            return self._restart(error)  # a folder vanished, or the fault of the machine is just over
        if error.kind is FailureKind.INTERNAL:
            log.error("%s a bug", self.job, exc_info=error)
        further = error.gained >= WORTH_KEEPING
        here = -1.0 if in_group else self.settings.wait_in_job  # seconds that the job may wait in this process
        wait, elsewhere = self._pause(error)
        cool_down = self.slot.failed(error, again=not elsewhere and wait is not None and wait <= here)
        if wait is not None and not elsewhere:
            wait = max(wait, cool_down)
        left = self.job.claim.ends - time.monotonic()
        if wait is not None and wait > left and isinstance(error, ServerError) and error.retry_after:
            pause = f"it asks for a pause of {error.retry_after:,.0f} s, the job has {max(0, left):,.0f} s left"
            error.args = (f"{error}; {pause} (DOWNPOUR_DEADLINE, --deadline)",)
        text, reason = f"{error.kind}: {error}", str(error)
        if wait is None or wait > left:
            return self._ending(JobState.FAILED, f"failed: {text}", error)
        if wait > here:
            return self._ending(JobState.WAITING, f"again in {wait:.1f} s: {text}", error, due_in=wait)
        log.info("%s attempt=%d again in %.1f s: %s", self.job, self._attempts, wait, text)
        if further:  # it spends no attempt, and thousands of them must not fill the record
            self._further += 1
            if self._further <= _MOST_NOTED:
                self.job.note_attempt(self.job.attempt(self.begun, error, None, f"{text}; goes on from there"))
            return wait
        self.job.note_attempt(self.job.attempt(self.begun, error, error.kind, reason))
        self._attempts += error.kind not in UNCOUNTED_KINDS
        self._before.append(error.kind)
        return wait

    def _pause(self, error: DownloadError) -> tuple[float | None, bool]:
        """Seconds until the next attempt, None if there is none; and whether another URL has its turn at once."""
        settings, urls = self.settings, self._wanted.urls
        if error.gained >= WORTH_KEEPING:  # the same server, after a first pause
            return Backoff(sys.maxsize, settings.retry_base, settings.retry_cap).wait(1, error, random.random), False
        if self._route.failed(error.kind):
            return 0.0, True
        if isinstance(error, DiskFullError):  # the machine is well: this job alone waits for its room
            self._full += 1
            fits = error.need <= machine.capacity(settings.downloads)
            cap = settings.retry_cap if self._full <= _OFTEN_FULL else max(settings.retry_cap, _LONG_PAUSE)
            patient = Backoff(_MOST_NOTED, settings.retry_base, cap)
            return patient.wait(self._full, error, random.random) if fits else None, False
        # A file that was put together of two is fetched once more, whatever was spent on it.
        once_more = error.kind is FailureKind.CHANGED and error.kind not in self._before
        backoff = Backoff(max(settings.max_attempts, len(urls)) + once_more, settings.retry_base, settings.retry_cap)
        left = len(urls) > 1 and self._route.may_go_on_after(error.kind)
        return (backoff.pause if left else backoff.wait)(self._attempts, error, random.random), False

    def _ending(
        self,
        state: JobState,
        text: str,
        came: Fetched | Ended | None,
        *,
        kind: FailureKind | None = None,
        due_in: float = 0.0,
        result: Result | None = None,
        machine_fault: bool = False,
    ) -> JobOutcome:
        """
        Args:
            kind: instead of the error's.
        """
        failure = came if isinstance(came, Ended) and not result else None  # "304 Not Modified" may be none
        # Before the record is final: whoever reads that it is over finds no temp file but what a retry can continue. In
        # a group publishing left none.
        kept = state is JobState.FAILED and failure and failure.keeps_partial
        if state.final and not (kept or (self.files.open_temp and result)):
            self.job.temps.clear()
        kind, reason = kind or getattr(failure, "kind", None), str(failure) if failure else None
        if state is JobState.WAITING and failure and failure.gained >= WORTH_KEEPING:
            kind = None  # it spends no attempt
        attempt = self.job.attempt(self.begun, came, kind, reason)
        closing = Closing(self.job.claim, state, attempt, due_in, result)
        return JobOutcome(self.job, state, text, closing, machine_fault)
