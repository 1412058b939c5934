"""One claimed job from claim to close: attempts, waits, the final name. Knows the ledger and the downloader, no Celery.

The order that makes a killed worker harmless:
  1. download into a temp file whose name carries the claim's number, so no two holders ever share one;
  2. ask the ledger whether the claim still stands;
  3. publish: the temp file gets the final name, whole and verified, never over another holder's file;
  4. close the record.
Killed before 3, the next holder begins anew or resumes what is there. Killed between 3 and 4, it downloads again and
replaces the file with an equal one. Frozen between 2 and 3 until somebody else has published, it finds the name taken
and leaves it alone. Kept true by ``tests/fault``.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from ledger.jobs import FailureKind, JobState
from ledger.ledger import Claim, Result
from ledger.settings import Settings, get_settings
from worker.download import Fetched, Wanted
from worker.errors import CancelledError, DownloadError, HandedBackError, Interrupted, LeaseLostError, translate
from worker.hold import Hold
from worker.incarnation import Incarnation
from worker.names import final_path
from worker.partial import publish
from worker.partials import Partials
from worker.process import this_worker
from worker.retries import Backoff
from worker.watch import Limits

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
    hold = Hold(claim, this_worker.ledger(), incarnation, this_worker.name, settings.progress_every)
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
    log.info("job=%s claim=%d %s", claim.record.id, claim.number, outcome.text)
    return outcome


class _Run:
    def __init__(self, hold: Hold, settings: Settings, tell: Callable[[str], None]) -> None:
        self.hold = hold
        self.record = hold.claim.record
        self.settings = settings
        self.tell = tell
        self.partials = Partials(settings.downloads, self.record.id, hold.claim.number)
        self.begun = time.monotonic()  # of the attempt
        self.deadline = self.begun + settings.deadline
        # Attempts that count: not those that a dead holder or a stopping worker cut short.
        self.attempts = sum(each.kind not in (None, FailureKind.LOST) for each in self.record.attempts)

    def run(self) -> Outcome:
        while True:
            self.begun = time.monotonic()
            self.attempts += 1
            try:
                fetched = self.fetch()
                return self.publish(fetched)
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

    def fetch(self) -> Fetched:
        job, settings = self.record.job, self.settings
        final_path(settings.downloads, self.record.path)  # a name that cannot be published costs no download
        limits = Limits(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            low_speed=settings.low_speed,
            low_speed_window=settings.low_speed_window,
            max_bytes=settings.max_bytes,
            deadline=self.deadline,
        )
        return this_worker.fetcher().fetch(
            Wanted(job.url, job.sha256, job.size),
            self.partials.mine,
            limits,
            check=self.hold.check,
            progress=self.progress,
            resume=self.partials.newest,
        )

    def progress(self, size: int, total: int | None) -> None:
        if self.hold.progress(size, total):
            self.tell(f"{100 * size // total} %" if total else f"{size:,} bytes")

    def publish(self, fetched: Fetched) -> Outcome:
        temp, fsync = self.partials.mine, self.settings.fsync
        final = final_path(self.settings.downloads, self.record.path)
        self.hold.confirm()
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            publish(temp, final, fsync=fsync)
        except FileExistsError:
            # An earlier holder published and died before it could say so; or an older batch of this name did.
            self.hold.confirm()
            publish(temp, final, fsync=fsync, replace=True)
        attempt = self.hold.attempt(
            self.begun, received=fetched.received, status=fetched.status, first_byte=fetched.first_byte
        )
        self.partials.clear()  # before the record says so: whoever reads that it is over finds no temp file
        self.hold.close(JobState.DONE, attempt, result=Result(fetched.size, fetched.sha256, fetched.notes))
        took = time.monotonic() - self.begun
        return Outcome(JobState.DONE, f"done: {fetched.size:,} bytes in {took:.1f} s, sha256 {fetched.sha256[:12]}…")

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
        backoff = Backoff(settings.max_attempts, settings.retry_base, settings.retry_cap)
        wait = backoff.wait(self.attempts, error, random.random)
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
