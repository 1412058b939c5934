"""Claimed jobs of one or several messages, many at once: a group. It does a plain first try, all else ``run_job`` does.

The order is that of ``worker.execute``, for many at a time: download, ask whether the claims still stand, publish,
close. Fast is only the common course. A job that was tried before, has options, a file or part of one, or meets an
answer that libcurl does not tell clearly runs alone after the others; one that fails for a passing reason waits in
the ledger and comes back in a message of its own. So resuming, Retry-After and patience exist once.
Kept true by ``tests/unit/test_download_*.py`` (each fault on both paths) and ``tests/pools/test_groups.py``.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from download.connect import Idle
from download.errors import LeaseLostError
from download.fetch import Fetched
from download.many import Again, Loop, Transfer
from download.threads import Run, native_runner
from ledger.jobs import FailureKind, JobState
from ledger.ledger import Claim
from ledger.redis_client import PerProcess
from ledger.settings import get_settings
from worker import drain
from worker.claim import ClaimedJob, JobOutcome, close
from worker.execute import Execution, Show, hand_back_unbegun, limits, run_jobs
from worker.files import publish
from worker.process import this_worker

log = logging.getLogger("downpour.worker")

_AT_ONCE = 64  # files that are published and closed together
_TURN = 0.4  # seconds at the most between two notes of progress
_QUICK_TURN = 0.1  # ... and of gathered jobs
_LONG = 0.5  # seconds after which gathered jobs that are not begun go back
_LARGE = 2**20  # bytes; as in ledger/lua/job.lua
_NATIVE_THREADS = 64  # under gevent, groups at once; each has a thread while it downloads

_native = PerProcess(lambda: native_runner(_NATIVE_THREADS))
_idle_loops: PerProcess[Idle[Loop]] = PerProcess(Idle)  # with their connections


def suits(claims: Sequence[Claim]) -> bool:
    """Whether these jobs of one message gain by running together."""
    return len(claims) > 1 and _possible()


def leads(claims: Sequence[Claim]) -> bool:
    """Whether this is one small job, to which others may be gathered."""
    return len(claims) == 1 and _plain(claims[0]) and (claims[0].record.job.size or 0) < _LARGE and _possible()


def _possible() -> bool:
    """With limits per host each job must ask for its slot; the single path alone knows proxies."""
    return not this_worker.host_limits().on and not this_worker.fetcher().proxy


def run_group(jobs: Sequence[ClaimedJob], show: Show, long: Callable[[], None] | None = None) -> list[JobOutcome]:
    """Run claimed jobs, of whatever messages, and close their records, whatever happens; as ``run_job``.

    Args:
        long: the jobs were gathered from many messages. It is called when one of them proves to be long; those that are
            not begun go back on their queue, and have no outcome.
    """
    begun, first = time.monotonic(), jobs[0].id
    group = _GroupRun(jobs, show, long)
    try:
        group.run()
    except Exception:
        log.exception("group of job=%s: a bug; the single path goes on", first)
        group.left = deque(job for job in group.jobs if job.id not in group.outcomes)
    finally:
        group.drop()
    done = sum(outcome.state is JobState.DONE for outcome in group.outcomes.values())
    took = time.monotonic() - begun
    log.info("group of job=%s: %d of %d done in %.2f s, led by %s", first, done, len(jobs), took, jobs[0].where)
    group.finish()
    return [group.outcomes[job.id] for job in group.jobs]


class _GroupRun:
    def __init__(self, jobs: Sequence[ClaimedJob], show: Show, long: Callable[[], None] | None) -> None:
        self.begun = time.monotonic()
        self.jobs = list(jobs)
        self.long = long
        self.show = show
        self.settings = get_settings()
        self.next = deque(job for job in jobs if _plain(job.claim))
        self.left = deque(job for job in jobs if not _plain(job.claim))  # for the single path
        self.outcomes: dict[str, JobOutcome] = {}  # by id
        self.running: dict[Transfer, Execution] = {}
        self.failed: list[tuple[Execution, Exception]] = []  # before they began
        self.machine_fault = False
        self.was_slow = False
        self.noted = time.monotonic()

    def run(self) -> None:
        fetcher, loops = this_worker.fetcher(), _idle_loops()
        loop = loops.take(None) or Loop(fetcher)
        feed, native = self.feed(), _native()
        done: list[Transfer] = []

        def turn() -> None:
            done[:] = loop.turn(feed, self.settings.chunk_parallel, _QUICK_TURN if self.long else _TURN, _AT_ONCE)

        while True:
            native(turn)
            self.settle(done, native)
            if self.long and self.slow:
                self.long()
                self.give_back(self.next)
            if not done and not loop.active:
                break
            self.progress(loop)
        loops.put(None, loop)  # if anything was raised before, it is not used again
        self.hand_back(list(self.next))

    def drop(self) -> None:
        """Close the files of what was left in the middle: the single path restarts them, or another holder goes on."""
        for transfer in self.running:
            transfer.temp.close()

    @property
    def over(self) -> bool:
        """Whether nothing more should begin."""
        return self.machine_fault or drain.stopping()

    @property
    def slow(self) -> bool:
        """Whether jobs were gathered, and one of them was long: the others are not to wait for it."""
        if self.long and not self.was_slow:
            late = time.monotonic() - self.begun > _LONG
            self.was_slow = late or any((transfer.temp.total or 0) >= _LARGE for transfer in self.running)
        return self.was_slow

    def give_back(self, jobs: deque[ClaimedJob]) -> None:
        """Jobs that have no attempt go back on their queue."""
        waiting = list(jobs)
        jobs.clear()
        if not waiting:
            return
        try:
            waiting[0].insist(lambda: this_worker.ledger().unclaim([job.claim for job in waiting]))
        except LeaseLostError as end:
            for job in waiting:
                self.over_with(job.lost(end))
            return
        log.info("group of job=%s: %d jobs given back", self.jobs[0].id, len(waiting))
        for job in waiting:
            job.closed = True
            self.jobs.remove(job)

    def finish(self) -> None:
        """What the single path has to do."""
        if self.over:
            self.hand_back(list(self.left))
            return
        if self.long and len(self.left) > 1:  # gathered jobs do not wait here for each other while other slots are free
            first = self.left.popleft()
            self.give_back(self.left)
            self.left.append(first)
        self.outcomes |= {outcome.job.id: outcome for outcome in run_jobs(list(self.left), self.show)}

    def feed(self) -> Iterator[Transfer]:
        """The next jobs to begin; none once the worker stops. Runs where the loop runs."""
        user_agent = this_worker.fetcher().user_agent
        while self.next and not self.over and not self.slow:
            job = self.next.popleft()
            execution = Execution(job)
            try:
                left_behind = job.claim.number > 1 and job.temps.newest.exists()
                if left_behind or os.path.lexists(execution.files.target()):  # it may be what is wanted
                    self.left.append(job)
                    continue
                transfer = Transfer(
                    execution.files.wanted(job.record.job.url),
                    job.temps.place,
                    limits(job.claim.ends),
                    job.check,
                    user_agent=user_agent,
                )
            except Exception as error:
                self.failed.append((execution, error))
                continue
            self.running[transfer] = execution
            yield transfer

    def settle(self, done: Sequence[Transfer], run: Run) -> None:
        """Publish and close what is over.

        Args:
            run: where files are published.
        """
        failed, self.failed = self.failed, []
        whole = []
        for transfer in done:
            execution, end = self.running.pop(transfer), transfer.end
            if isinstance(end, Again):
                self.leave(execution.job, end)
            elif isinstance(end, Fetched):
                execution.files.fetched, execution.files.open_temp = end, transfer.temp
                whole.append(execution)
            elif end is not None:
                failed.append((execution, end))
        errors = publish([execution.files for execution in whole], run)
        endings = [self.ending(*each) for each in (*zip(whole, errors, strict=True), *failed)]
        for outcome in close([ending for ending in endings if ending]):
            self.over_with(outcome)

    def ending(self, execution: Execution, error: Exception | None) -> JobOutcome | None:
        """None: the job is lost, or left to the single path."""
        job, files = execution.job, execution.files
        if error is None:
            return execution.done(files.result(job.record.job.url), files.fetched)
        try:
            ending = execution.ended(error, in_group=True)
        except LeaseLostError as end:
            self.over_with(job.lost(end))
            return None
        if isinstance(ending, float):
            self.leave(job, error)
            return None
        self.machine_fault |= ending.machine_fault
        return ending

    def leave(self, job: ClaimedJob, why: Exception) -> None:
        log.info("%s to the single path: %s", job, why)
        self.left.append(job)

    def over_with(self, outcome: JobOutcome) -> None:
        job = outcome.job
        self.outcomes[job.id] = outcome
        if outcome.state is not JobState.DONE:
            log.info("%s claim=%d %s", job, job.claim.number, outcome.text)

    def hand_back(self, jobs: Sequence[ClaimedJob]) -> None:
        for outcome in hand_back_unbegun(jobs, machine_fault=self.machine_fault):
            self.over_with(outcome)

    def progress(self, loop: Loop) -> None:
        now = time.monotonic()
        if now - self.noted < self.settings.progress_every:
            return
        self.noted = now
        for transfer in loop.active:
            self.running[transfer].job.progress(transfer.temp.written, transfer.temp.total)
        self.show(f"{len(self.outcomes)} of {len(self.jobs)} over")


def _plain(claim: Claim) -> bool:
    """A job without options, on its first try or after one that was lost in company; as ``small`` in lua/job.lua."""
    attempts = claim.record.attempts
    if claim.number > 1 or attempts:
        all_lost = len(attempts) == claim.number - 1 and all(each.kind is FailureKind.LOST for each in attempts)
        if not all_lost or claim.record.weight > 1:
            return False
    return claim.record.job.plain
