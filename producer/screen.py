"""How a batch looks while it is watched: a panel on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ledger.jobs import Batch, JobRecord, JobState, Pool
from producer.results import iso, printable
from producer.watch import Snapshot

_SHOWN = 10  # running files with a bar
_STATES = (JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.RUNNING, JobState.WAITING, JobState.QUEUED)


def counts(batch: Batch) -> str:
    """``12/1,000 done, 1 failed, 4 running, 983 queued``: what is zero is left out, but for the jobs done."""
    total = batch.known if batch.total is None else batch.total
    others = [f"{count:,} {state}" for state in _STATES[1:] if (count := batch.count(state))]
    unsealed = ["submission incomplete"] if batch.total is None else []
    return ", ".join([f"{batch.count(JobState.DONE):,}/{total:,} done", *others, *unsealed])


def status_line(batch: Batch) -> str:
    created = datetime.fromtimestamp(batch.created, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"{batch.name}  {created}  {counts(batch)}, {decimal(sum(batch.bytes_done.values()))}"


def counters(batch: Batch, dead: Mapping[Pool, int]) -> dict[str, Any]:
    """For ``status --json``.

    Args:
        dead: how many dead letters each pool has, whichever batch is meant.
    """
    return {
        "batch": batch.name,
        "created": iso(batch.created),
        "total": batch.total,
        "known": batch.known,
        "finished": batch.finished,
        **{str(state): batch.count(state) for state in JobState},
        "bytes": sum(batch.bytes_done.values()),
        "pools": {
            str(pool): {
                **{str(state): states.get(state, 0) for state in JobState},
                "bytes": batch.bytes_done[pool],
                "dead_letters": dead[pool],
            }
            for pool, states in batch.counts.items()
        },
    }


def plain(snapshot: Snapshot) -> str:
    """One line that says where the batch stands."""
    parts = [counts(snapshot.batch), decimal(snapshot.bytes)]
    if not snapshot.batch.finished:
        parts.append(f"{snapshot.jobs_per_s:,.1f} jobs/s, {decimal(int(snapshot.bytes_per_s))}/s")
        if snapshot.eta_s is not None:
            parts.append(f"about {_duration(snapshot.eta_s)} left")
    return f"{snapshot.batch.name}: {', '.join(parts)}"


class Lines:
    """The lines of a watch without a terminal: at once, on a change every few seconds, and at the end."""

    def __init__(self, every: float, clock: Callable[[], float]) -> None:
        self._every = every
        self._clock = clock
        self._said_at = float("-inf")
        self._state = ""
        self._remarked = False

    def of(self, snapshot: Snapshot) -> list[str]:
        """What to print for this look; mostly nothing."""
        said: list[str] = []
        state = f"{counts(snapshot.batch)} {snapshot.bytes}"
        due = self._clock() - self._said_at >= self._every
        if state != self._state and (due or snapshot.batch.finished):
            self._state, self._said_at = state, self._clock()
            said.append(plain(snapshot))
        if snapshot.remark is None:
            self._remarked = False
        elif not self._remarked:
            self._remarked = True
            said.append(f"{snapshot.batch.name}: {snapshot.remark}")
        return said


def panel(snapshot: Snapshot) -> RenderableType:
    """The whole picture: the line, a row per pool, the files under way."""
    parts: list[RenderableType] = [Text(plain(snapshot), style="bold"), _pools(snapshot.batch)]
    if snapshot.running:
        parts.append(_running(snapshot.running))
    if snapshot.remark:
        parts.append(Text(snapshot.remark, style="yellow"))
    return Group(*parts)


def _pools(batch: Batch) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("pool")
    for state in _STATES:
        table.add_column(state.value, justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("")
    for pool in Pool:
        states = batch.counts[pool]
        total = sum(states.values())
        if not total:
            continue
        ended = sum(states.get(state, 0) for state in _STATES[:3])
        numbers = [f"{states.get(state, 0):,}" for state in _STATES]
        table.add_row(pool.value, *numbers, decimal(batch.bytes_done[pool]), ProgressBar(total, ended, width=30))
    return table


def _running(records: tuple[JobRecord, ...]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for record in records[:_SHOWN]:
        known = record.total or record.job.size
        bar = ProgressBar(known or 1, min(record.bytes, known or 1), width=30) if known else Text("")
        size = decimal(record.bytes) + (f" of {decimal(known)}" if known else "")
        table.add_row(record.pool.value, Text(printable(record.job.filename), overflow="ellipsis"), bar, size)
    if len(records) > _SHOWN:
        table.add_row("", f"and {len(records) - _SHOWN} more", "", "")
    return table


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
