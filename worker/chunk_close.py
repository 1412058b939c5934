"""The end of a group of jobs: three steps for all of them instead of three round trips for each.

Ask whether the claims still stand, publish the files of those that do, close the records.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from download.errors import (
    DownloadError,
    HandedBackError,
    Interrupted,
    LeaseLostError,
    TempLostError,
    translate,
)
from download.fetch import Fetched
from download.retry import Backoff
from download.tempfile import TempFile, TempFiles
from ledger.jobs import UNCOUNTED_KINDS, FailureKind, JobState, Result
from ledger.ledger import Claim, Closing, Ledger
from ledger.settings import Settings
from worker import machine, present
from worker.hold import Hold
from worker.job import Outcome

log = logging.getLogger("downpour.worker")


@dataclass(slots=True)
class Work:
    """A job of a chunk; over with ``fetched`` and ``temp``, or with ``error``."""

    hold: Hold
    partials: TempFiles
    begun: float  # time.monotonic()
    deadline: float = 0.0
    final: str = ""  # path
    fetched: Fetched | None = None
    temp: TempFile | None = None
    error: BaseException | None = None
    fault: str | None = None  # of the machine, behind the error

    @property
    def claim(self) -> Claim:
        return self.hold.claim


class Closer:
    def __init__(
        self,
        ledger: Ledger,
        native: Callable[[Callable[[], None]], None],
        settings: Settings,
        outcomes: dict[str, Outcome],
        leave: Callable[[Hold], None],
    ) -> None:
        """
        Args:
            native: runs what keeps the disk busy.
            outcomes: by job id; receives what came of each.
            leave: takes the jobs that are left to the single path.
        """
        self._ledger = ledger
        self._native = native
        self._settings = settings
        self._outcomes = outcomes
        self._leave = leave
        self.unwell = False  # a fault of the machine was met
        self._folders: set[str] = set()  # that exist

    def close(self, works: Sequence[Work]) -> None:
        try:
            self._publish([work for work in works if work.fetched])
            self._record([work for work in works if not self._left(work)])
        except LeaseLostError as end:  # the ledger could not be asked before it was too late
            for work in works:
                self._lost(work, end)

    def _publish(self, works: Sequence[Work]) -> None:
        if not works:
            return
        standing = works[0].hold.insist(lambda: self._ledger.standing([work.claim for work in works]))
        taken: list[Work] = []

        def publish() -> None:
            for work, held in zip(works, standing, strict=True):
                if not held:
                    work.error, work.hold.closed = LeaseLostError("another worker holds the job now"), True
                    continue
                try:
                    self._link(work)
                except FileExistsError:
                    taken.append(work)
                except Exception as error:
                    work.error = error

        self._native(publish)
        for work in taken:
            # An earlier holder published and died before it could say so; or an older batch of this name did.
            try:
                work.hold.confirm()
                self._native(lambda work=work: self._link(work, replace=True))  # type: ignore[misc]
            except Exception as error:
                work.error = error

    def _link(self, work: Work, *, replace: bool = False) -> None:
        assert work.temp is not None  # noqa: S101 - it is whole
        folder = work.final.rpartition("/")[0]
        if folder not in self._folders:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._folders.add(folder)
        fetched, url = work.fetched, work.claim.record.job.url
        assert fetched is not None  # noqa: S101 - it is whole
        work.temp.publish(
            work.final,
            fsync=self._settings.fsync,
            replace=replace,
            stamp=lambda temp: present.stamp(temp, fetched, url),
        )

    def _left(self, work: Work) -> bool:
        """Whether the single path has to look at the job: its temp file is gone, or the disk took its file alone not.

        A fault of the machine is noted here.
        """
        error = work.error
        if error is None or isinstance(error, Interrupted):
            return False
        if not isinstance(error, TempLostError):
            work.error = end = translate(_exception(error))
            if fault := machine.fault_behind(end, self._settings.downloads, self._native):
                work.fault, self.unwell = fault, True
                work.hold.note_fault(fault, end)
            if fault or end.kind not in (FailureKind.DISK, FailureKind.DISK_FULL):
                return False
        log.info("job=%s to the single path: %s", work.claim.record.id, error)
        work.partials.clear()
        self._leave(work.hold)
        return True

    def _record(self, works: Sequence[Work]) -> None:
        closings: list[tuple[Work, Closing, Outcome]] = []
        for work in works:
            if isinstance(work.error, LeaseLostError):
                self._lost(work, work.error)
            else:
                closings.append((work, *self._closing(work)))
        if not closings:
            return
        closed = works[0].hold.insist(lambda: self._ledger.close_all([closing for _, closing, _ in closings]))
        for (work, _, outcome), good in zip(closings, closed, strict=True):
            work.hold.closed = True
            if good:
                self._outcomes[work.claim.record.id] = outcome
                if outcome.state is not JobState.DONE:
                    log.info("job=%s claim=%d %s", work.claim.record.id, work.claim.number, outcome.text)
            else:
                self._lost(work, LeaseLostError("another worker holds the job now"))

    def _closing(self, work: Work) -> tuple[Closing, Outcome]:
        if work.error is not None:
            return self._closing_of_error(work, work.error)
        fetched = work.fetched
        assert fetched is not None  # noqa: S101 - it is over without an error
        attempt = work.hold.attempt(
            work.begun, received=fetched.received, status=fetched.status, first_byte=fetched.first_byte
        )
        result = Result(fetched.size, fetched.sha256, fetched.notes, fetched.etag, fetched.last_modified)
        return Closing(work.claim, JobState.DONE, attempt, result=result), _DONE

    def _closing_of_error(self, work: Work, error: BaseException) -> tuple[Closing, Outcome]:
        end = error if isinstance(error, Interrupted) else translate(_exception(error))
        state, due_in, text = self._fate(work, end)
        kind = end.kind if isinstance(end, DownloadError) else None
        attempt = work.hold.attempt(
            work.begun,
            kind=FailureKind.MACHINE if work.fault and kind not in UNCOUNTED_KINDS else kind,
            reason=str(end),
            received=end.received,
            status=end.status,
            first_byte=end.first_byte,
        )
        if state in (JobState.FAILED, JobState.CANCELLED):
            work.partials.clear()
        return Closing(work.claim, state, attempt, due_in), Outcome(state, text)

    def _fate(self, work: Work, end: Interrupted | DownloadError) -> tuple[JobState, float, str]:
        """State, seconds until due, and a text for people."""
        if isinstance(end, Interrupted):
            return (JobState.QUEUED if isinstance(end, HandedBackError) else JobState.CANCELLED), 0.0, str(end)
        if work.fault:
            return JobState.QUEUED, 0.0, f"handed back: a fault of the machine: {work.fault}"
        text = f"{end.kind}: {end}"
        backoff = Backoff(self._settings.max_attempts, self._settings.retry_base, self._settings.retry_cap)
        wait = backoff.wait(1, end, random.random)
        if wait is None or time.monotonic() + wait > work.deadline:
            return JobState.FAILED, 0.0, f"failed: {text}"
        return JobState.WAITING, wait, f"again in {wait:.1f} s: {text}"

    def _lost(self, work: Work, end: LeaseLostError) -> None:
        work.partials.clear()
        outcome = Outcome(None, f"lost: {end}; nothing published")
        log.info("job=%s claim=%d %s", work.claim.record.id, work.claim.number, outcome.text)
        self._outcomes[work.claim.record.id] = outcome


_DONE = Outcome(JobState.DONE, "done")


def _exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
