"""One claimed job from claim to close: attempts, waits, the final name. Knows the ledger and the downloader, no Celery.

The order that makes a killed worker harmless:
  1. download into a temp file whose name carries the claim's number, so no two holders ever share one;
  2. ask the ledger whether the claim still stands;
  3. publish: the temp file gets the final name, whole and verified, never over another holder's file;
  4. close the record.
Killed before 3, the next holder begins anew or resumes a copy of what is there. Killed between 3 and 4, it downloads
again and replaces the file with an equal one. Frozen between 2 and 3 until somebody else has published, it finds the
name taken and leaves it alone.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from ledger.jobs import Attempt, FailureKind, JobState
from ledger.ledger import Claim, Ledger, Result
from ledger.settings import Settings, get_settings
from worker import drain
from worker.download import Fetched, Wanted
from worker.errors import CancelledError, DownloadError, HandedBackError, Interrupted, LeaseLostError, translate
from worker.incarnation import Incarnation
from worker.partial import publish
from worker.partials import Partials
from worker.pools import executor
from worker.process import this_worker
from worker.retries import Backoff
from worker.watch import Limits

_SLICE = 0.5  # seconds between two looks at cancel, drain and lease while a job waits

log = logging.getLogger("downpour.worker")


@dataclass(frozen=True, slots=True)
class Outcome:
    state: JobState | None  # None: the job is another holder's now
    text: str

    @property
    def failed(self) -> bool:
        return self.state is JobState.FAILED

    @property
    def cancelled(self) -> bool:
        return self.state is JobState.CANCELLED


def run_job(claim: Claim, tell: Callable[[str], None]) -> Outcome:
    """Run a claimed job and close its record, whatever happens.

    Args:
        tell: takes a line of progress for people, at most every half second.
    """
    outcome = _Run(claim, get_settings(), this_worker.ledger(), this_worker.incarnation(), tell).run()
    log.info("job=%s claim=%d %s", claim.record.id, claim.number, outcome.text)
    return outcome


class _Run:
    def __init__(
        self,
        claim: Claim,
        settings: Settings,
        ledger: Ledger,
        incarnation: Incarnation,
        tell: Callable[[str], None],
    ) -> None:
        self.claim = claim
        self.record = claim.record
        self.settings = settings
        self.ledger = ledger
        self.incarnation = incarnation
        self.tell = tell
        self.partials = Partials(settings.downloads, claim.record.id, claim.number)
        # All times of a record are of Redis' clock: that of the claim, plus what passed here since.
        self.epoch = (self.record.started or 0.0) - time.monotonic()
        self.begun = time.monotonic()
        self.deadline = self.begun + settings.deadline
        self.attempts = sum(attempt.kind is not FailureKind.LOST for attempt in self.record.attempts)
        self.told = self.begun

    def run(self) -> Outcome:
        while True:
            self.begun = time.monotonic()
            self.attempts += 1
            try:
                fetched = self.fetch()
                return self.publish(fetched)
            except Interrupted as end:
                return self.interrupted(end)
            except Exception as error:
                if outcome := self.failed(translate(error)):
                    return outcome

    def fetch(self) -> Fetched:
        job, settings = self.record.job, self.settings
        limits = Limits(
            settings.connect_timeout,
            settings.read_timeout,
            settings.low_speed,
            settings.low_speed_window,
            settings.max_bytes,
            self.deadline,
        )
        return this_worker.fetcher().fetch(
            Wanted(job.url, job.sha256, job.size),
            self.partials.mine,
            limits,
            check=self.check,
            progress=self.progress,
            resume=self.partials.newest,
        )

    def check(self) -> None:
        """Whether to go on.

        Raises:
            Interrupted: cancelled, draining, or no longer ours.
        """
        if self.record.id in self.incarnation.stopping:
            raise CancelledError("cancelled by request")
        if self.incarnation.lost:
            raise LeaseLostError(f"incarnation {self.incarnation.id} lost its lease")
        if drain.over():
            raise HandedBackError("the worker stops; handed back")

    def progress(self, size: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self.told < self.settings.progress_every:
            return
        self.told = now
        self.ledger.progress(self.claim, size, total)
        self.tell(f"{100 * size // total} %" if total else f"{size:,} bytes")

    def publish(self, fetched: Fetched) -> Outcome:
        final = self.settings.downloads / self.record.path
        self.still_ours()
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            publish(self.partials.mine, final, fsync=self.settings.fsync)
        except FileExistsError:
            # An earlier holder published and died before it could say so; or an older batch of this name did.
            self.still_ours()
            publish(self.partials.mine, final, fsync=self.settings.fsync, replace=True)
        attempt = self.attempt(None, None, fetched.received, fetched.status, fetched.first_byte)
        took = time.monotonic() - self.begun
        return self.close(
            JobState.DONE,
            attempt,
            f"done: {fetched.size:,} bytes in {took:.1f} s, sha256 {fetched.sha256[:12]}…",
            result=Result(fetched.size, fetched.sha256, fetched.notes),
        )

    def still_ours(self) -> None:
        if not self.ledger.holds(self.claim):
            raise LeaseLostError("another worker holds the job now")

    def interrupted(self, end: Interrupted) -> Outcome:
        if isinstance(end, LeaseLostError):
            self.partials.clear()
            return Outcome(None, f"lost: {end}; nothing published")
        state = JobState.QUEUED if isinstance(end, HandedBackError) else JobState.CANCELLED
        attempt = self.attempt(None, str(end), end.received, end.status, end.first_byte)
        return self.close(state, attempt, str(end))

    def failed(self, error: DownloadError) -> Outcome | None:
        """Note the attempt; None if this holder tries again itself."""
        if error.kind is FailureKind.INTERNAL:
            log.error("job=%s: a bug", self.record.id, exc_info=error)
        attempt = self.attempt(error.kind, str(error), error.received, error.status, error.first_byte)
        backoff = Backoff(self.settings.max_attempts, self.settings.retry_base, self.settings.retry_cap)
        wait = backoff.wait(self.attempts, error, random.random)
        text = f"{error.kind}: {error}"
        if wait is None or time.monotonic() + wait > self.deadline:
            return self.close(JobState.FAILED, attempt, f"failed: {text}")
        if wait > self.settings.wait_in_job:
            return self.close(JobState.WAITING, attempt, f"again in {wait:.1f} s: {text}", due_in=wait)
        log.info("job=%s attempt=%d again in %.1f s: %s", self.record.id, self.attempts, wait, text)
        if not self.ledger.note_attempt(self.claim, attempt):
            return Outcome(None, "lost: another worker holds the job now")
        try:
            self.wait(wait)
        except Interrupted as end:
            return self.interrupted(end)
        return None

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _SLICE))

    def attempt(
        self, kind: FailureKind | None, reason: str | None, received: int, status: int | None, first_byte: float | None
    ) -> Attempt:
        return Attempt(
            executor=executor(this_worker.name),
            started=self.epoch + self.begun,
            finished=self.epoch + time.monotonic(),
            first_byte=None if first_byte is None else self.epoch + first_byte,
            bytes=received,
            status=status,
            kind=kind,
            reason=reason,
        )

    def close(
        self, state: JobState, attempt: Attempt, text: str, *, due_in: float = 0.0, result: Result | None = None
    ) -> Outcome:
        if state.final:  # before the record says so: whoever reads that it is over finds no temp file
            self.partials.clear()
        held = self.ledger.close(self.claim, state, attempt, due_in=due_in, result=result)
        return Outcome(state if held else None, text if held else f"lost: another worker holds the job now ({text})")
