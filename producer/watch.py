"""Watching a batch until every job has its end: live on a terminal, lines elsewhere.

A look costs one hash and the records of the jobs that run, however large the batch is.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice

import click
from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from download.errors import printable, redact
from ledger.jobs import FINAL_STATES, Batch, Executor, FailureKind, JobRecord, JobState, Pool
from producer.cli import batch_argument
from producer.client import Client, redis_errors
from producer.errors import RedisUnusableError
from producer.results import counts, exit_code, said_states

_LOOK_EVERY = 0.5  # seconds
_WINDOW = 20.0  # seconds over which rates are measured
_QUIET = 15.0  # seconds without any change after which we say what may be wrong
_MOST_RUNNING = 500  # records of running jobs per look; of more than these a sample
_SHOWN = 10  # running files with a bar
_NAMED = 3  # ... with a line where there is no terminal
_MOST_READ = 50_000  # records in which the reasons of failed jobs are looked for
_REASONS = 3  # of a kind

# What may let a job of this kind succeed that is tried again.
_SETTINGS = {
    FailureKind.REFUSED: "DOWNPOUR_ALLOW_HOSTS, DOWNPOUR_ALLOW_NETWORKS and DOWNPOUR_ALLOW_PORTS of the workers"
    " allow more",
    FailureKind.TOO_LARGE: "DOWNPOUR_MAX_BYTES of the workers allows more",
    FailureKind.DEADLINE: "submit --deadline and DOWNPOUR_DEADLINE of the workers allow more",
    FailureKind.SLOW: "DOWNPOUR_LOW_SPEED of the workers allows less",
    FailureKind.TIMEOUT: "DOWNPOUR_READ_TIMEOUT of the workers allows longer silence",
}


@click.command()
@batch_argument
@click.option("--every", type=click.FloatRange(0.1), default=5.0, help="Seconds between plain lines.")
def watch(batch: str, every: float) -> int:
    """Show a batch's progress until every job has its end."""
    return show(Client(), batch, every)


def show(client: Client, name: str, every: float, *, to_stderr: bool = False) -> int:
    """Show the batch's progress until its end.

    Returns:
        The exit code: 0 if every job is done.
    """
    console = Console(stderr=to_stderr)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    lines = Lines(every, time.monotonic)
    code = 1
    with live or nullcontext():
        for snapshot in snapshots(client, name, every=min(every, _LOOK_EVERY)):
            code = exit_code(snapshot.batch)
            if live:
                live.update(panel(snapshot), refresh=True)
            for line in [] if live else lines.of(snapshot):
                click.echo(line, err=to_stderr)
    for line in failures(client, snapshot.batch):
        click.echo(line, err=to_stderr)
    return code


def failures(client: Client, batch: Batch) -> Iterator[str]:
    """Why jobs failed, by kind, and what to do about it; nothing if none did."""
    found: defaultdict[FailureKind | None, Counter[str]] = defaultdict(Counter)
    left = batch.count(JobState.FAILED)
    with redis_errors(client.settings):
        for record in islice(client.ledger.read_batch(batch), _MOST_READ if left else 0):
            if record.state is JobState.FAILED and (last := record.last):
                found[last.kind][printable(redact(last.reason or ""))] += 1
                left -= 1
            if not left:
                break
    for kind, reasons in found.items():
        yield f"{reasons.total():,} failed, {kind}:"
        for reason, count in reasons.most_common(_REASONS):
            yield f"  {reason}" + (f" ({count:,} jobs)" if count > 1 else "")
        if len(reasons) > _REASONS:
            yield f"  reasons beside these: {len(reasons) - _REASONS:,}"
        if kind in _SETTINGS:
            yield f"  {_SETTINGS[kind]}"
    if left:
        yield f"{left:,} more failed, beyond the first {_MOST_READ:,} jobs"
    if batch.count(JobState.FAILED):
        name = batch.name
        yield f"next: `producer results {name} --only failed` lists them, `producer retry {name}` tries them again"


@dataclass(frozen=True, slots=True)
class Snapshot:
    batch: Batch
    running: tuple[JobRecord, ...]  # longest-running first
    bytes: int  # of done and running jobs
    jobs_per_s: float = 0.0
    bytes_per_s: float = 0.0
    quiet_s: float = 0.0  # for how long nothing has changed
    away: str | None = None  # Redis does not answer; the rest is what we saw last

    @property
    def state(self) -> tuple[object, ...]:
        """What changes when anything moves."""
        return self.batch.counts, self.batch.total, self.bytes

    @property
    def ended(self) -> int:
        return self.batch.count(*FINAL_STATES)

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last job ends, if the rest goes like the last seconds did."""
        left = (self.batch.total or self.batch.known) - self.ended
        return left / self.jobs_per_s if left and self.jobs_per_s > 0 and self.batch.total is not None else None

    @property
    def remark(self) -> str | None:
        """Why nothing moves, as far as that can be told."""
        if self.away:
            return f"{self.away}; still trying"
        if self.quiet_s < _QUIET or self.batch.finished:
            return None
        still = f"nothing has changed for {self.quiet_s:.0f} s"
        if self.batch.total is None:
            return f"{still}; the submission was cut off after {self.batch.known} jobs: run its command again"
        if not self.batch.count(JobState.RUNNING) and self.batch.count(JobState.QUEUED):
            idle = [pool for pool, states in self.batch.counts.items() if states.get(JobState.QUEUED)]
            return f"{still}; is a worker running for {', '.join(idle)}, and the sweep?"
        return still

    @property
    def line(self) -> str:
        """Where the batch stands."""
        parts = [counts(self.batch), decimal(self.bytes)]
        if not self.batch.finished:
            parts.append(f"{self.jobs_per_s:,.1f} jobs/s, {decimal(int(self.bytes_per_s))}/s")
            if self.eta_s is not None:
                parts.append(f"about {timedelta(seconds=round(self.eta_s))} left")
        return f"{self.batch.name}: {', '.join(parts)}"


def snapshots(client: Client, name: str, *, every: float) -> Iterator[Snapshot]:
    """Until the batch has finished.

    Args:
        every: seconds between two looks.

    Raises:
        UnknownBatchError: there is none of this name, or Redis forgot it.
        RedisUnusableError: no answer at the first look, or later for ``redis_patience``.
    """
    seen: deque[tuple[float, Snapshot]] = deque()  # of the last seconds, and when
    changed = answered = time.monotonic()
    while True:
        try:
            batch, running = _look(client, name)
        except RedisUnusableError as error:
            if not seen or time.monotonic() - answered > client.settings.redis_patience:
                raise
            yield replace(seen[-1][1], away=str(error))
            time.sleep(every)
            continue
        now = answered = time.monotonic()
        found = Snapshot(batch, running, sum(batch.bytes_done.values()) + sum(record.bytes for record in running))
        if not seen or found.state != seen[-1][1].state:
            changed = now
        while len(seen) > 1 and seen[1][0] <= now - _WINDOW:
            seen.popleft()
        if seen and now > seen[0][0]:
            took, first = now - seen[0][0], seen[0][1]
            found = replace(
                found,
                jobs_per_s=max(found.ended - first.ended, 0) / took,
                bytes_per_s=max(found.bytes - first.bytes, 0) / took,
                quiet_s=now - changed,
            )
        seen.append((now, found))
        yield found
        if batch.finished:
            return
        time.sleep(every)


def _look(client: Client, name: str) -> tuple[Batch, tuple[JobRecord, ...]]:
    with redis_errors(client.settings):
        batch, ledger = client.batch(name), client.ledger
        ids = ledger.redis.srandmember(ledger.keys.running(name), _MOST_RUNNING)
        running = [record for record in ledger.read(map(str, ids or ())) if record.started is not None]
    return batch, tuple(sorted(running, key=lambda record: (record.started or 0, record.id)))


class Lines:
    """The lines of a watch without a terminal: at once, on a change every few seconds, and at the end."""

    def __init__(self, every: float, clock: Callable[[], float]) -> None:
        self._every = every
        self._clock = clock
        self._said_at = float("-inf")
        self._state: tuple[object, ...] = ()
        self._remarked = False

    def of(self, snapshot: Snapshot) -> list[str]:
        """What to print for this look; mostly nothing."""
        said: list[str] = []
        due = self._clock() - self._said_at >= self._every
        if snapshot.state != self._state and (due or snapshot.batch.finished):
            self._state, self._said_at = snapshot.state, self._clock()
            said.append(snapshot.line)
            known = [each for each in snapshot.running if each.executor][:_NAMED]
            said += [f"  {printable(each.job.filename)}: {_detail(each)}" for each in known]
        if snapshot.remark and not self._remarked:
            said.append(f"{snapshot.batch.name}: {snapshot.remark}")
        self._remarked = snapshot.remark is not None
        return said


def panel(snapshot: Snapshot) -> RenderableType:
    """The whole picture: the line, a bar per pool, a bar per running file."""
    bars = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(30), TextColumn("{task.fields[detail]}", markup=False)
    )
    for pool in Pool:
        states = snapshot.batch.counts[pool]
        if total := sum(states.values()):
            ended = sum(states.get(state, 0) for state in FINAL_STATES)
            detail = f"{said_states(states)}, {decimal(snapshot.batch.bytes_done[pool])}"
            bars.add_task(pool.value, total=total, completed=ended, detail=detail)
    for record in snapshot.running[:_SHOWN]:
        known = record.total or record.job.size
        bars.add_task(printable(record.job.filename), total=known, completed=record.bytes, detail=_detail(record))
    parts: list[RenderableType] = [Text(snapshot.line, style="bold"), bars]
    if len(snapshot.running) > _SHOWN:
        parts.append(Text(f"and {len(snapshot.running) - _SHOWN} more"))
    if snapshot.remark:
        parts.append(Text(snapshot.remark, style="yellow"))
    return Group(*parts)


def _detail(record: JobRecord) -> str:
    """Of a running file: ``5 MB of 10 MB, thread 8 of pid 7``"""
    known, who = record.total or record.job.size, record.executor
    size = decimal(record.bytes) + (f" of {decimal(known)}" if known else "")
    return f"{size}, {_name(who)}" if who else size


def _name(who: Executor) -> str:
    if who.greenlet is not None:
        return f"greenlet {who.greenlet} of pid {who.pid}"
    return f"pid {who.pid}" if who.thread == who.pid else f"thread {who.thread} of pid {who.pid}"
