"""The course of a run: start, feed, strike, let it settle, look at everything, stop. Every wait has an end."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis.exceptions import RedisError

from chaos.books import Witness, temp_files
from chaos.faults import Disk, Faults
from chaos.feed import Feed
from chaos.fleet import Fleet, found_within
from chaos.mix import Planned
from chaos.schedule import Fault, Kind, deck
from chaos.subject import Subject
from ledger.jobs import Pool
from ledger.settings import Settings
from stack.stack import Stack

LEASE = float(Settings.model_fields["lease"].default)
GRACE = float(Settings.model_fields["grace"].default)
SETTLE = 120.0  # seconds after the load in which every job must have its end
_FILL = 20.0  # seconds in which the queues are filled before the first fault
_PAUSE = 1.8  # seconds on average between two faults
_SAY_EVERY = 5.0  # seconds
_HEALTH_JOBS = 20  # per pool, at the end


@dataclass(frozen=True, slots=True)
class Options:
    seed: int
    kills: int
    jobs: int
    each: int  # workers per pool
    limit: float  # seconds for the load; then the run is cut off


class Course:
    """One run under way. What it found stays in its attributes."""

    def __init__(
        self, options: Options, subject: Subject, access_log: Path, say: Callable[[str], None], disk: Disk | None
    ) -> None:
        self.options, self.subject, self.access_log, self._say = options, subject, access_log, say
        batch = max(500, min(2000, options.jobs // 20))  # starting a producer takes as long as 100 jobs
        self.feed = Feed(subject, options.seed, options.jobs, batch, low=round(batch * 0.6))
        self.fleet = Fleet(subject.stack, subject.members())
        self.faults = Faults(subject.stack, self.fleet, self.feed, options.seed, disk)
        downloads = subject.stack.plan.downloads
        self.witness = Witness(downloads, self.feed.planned, subject.finished, subject.note)
        without = frozenset[Kind]() if disk else {Kind.DISK}
        self.deck = deck(options.seed, options.kills, lease=LEASE, without=subject.spared | without)
        self.complete = False
        self.unhealthy: tuple[str, ...] = ()
        self.begun = self.over = 0.0  # epoch
        self._said = 0.0

    def run(self) -> None:
        """
        Raises:
            StackError: a process could not be started, or Redis not again.
        """
        self.fleet.start()
        self.begun = time.time()
        deadline = time.monotonic() + self.options.limit
        self.witness.start()
        self.feed.start()
        try:
            self._wait_for_load(deadline)
            for number, fault in enumerate(self.deck):
                self._pause(number, fault, deadline)
                self.faults.strike(fault)
                if self.feed.error or time.monotonic() > deadline:
                    break
            self.faults.settle(max(60, deadline - time.monotonic()))  # a job that kills takes its time
            self.feed.faults_over.set()
            self._end_of_load(deadline)
        finally:
            self.feed.stop()
            self.witness.stop()

    def _end_of_load(self, deadline: float) -> None:
        while self.feed.submitted < self.options.jobs and not self.feed.error and time.monotonic() < deadline:
            self._tick("no more faults")
        self.feed.join(60)
        # What waits on the queues is load too; the time to settle begins when they are empty.
        while any(map(self._queued_in, Pool)) and time.monotonic() < deadline:
            self._tick("no more jobs")
        settled = time.monotonic() + SETTLE
        while (awaited := self._awaited()) != 0 and time.monotonic() < settled:
            self._tick(f"settling, {awaited} jobs to go")
        self.over = time.time()
        self._health_check()
        self.complete = time.monotonic() < deadline + SETTLE and self.feed.error is None and not self._awaited()
        time.sleep(2 * Settings.model_fields["sweep_every"].default)  # the sweep's last round
        self._await_tidiness()

    def _await_tidiness(self) -> None:
        """A killed worker leaves temp files; live workers remove those of ended jobs from time to time."""
        found_within(self.subject.tidies_within, lambda: not any(temp_files(self.subject.stack.plan.downloads)))

    def _health_check(self) -> None:
        """All processes are up, and each pool does new jobs without help."""
        found_within(30, lambda: not self.fleet.unready)
        last = {
            each.batch: each.jobs for each in [self.feed.submit(pool, _HEALTH_JOBS, name="health") for pool in Pool]
        }
        found_within(60, lambda: not self._awaited(last))
        self.unhealthy = tuple(sorted([*self.fleet.unready, *(["the last jobs"] if self._awaited(last) else [])]))

    def _wait_for_load(self, deadline: float) -> None:
        filled = min(deadline, time.monotonic() + _FILL)
        while min(self._queued_in(pool) for pool in Pool) < self.feed.low // 2 and self.feed.error is None:
            if time.monotonic() > filled:
                return
            self._tick("filling the queues")

    def _pause(self, number: int, fault: Fault, deadline: float) -> None:
        end = min(deadline, time.monotonic() + fault.share * _PAUSE)
        while time.monotonic() < end:
            self._tick(f"{number} of {len(self.deck)} faults")

    def _tick(self, what: str) -> None:
        time.sleep(0.1)
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY:
            self._said = now
            queues = " ".join(f"{pool[0]}:{self._queued_in(pool)}" for pool in Pool)
            self._say(
                f"{time.time() - self.begun:5.0f} s  {what}; {self.feed.submitted:,} submitted, "
                f"queued {queues}, {len(self.fleet.exits)} unasked exits"
            )

    def _queued_in(self, pool: Pool) -> int:
        try:
            return self.subject.queued(pool)
        except RedisError:
            return 1  # away: not known to be empty

    def _awaited(self, batches: Mapping[str, Sequence[Planned]] | None = None) -> int:
        try:
            self.subject.note()
            return self.subject.awaited(self.feed.planned() if batches is None else batches)
        except RedisError:
            return 1


@contextmanager
def course(
    options: Options, subject: Callable[[Stack, int], Subject], say: Callable[[str], None], evidence: Path | None
) -> Iterator[Course]:
    """A run that is over, while its Redis and its files are still there.

    Args:
        evidence: receives the logs if the block ends with an exception.
    """
    with ExitStack() as closing:
        settings = {"DOWNPOUR_GRACE": str(GRACE)}  # the default, where the stack alone would be hastier
        stack = closing.enter_context(Stack({}, origin=False, sweep=False, settings=settings))
        access_log = stack.plan.private / "access.jsonl"
        line = f"python -m origin --port {stack.plan.origin_port} --access-log {shlex.quote(str(access_log))}"
        stack.launch(stack.plan.command("origin", line=line))
        disk = _disk(stack.plan.downloads, options.jobs, say)
        if disk:
            closing.callback(disk.close)
        made = Course(options, subject(stack, options.each), access_log, say, disk)
        closing.callback(made.fleet.stop)
        try:
            made.run()
            yield made
        except BaseException:
            if evidence:
                shutil.copytree(stack.plan.private / "logs", evidence, dirs_exist_ok=True)
            raise


def _disk(folder: Path, jobs: int, say: Callable[[str], None]) -> Disk | None:
    """A disk for many times what the jobs are expected to bring, if it and the memory for it can be had."""
    # A quick machine gets many more jobs than were asked for, until the last fault.
    size = min(max(2**33, jobs * 200_000), psutil.virtual_memory().available * 3 // 4)
    try:
        return Disk(folder, size)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"the disk is never full: a file system of its own cannot be mounted ({error})")
        return None
