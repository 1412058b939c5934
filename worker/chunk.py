"""The jobs of one message, many at once: a chunk. What a single job needs beyond a plain first try, ``run_job`` does.

The order is that of ``worker.job``, a group at a time: download, ask whether the claims still stand, publish, close.
Fast is only the common course. A job that was tried before, has options or a file already, or meets an answer that
libcurl does not tell clearly goes to the single path after the others; one that fails for a passing reason waits in the
ledger and comes back in a message of its own. So resuming, Retry-After and patience exist once.
Kept true by ``tests/unit/test_download_*.py`` (each fault on both paths) and ``tests/pools/test_chunks.py``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from download.errors import HandedBackError
from download.fetch import Fetched, Wanted
from download.filenames import check_path, final_path
from download.tempfile import TempFiles
from download.threads import native_runner
from download.timeouts import Limits
from ledger.jobs import JobState
from ledger.ledger import Claim
from ledger.redis_client import PerProcess
from ledger.settings import get_settings
from worker import drain
from worker.chunk_close import Closer, Work
from worker.hold import Hold
from worker.job import Outcome, run_jobs
from worker.process import this_worker

try:
    from download.many import Again, Loop, Transfer
except ImportError:  # a platform without libcurl for Python
    AVAILABLE = False
else:
    AVAILABLE = True

log = logging.getLogger("downpour.worker")

_GROUP = 64  # files that are published and closed together
_TURN = 0.4  # seconds at the most until somebody looks at progress
_NATIVE_THREADS = 64  # under gevent, chunks at once; each has a thread while it downloads


@dataclass(slots=True)
class _Tools:
    """What a process has once for its chunks."""

    loops: list[Loop]  # that nobody uses now, with their connections
    native: Callable[[Callable[[], None]], None]


_tools = PerProcess(lambda: _Tools([], native_runner(_NATIVE_THREADS)))


def suits(claims: Sequence[Claim]) -> bool:
    """Whether these jobs gain by running together. With limits per host each must ask for its turn; the single path
    alone knows proxies."""
    return AVAILABLE and len(claims) > 1 and not this_worker.host_limits().on and not this_worker.fetcher().proxy


def run_chunk(holds: Sequence[Hold], tell: Callable[[str], None]) -> list[Outcome]:
    """Run claimed jobs and close their records, whatever happens; as ``run_job``."""
    begun, first = time.monotonic(), holds[0].id
    try:
        chunk = _Chunk(holds, tell)
    except Exception:
        log.exception("chunk of job=%s: not begun; the single path goes on", first)
        return run_jobs(holds, tell)
    try:
        chunk.run()
    except Exception:
        log.exception("chunk of job=%s: a bug; the single path goes on", first)
        chunk.left = [hold for hold in holds if hold.id not in chunk.outcomes]
    finally:
        chunk.drop()
    done = sum(outcome.state is JobState.DONE for outcome in chunk.outcomes.values())
    took = time.monotonic() - begun
    log.info("chunk of job=%s: %d of %d done in %.2f s", first, done, len(holds), took)
    chunk.finish()
    return [chunk.outcomes[hold.id] for hold in holds]


class _Chunk:
    def __init__(self, holds: Sequence[Hold], tell: Callable[[str], None]) -> None:
        self.holds = holds
        self.tell = tell
        self.settings = get_settings()
        self.tools = _tools()
        self.fast = iter([hold for hold in holds if _plain(hold.claim)])
        self.left = [hold for hold in holds if not _plain(hold.claim)]  # for the single path
        self.outcomes: dict[str, Outcome] = {}  # by id
        self.works: dict[Transfer, Work] = {}
        self.stillborn: list[Work] = []  # failed before they began
        self.closer = Closer(this_worker.ledger(), self.tools.native, self.settings, self.outcomes, self.left.append)
        self.last_limits: Limits | None = None
        self.folders: set[str] = set()  # that may be published in
        self.told = time.monotonic()

    def run(self) -> None:
        fetcher, loops = this_worker.fetcher(), self.tools.loops
        loop = loops.pop() if loops else Loop(fetcher.policy, ca_file=fetcher.ca_file)
        feed = self.feed()
        done: list[Transfer] = []

        def turn() -> None:
            done[:] = loop.turn(feed, self.settings.chunk_parallel, _TURN, _GROUP)

        while True:
            self.tools.native(turn)
            self.settle(done)
            if not done and not loop.active:
                break
            self.progress(loop)
        loops.append(loop)  # if anything was raised before, it is not used again
        self.hand_back(list(self.fast))

    def drop(self) -> None:
        """Close the files of what was left in the middle: the single path begins anew, or another holder goes on."""
        for transfer in self.works:
            transfer.temp.close()

    @property
    def over(self) -> bool:
        """Whether nothing more should begin."""
        return self.closer.unwell or drain.draining()

    def finish(self) -> None:
        """What the single path has to do."""
        if self.over:
            self.hand_back(self.left)
            return
        for hold, outcome in zip(self.left, run_jobs(self.left, self.tell), strict=True):
            self.outcomes[hold.id] = outcome

    def feed(self) -> Iterator[Transfer]:
        """The next jobs to begin; none once the worker stops. Runs where the loop runs."""
        fetcher = this_worker.fetcher()
        while not self.over and (hold := next(self.fast, None)):
            record, work = hold.claim.record, self.work(hold)
            deadline = work.deadline = hold.claim.ends
            try:
                work.final = self.final(record.path)
                if os.path.lexists(work.final):  # it may be what is wanted
                    self.left.append(hold)
                    continue
                transfer = Transfer(
                    Wanted(record.job.url, record.job.sha256, record.job.size),
                    work.partials.place,
                    self.limits(deadline),
                    work.hold.check,
                    user_agent=fetcher.user_agent,
                )
            except Exception as error:
                work.error = error
                self.stillborn.append(work)
                continue
            self.works[transfer] = work
            yield transfer

    def limits(self, deadline: float) -> Limits:
        """The jobs of a message were claimed at one moment, so mostly these are the same."""
        if self.last_limits is None or self.last_limits.deadline != deadline:
            self.last_limits = Limits.from_settings(self.settings, deadline=deadline)
        return self.last_limits

    def final(self, path: str) -> str:
        """As ``final_path``, which looks at each folder; here once per chunk."""
        folder = path.rpartition("/")[0]
        if folder in self.folders:
            with suppress(ValueError):  # then final_path says what it is
                check_path(path)
                return f"{self.settings.downloads}/{path}"
        final = str(final_path(self.settings.downloads, path))
        self.folders.add(folder)
        return final

    def work(self, hold: Hold) -> Work:
        return Work(hold, TempFiles(self.settings.downloads, hold.id, hold.claim.number), time.monotonic())

    def settle(self, done: list[Transfer]) -> None:
        over, self.stillborn = self.stillborn, []
        for transfer in done:
            work = self.works.pop(transfer)
            if isinstance(transfer.end, Again):
                log.info("job=%s to the single path: %s", work.claim.record.id, transfer.end)
                self.left.append(work.hold)
                continue
            if isinstance(transfer.end, Fetched):
                work.fetched, work.temp = transfer.end, transfer.temp
            else:
                work.error = transfer.end
            over.append(work)
        if over:
            self.closer.close(over)

    def hand_back(self, holds: Sequence[Hold]) -> None:
        why = "a fault of the machine" if self.closer.unwell else "the worker stops"
        works = [self.work(hold) for hold in holds]
        for work in works:
            work.error = HandedBackError(f"not begun: {why}; handed back")
        if works:
            self.closer.close(works)

    def progress(self, loop: Loop) -> None:
        now = time.monotonic()
        if now - self.told < self.settings.progress_every:
            return
        self.told = now
        for transfer in loop.active:
            self.works[transfer].hold.progress(transfer.temp.written, transfer.temp.total)
        self.tell(f"{len(self.outcomes)} of {len(self.holds)} over")


def _plain(claim: Claim) -> bool:
    """A first try at a job without options."""
    return claim.number == 1 and not claim.record.attempts and claim.record.job.plain
