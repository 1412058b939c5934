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
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from download.errors import (
    CancelledError,
    DeadlineError,
    DownloadError,
    HandedBackError,
    Interrupted,
    LeaseLostError,
    StatusError,
    translate,
)
from download.fetch import Fetched
from download.retry import Backoff
from download.tempfile import TempFiles
from download.timeouts import Limits
from ledger.jobs import FailureKind, JobState
from ledger.ledger import Claim, Result
from ledger.settings import Settings, get_settings
from worker import steps
from worker.courtesy import Courtesy
from worker.hold import Hold
from worker.incarnation import Incarnation
from worker.mirrors import Route
from worker.place import Place
from worker.pools import executor
from worker.process import this_worker

log = logging.getLogger("downpour.worker")


@dataclass(frozen=True, slots=True)
class Outcome:
    state: JobState | None  # None: the job is another holder's now
    text: str

    @property
    def failed(self) -> bool:
        return self.state is JobState.FAILED


def run_job(claim: Claim, incarnation: Incarnation, tell: Callable[[str], None]) -> Outcome:
    """Run a claimed job and close its record, whatever happens.

    Args:
        incarnation: the one that claimed it.
        tell: takes a line of progress for people, at most every half second.
    """
    settings = get_settings()
    hold = Hold(claim, this_worker.ledger(), incarnation, executor(this_worker.name), settings.progress_every)
    run = _Run(hold, settings, tell)
    try:
        outcome = run.run()
    except LeaseLostError as end:
        run.partials.clear()
        outcome = Outcome(None, f"lost: {end}; nothing published")
    except BaseException:
        # The record says that we hold it, and it could not be closed: only a lease that lapses makes that untrue.
        incarnation.lost = True
        raise
    run.courtesy.leave()
    log.info("job=%s claim=%d %s", claim.record.id, claim.number, outcome.text)
    return outcome


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
        # Attempts that count: not those that a dead holder or a stopping worker cut short.
        self.attempts = sum(kind not in (None, FailureKind.LOST) for kind in counted)
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

    def failed(self, error: DownloadError) -> Outcome | None:
        """Note the attempt; None if this holder tries again itself."""
        if error.kind is FailureKind.INTERNAL:
            log.error("job=%s: a bug", self.record.id, exc_info=error)
        settings, text = self.settings, f"{error.kind}: {error}"
        attempt = self.hold.attempt(
            self.begun,
            kind=error.kind,
            reason=str(error),
            received=error.received,
            status=error.status,
            first_byte=error.first_byte,
        )
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
        backoff = Backoff(max(settings.max_attempts, len(urls)), settings.retry_base, settings.retry_cap)
        left = len(urls) > 1 and self.route.may_go_on_after(error.kind)
        return (backoff.pause if left else backoff.wait)(self.attempts, error, random.random), False
