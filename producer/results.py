"""What became of a batch and of its jobs: counters, and rows for people and for programs, one record at a time.

csv and jsonl have the fields of ``_fields``, in this order; jsonl also has ``attempt_list``, every attempt, and what
few jobs have, ``headers`` and ``mirrors``. Executor and times are those of the last attempt. Times are ISO 8601 in UTC,
with milliseconds. Passwords and tokens in URLs and the values of headers are not shown.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache, partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import click
from rich.filesize import decimal

from download.errors import fit_to_show, printable, redact
from ledger.jobs import Attempt, Batch, Executor, Job, JobRecord, JobState, Pool, job_id
from producer.cli import batch_argument, one_of, say
from producer.client import Client, redis_errors

_JSON = json.JSONEncoder(ensure_ascii=False, check_circular=False)  # made once: ``dumps`` makes one for each row
_PAGE = 2_000  # jobs whose lines are made at once
_FEW = 20_000  # jobs that are not worth the start of more processes
_STATES = (JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.RUNNING, JobState.WAITING, JobState.QUEUED)


class Style(StrEnum):
    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


@click.command()
@batch_argument
@click.option("--format", "style", type=one_of(Style), default="table")
@click.option("--only", type=one_of(JobState), multiple=True, help="Jobs in this state; may be repeated.")
def results(batch: str, style: str, only: Sequence[str]) -> int:
    """Print what became of each job."""
    client = Client()
    found = client.batch(batch)
    expected, seen = found.total or found.known, 0
    with redis_errors(client.settings):
        many = expected > _FEW
        page = partial(_page, None if many else client, found.name, Style(style), only)
        pages = [range(first, min(first + _PAGE, expected)) for first in range(0, max(1, expected), _PAGE)]
        for read, text in (_spread if many else map)(page, pages):
            seen += read
            if text:
                click.echo(text)
    if seen != expected:
        say(f"expected {expected} records, Redis has {seen}: it lost the others")
        return 1
    return exit_code(found)


def _spread(page: Callable[[range], tuple[int, str]], pages: Iterable[range]) -> Iterator[tuple[int, str]]:
    """As ``map``, by a process for each core, because records take CPU alone."""
    cores, ahead = os.cpu_count() or 1, deque[futures.Future[tuple[int, str]]]()
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them, too
    with futures.ProcessPoolExecutor(cores, initializer=ignore) as processes:
        for ordinals in pages:
            ahead.append(processes.submit(page, ordinals))
            if len(ahead) > 2 * cores:  # the reader may be slow
                yield ahead.popleft().result()
        for future in ahead:
            yield future.result()


def _page(client: Client | None, batch: str, style: Style, only: Sequence[str], ordinals: range) -> tuple[int, str]:
    """How many of these jobs have records, and their lines; the first page begins with what heads the lines.

    Args:
        client: None: the process makes one of its own.
    """
    records = list((client or _own_client()).ledger.read(job_id(batch, ordinal) for ordinal in ordinals))
    found = lines((record for record in records if not only or record.state in only), style)
    if ordinals.start and style is not Style.JSONL:
        next(found)
    return len(records), "\n".join(found)


@cache
def _own_client() -> Client:
    return Client()


def exit_code(batch: Batch) -> int:
    """0 if every job of the batch is done, 1 if not."""
    return 0 if batch.finished and batch.count(JobState.DONE) == batch.total else 1


# -- a batch


def counts(batch: Batch) -> str:
    """``12/1,000 done, 1 failed, 4 running, 983 queued``: what is zero is left out, but for the jobs done."""
    total = batch.known if batch.total is None else batch.total
    others = said_states({state: batch.count(state) for state in JobState if state is not JobState.DONE})
    unsealed = "submission incomplete" if batch.total is None else ""
    return ", ".join(filter(None, [f"{batch.count(JobState.DONE):,}/{total:,} done", others, unsealed]))


def said_states(counted: Mapping[JobState, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state in _STATES if (count := counted.get(state, 0)))


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


# -- jobs


def lines(records: Iterable[JobRecord], style: Style) -> Iterator[str]:
    """The results as lines without their line ends, streamed."""
    return {Style.TABLE: _table, Style.JSONL: _jsonl, Style.CSV: _csv}[style](records)


def _fields(record: JobRecord) -> dict[str, Any]:
    last, running = record.last, record.state is JobState.RUNNING
    final = last if record.state.final else None  # the attempt with which it ended
    failed = last if record.state is not JobState.DONE else None
    return {
        "id": record.id,
        "url": redact(record.job.url),
        "pool": record.pool,
        **_who(record.executor or (last.executor if last else None)),
        "attempts": len(record.attempts) + running,
        "queued": iso(record.queued),
        "started": iso(record.started if running else (last.started if last else None)),
        "first_byte": iso(last.first_byte if last and not running else None),
        "finished": iso(final.finished if final else None),
        "bytes": record.bytes,
        "length": record.total,  # of the whole file, as announced; once done as it is
        "sha256": record.sha256,
        "etag": record.etag,  # of the answer that brought the file; None if it is too long to keep
        "last_modified": record.last_modified,
        "path": record.path if record.state is JobState.DONE else None,  # below the downloads folder
        "outcome": record.state,
        "kind": failed and failed.kind,
        "reason": failed and _shown(failed.reason),
        "notes": "; ".join(record.notes),
        "final_url": record.final_url and redact(record.final_url),  # where redirects led to
        "content_type": record.content_type,  # None: no type, or application/octet-stream, which says as much
    }


def _who(executor: Executor | None) -> dict[str, Any]:
    who = executor or _NOBODY
    return {"worker": who.worker, "pid": who.pid, "thread": who.thread, "greenlet": who.greenlet}  # asdict is slow


def _shown(reason: str | None) -> str | None:
    return fit_to_show(reason) if reason else None  # an older worker may have written it


def _jsonl(records: Iterable[JobRecord]) -> Iterator[str]:
    for record in records:
        fields = _fields(record)
        if record.job.headers:
            fields["headers"] = {name: "***" for name, _ in record.job.headers}
        if record.job.mirrors:
            fields["mirrors"] = [redact(url) for url in record.job.mirrors]
        fields["attempt_list"] = [_attempt(attempt) for attempt in record.attempts]
        yield _JSON.encode(fields)


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return _who(attempt.executor) | {
        "started": iso(attempt.started),
        "first_byte": iso(attempt.first_byte),
        "finished": iso(attempt.finished),
        "bytes": attempt.bytes,
        "seconds": round(attempt.finished - attempt.started, 3),
        "status": attempt.status,
        "kind": attempt.kind,
        "reason": _shown(attempt.reason),
    }


_NOBODY: Any = SimpleNamespace(worker=None, pid=None, thread=None, greenlet=None)
_NOTHING = JobRecord("", Job("", ""), Pool.THREADS, JobState.QUEUED, 0.0)


def _csv(records: Iterable[JobRecord]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")
    for values in chain([_fields(_NOTHING)], (_fields(record).values() for record in records)):
        writer.writerow(values)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _table(records: Iterable[JobRecord]) -> Iterator[str]:
    """Fixed widths, so that a million rows can flow."""
    template = "{:>8}  {:<9}  {:<7}  {:>5}  {:>9}  {:>8}  {}"
    yield template.format("job", "outcome", "pool", "tries", "bytes", "seconds", "file or reason")
    for record in records:
        row, last = _fields(record), record.last
        seconds = f"{last.finished - last.started:.2f}" if last and row["finished"] else ""
        what = row["path"] or record.job.filename
        if row["kind"]:
            what = f"{row['kind']}: {row['reason']} ({row['url']})"
        ordinal = record.id.rpartition(".")[2]
        size = decimal(record.bytes) if record.bytes else ""
        cells = (ordinal, row["outcome"], row["pool"], row["attempts"], size, seconds, printable(what))
        yield template.format(*cells).rstrip()


def iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    whole, fraction = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_second(whole)}.{fraction // 1000:03}Z"


@lru_cache(10_000)  # jobs that ran at once have their moments in the same seconds
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
