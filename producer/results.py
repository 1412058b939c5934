"""What became of a batch's jobs: rows for people and for programs, one record at a time.

csv and jsonl have the fields of ``Row``, in this order; jsonl also has ``attempt_list``, every attempt, and what few
jobs have, ``headers`` and ``mirrors``. Executor and times are those of the last attempt. Times are ISO 8601 in UTC,
with milliseconds. Passwords and tokens in URLs and the values of headers are not shown.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from rich.filesize import decimal

from ledger.jobs import Attempt, Job, JobRecord, JobState
from producer.urls import redact


class Style(StrEnum):
    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    url: str
    pool: str
    worker: str | None
    pid: int | None
    thread: int | None
    greenlet: int | None
    attempts: int
    queued: str
    started: str | None
    first_byte: str | None
    finished: str | None
    bytes: int
    length: int | None  # of the whole file, as announced; once done as it is
    sha256: str | None
    etag: str | None  # of the answer that brought the file, where they are not too long to keep
    last_modified: str | None
    path: str | None  # below the downloads folder; None while there is no file
    outcome: str  # the job's state
    kind: str | None
    reason: str | None
    notes: str  # separated by "; "


_NAMES = tuple(field.name for field in fields(Row))


def lines(records: Iterable[JobRecord], style: Style) -> Iterator[str]:
    """The results as lines without their line ends, streamed."""
    return {Style.TABLE: _table, Style.JSONL: _jsonl, Style.CSV: _csv}[style](records)


def row(record: JobRecord) -> Row:
    last = record.last
    who = last.executor if last else None
    running = record.state is JobState.RUNNING
    final = record.state.final and last is not None
    return Row(
        id=record.id,
        url=redact(record.job.url),
        pool=record.pool,
        worker=who.worker if who else None,
        pid=who.pid if who else None,
        thread=who.thread if who else None,
        greenlet=who.greenlet if who else None,
        attempts=len(record.attempts) + running,
        queued=iso(record.queued) or "",
        started=iso(record.started if running else last.started if last else None),
        first_byte=iso(last.first_byte if last and not running else None),
        finished=iso(last.finished if last and final else None),
        bytes=record.bytes,
        length=record.total,
        sha256=record.sha256,
        etag=record.etag,
        last_modified=record.last_modified,
        path=record.path if record.state is JobState.DONE else None,
        outcome=record.state,
        kind=last.kind if last and record.state is not JobState.DONE else None,
        reason=redact(last.reason) if last and last.reason and record.state is not JobState.DONE else None,
        notes="; ".join(record.notes),
    )


def _fields(record: JobRecord) -> dict[str, Any]:
    values = row(record)
    return {name: getattr(values, name) for name in _NAMES}


def _jsonl(records: Iterable[JobRecord]) -> Iterator[str]:
    for record in records:
        attempts = [_attempt(attempt) for attempt in record.attempts]
        yield json.dumps(_fields(record) | _options(record.job) | {"attempt_list": attempts}, ensure_ascii=False)


def _options(job: Job) -> dict[str, Any]:
    """What few jobs have. Of a header only its name is anybody's business."""
    options: dict[str, Any] = {}
    if job.headers:
        options["headers"] = {name: "***" for name, _ in job.headers}
    if job.mirrors:
        options["mirrors"] = [redact(url) for url in job.mirrors]
    return options


def _attempt(attempt: Attempt) -> dict[str, Any]:
    who = asdict(attempt.executor) if attempt.executor else dict.fromkeys(("worker", "pid", "thread", "greenlet"))
    return who | {
        "started": iso(attempt.started),
        "first_byte": iso(attempt.first_byte),
        "finished": iso(attempt.finished),
        "bytes": attempt.bytes,
        "seconds": round(attempt.finished - attempt.started, 3),
        "status": attempt.status,
        "kind": attempt.kind,
        "reason": redact(attempt.reason) if attempt.reason else None,
    }


def _csv(records: Iterable[JobRecord]) -> Iterator[str]:
    yield _csv_line(_NAMES)
    for record in records:
        yield _csv_line(_fields(record).values())


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _table(records: Iterable[JobRecord]) -> Iterator[str]:
    """Fixed widths, so that a million rows can flow."""
    template = "{:>8}  {:<9}  {:<7}  {:>5}  {:>9}  {:>8}  {}"
    yield template.format("job", "outcome", "pool", "tries", "bytes", "seconds", "file or reason")
    for record in records:
        values, last = row(record), record.last
        seconds = f"{last.finished - last.started:.2f}" if last and values.finished else ""
        what = values.path or (f"{values.kind}: {values.reason}" if values.kind else record.job.filename)
        if values.kind:
            what += f" ({values.url})"
        ordinal = record.id.rpartition(".")[2]
        size = decimal(record.bytes) if record.bytes else ""
        yield template.format(
            ordinal, values.outcome, values.pool, values.attempts, size, seconds, printable(what)
        ).rstrip()


def printable(text: str) -> str:
    """Text that others wrote, e.g. a server's reason: nothing in it may steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
