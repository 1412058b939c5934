"""One claimed job from claim to close: attempts, waits, the final name. Knows the ledger and the downloader, no Celery.

The order that makes a killed worker harmless:
  1. download into a temp file whose name carries the claim's number, so no two holders ever share one;
  2. ask the ledger whether the claim still stands;
  3. publish: the temp file gets the final name, whole and verified, never over another holder's file;
  4. close the record.
A job's step, if it has one, works on the temp file between 1 and 2.
Killed before 3, the next holder begins anew or resumes what is there. Killed between 3 and 4, it downloads again and
replaces the file with an equal one. Frozen between 2 and 3 until somebody else has published, it finds the name taken
and leaves it alone. Kept true by ``tests/fault``.

No job ends with an open record unless the ledger said that the claim is void. A bug or an interrupt hands the job back;
if the ledger cannot be told, the lease of the process lapses. A temp file that something else removed, replaced or
locked is begun anew. A fault of the machine (``worker.machine``) hands the job back and spends no attempt.
"""

from __future__ import annotations

import errno
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from download.errors import (
    CancelledError,
    DeadlineError,
    DiskFullError,
    DownloadError,
    Ended,
    HandedBackError,
    Interrupted,
    LeaseLostError,
    MachineError,
    StatusError,
    TempLostError,
    translate,
)
from download.fetch import Fetched
from download.retry import Backoff
from download.tempfile import TempFiles
from download.timeouts import Limits
from ledger.jobs import UNCOUNTED_KINDS, Attempt, FailureKind, JobState, Result
from ledger.ledger import Claim
from ledger.settings import Settings, get_settings
from worker import machine, steps
from worker.courtesy import Courtesy
from worker.hold import Hold
from worker.incarnation import Incarnation
from worker.mirrors import Route
from worker.place import Place
from worker.pools import executor
from worker.process import this_worker

log = logging.getLogger("downpour.worker")

_ANEW = 3  # times that a holder begins a file anew whose temp file was taken away


@dataclass(frozen=True, slots=True)
class Outcome:
    state: JobState | None  # None: the job is another holder's now
    text: str
    unwell: bool = False  # ended by a fault of the machine: nothing else should begin

    @property
    def failed(self) -> bool:
        return self.state is JobState.FAILED


@contextmanager
def taken(claims: Sequence[Claim], incarnation: Incarnation) -> Iterator[list[Hold]]:
    """Claimed jobs, in the hands of this process. A record that is still open in the end is handed back."""
    settings, ledger, who = get_settings(), this_worker.ledger(), executor(this_worker.name)
    holds = [Hold(claim, ledger, incarnation, who, settings.progress_every) for claim in claims]
    try:
        yield holds
    finally:
        for hold in holds:
            if hold.open:
                log.error("job=%s claim=%d %s", hold.id, hold.claim.number, hand_back(hold, "interrupted").text)


def run_jobs(holds: Sequence[Hold], tell: Callable[[str], None]) -> list[Outcome]:
    """Run claimed jobs one after the other and close their records; a fault of the machine hands the rest back."""
    outcomes: list[Outcome] = []
    for hold in holds:
        if outcomes and outcomes[-1].unwell:
            outcomes.append(replace(hand_back(hold, "not begun: a fault of the machine"), unwell=True))
        else:
            outcomes.append(run_job(hold, tell))
    return outcomes


def run_job(hold: Hold, tell: Callable[[str], None]) -> Outcome:
    """Run a claimed job and close its record, whatever happens.

    Args:
        tell: takes a line of progress for people, at most every half second.
    """
    try:
        run = _Run(hold, get_settings(), tell)
        try:
            outcome = run.run()
        except LeaseLostError as end:
            run.partials.clear()
            outcome = Outcome(None, f"lost: {end}; nothing published")
    except Exception as error:
        log.exception("job=%s: an error beside the attempt", hold.id)
        cause = translate(error)
        if isinstance(cause, MachineError):
            hold.note_fault(str(cause), cause)
            return replace(hand_back(hold, str(cause), cause.kind), unwell=True)
        return hand_back(hold, f"{type(error).__name__}: {error}", FailureKind.INTERNAL)
    run.courtesy.leave()
    log.info("job=%s claim=%d %s", hold.id, hold.claim.number, outcome.text)
    return outcome


def hand_back(hold: Hold, why: str, kind: FailureKind | None = None) -> Outcome:
    """Close an open record: QUEUED, or FAILED when a bug handed the job back before.

    If the ledger cannot be told, this process loses its lease.
    """
    record = hold.claim.record
    before = kind is FailureKind.INTERNAL and any(each.kind is kind for each in record.attempts[record.before :])
    state = JobState.FAILED if before else JobState.QUEUED
    try:
        hold.close(state, hold.attempt(hold.begun, kind=kind, reason=why))
    except LeaseLostError as end:
        return Outcome(None, f"lost: {end}; nothing published")
    except BaseException:
        hold.lose()
        raise
    return Outcome(state, f"{'failed' if before else 'handed back'}: {why}")


class _Run:
    def __init__(self, hold: Hold, settings: Settings, tell: Callable[[str], None]) -> None:
        self.hold = hold
        self.record = hold.claim.record
        self.settings = settings
        self.tell = tell
        self.courtesy = Courtesy(hold, settings.retry_cap)
        self.partials = TempFiles(settings.downloads, self.record.id, hold.claim.number)
        self.begun = time.monotonic()  # of the attempt
        self.deadline = hold.claim.ends
        counted = [each.kind for each in self.record.attempts[self.record.before :]]
        # Attempts that count: not those that a dead holder, a stopping worker or a fault of its machine cut short.
        self.attempts = sum(kind not in UNCOUNTED_KINDS for kind in counted)
        self.full = counted.count(FailureKind.DISK_FULL)  # attempts for which the disk had no room
        self.anew = 0  # times that this holder began the file anew
        self.route = Route(self.record.job.urls, counted)
        self.place = Place(hold, settings, self.partials.mine)

    def run(self) -> Outcome:
        while True:
            self.begun = time.monotonic()
            self.attempts += 1
            try:
                return self.attempt()
            except LeaseLostError:
                raise
            except Interrupted as end:
                return self.interrupted(end)
            except TempLostError as end:
                if outcome := self.begin_anew(end):
                    return outcome
            except Exception as error:
                if outcome := self.failed(translate(error)):
                    return outcome
            except BaseException as end:  # a greenlet that is killed, an exit that somebody asked for
                self.interrupted(HandedBackError(f"interrupted by {type(end).__name__}"))
                raise

    def attempt(self) -> Outcome:
        if found := self.place.look():
            return self.done(found)
        if not self.courtesy.admitted(self.route.url):
            return Outcome(JobState.WAITING, "waits for its host")
        try:
            fetched = self.fetch()
        except StatusError as error:
            if error.status != 304:
                raise
            if found := self.place.unchanged():
                return self.done(found, status=304, first_byte=error.first_byte)
            fetched = self.fetch()  # nobody vouches for what is there: without conditions
        noted = self.step()
        result = self.place.publish(fetched, self.route.url)
        if noted:
            result = replace(result, notes=(*result.notes, noted))
        return self.done(result, fetched.received, fetched.status, fetched.first_byte)

    def fetch(self) -> Fetched:
        settings = self.settings
        limits = Limits(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            low_speed=settings.low_speed,
            low_speed_window=settings.low_speed_window,
            max_bytes=settings.max_bytes,
            deadline=self.deadline,
        )
        return this_worker.fetcher().fetch(
            self.place.wanted(self.route.url),
            self.partials.mine,
            limits,
            check=self.hold.check,
            progress=self.progress,
            resume=self.partials.newest,
        )

    def step(self) -> str | None:
        """Do with the verified file, which has no name yet, what the job asks for; the outcome for the record.

        Raises:
            StepError, DeadlineError: it cannot be done; the file is not published.
            Interrupted: as ``Hold.check`` says.
        """
        name = self.record.job.step
        return None if name is None else steps.run(name, self.partials.mine, self.may_go_on)

    def may_go_on(self) -> None:
        self.hold.check()
        if time.monotonic() > self.deadline:
            raise DeadlineError("the time for the job is used up, in the middle of its step")

    def progress(self, size: int, total: int | None) -> None:
        if self.hold.progress(size, total):
            self.tell(f"{100 * size // total} %" if total else f"{size:,} bytes")

    def done(
        self, result: Result, received: int = 0, status: int | None = None, first_byte: float | None = None
    ) -> Outcome:
        attempt = self.hold.attempt(self.begun, received=received, status=status, first_byte=first_byte)
        self.partials.clear()  # before the record says so: whoever reads that it is over finds no temp file
        self.hold.close(JobState.DONE, attempt, result=result)
        took = time.monotonic() - self.begun
        what = (
            f"{result.size:,} bytes in {took:.1f} s"
            if status not in (None, 304)
            else f"{result.size:,} bytes were there"
        )
        return Outcome(JobState.DONE, f"done: {what}, sha256 {result.sha256[:12]}…")

    def interrupted(self, end: Interrupted) -> Outcome:
        attempt = self.hold.attempt(
            self.begun, reason=str(end), received=end.received, status=end.status, first_byte=end.first_byte
        )
        if isinstance(end, HandedBackError):
            self.hold.close(JobState.QUEUED, attempt)  # what arrived stays for the next holder
            return Outcome(JobState.QUEUED, str(end))
        self.partials.clear()
        self.hold.close(JobState.CANCELLED, attempt)
        return Outcome(JobState.CANCELLED, str(end))

    def begin_anew(self, why: Ended) -> Outcome | None:
        """Begin the file anew in the same claim, which spends no attempt; the outcome if that did not help."""
        self.hold.confirm()  # else a later holder may have removed the temp file
        if self.anew == _ANEW:
            return self.unwell(MachineError(str(why)), f"{why}, {_ANEW + 1} times in a row")
        self.anew += 1
        self.attempts -= 1
        log.warning("job=%s begins its file anew: %s", self.record.id, why)
        if isinstance(why, TempLostError):
            self.partials.clear()
        return None

    def unwell(self, error: DownloadError, fault: str) -> Outcome:
        """Hand the job back because of a fault of this machine."""
        self.hold.note_fault(fault, error)
        kind = error.kind if error.kind in UNCOUNTED_KINDS else FailureKind.MACHINE
        self.hold.close(JobState.QUEUED, self.ended(error, kind))
        return Outcome(JobState.QUEUED, f"handed back: a fault of the machine: {fault}", unwell=True)

    def ended(self, error: DownloadError, kind: FailureKind) -> Attempt:
        return self.hold.attempt(
            self.begun,
            kind=kind,
            reason=str(error),
            received=error.received,
            status=error.status,
            first_byte=error.first_byte,
        )

    def failed(self, error: DownloadError) -> Outcome | None:
        """Note the attempt; None if this holder tries again itself."""
        if fault := machine.fault_behind(error, self.settings.downloads, this_worker.fetcher().run):
            return self.unwell(error, fault)
        if error.kind is FailureKind.DISK and (error.errno == errno.ENOENT or not self.anew):
            return self.begin_anew(error)  # a folder vanished, or the fault of the machine is just over
        if error.kind is FailureKind.INTERNAL:
            log.error("job=%s: a bug", self.record.id, exc_info=error)
        settings, text = self.settings, f"{error.kind}: {error}"
        attempt = self.ended(error, error.kind)
        wait, elsewhere = self.pause(error)
        quiet = self.courtesy.failed(error, again=not elsewhere and wait is not None and wait <= settings.wait_in_job)
        if wait is not None and not elsewhere:
            wait = max(wait, quiet)
        if wait is None or time.monotonic() + wait > self.deadline:
            self.partials.clear()
            self.hold.close(JobState.FAILED, attempt)
            return Outcome(JobState.FAILED, f"failed: {text}")
        if wait > settings.wait_in_job:
            self.hold.close(JobState.WAITING, attempt, due_in=wait)
            return Outcome(JobState.WAITING, f"again in {wait:.1f} s: {text}")
        log.info("job=%s attempt=%d again in %.1f s: %s", self.record.id, self.attempts, wait, text)
        self.hold.note(attempt)
        self.attempts -= error.kind in UNCOUNTED_KINDS
        try:
            self.hold.wait(wait)
        except (CancelledError, HandedBackError) as end:
            self.begun = time.monotonic()
            return self.interrupted(end)
        return None

    def pause(self, error: DownloadError) -> tuple[float | None, bool]:
        """Seconds until the next attempt, None if there is none; and whether another URL has its turn at once."""
        settings, urls = self.settings, self.record.job.urls
        if self.route.failed(error.kind):
            return 0.0, True
        if isinstance(error, DiskFullError):  # the machine is well: this job alone waits for its room
            self.full += 1
            fits = error.need <= machine.capacity(settings.downloads)
            patient = Backoff(sys.maxsize, settings.retry_base, settings.retry_cap)
            return patient.wait(self.full, error, random.random) if fits else None, False
        backoff = Backoff(max(settings.max_attempts, len(urls)), settings.retry_base, settings.retry_cap)
        left = len(urls) > 1 and self.route.may_go_on_after(error.kind)
        return (backoff.pause if left else backoff.wait)(self.attempts, error, random.random), False
