"""How a record lies in its Redis hash: one-letter fields, times in whole milliseconds, JSON without blanks.

=====  ===============================================================================================
field  content
=====  ===============================================================================================
s      state, one letter (``STATE_LETTERS``)
p      pool, one letter (``POOL_LETTERS``)
j      the job, ``[url, filename, sha256, size]``, trailing nulls left out
q      queued at, ms
n      claims so far; with ``h`` the token that a holder shows to change the record
h      the incarnation that holds or last held it
t k    claimed at, ms, and by which call                       (running)
b z    bytes on disk, announced length
x      cancel requested                                        (running)
l      losses: how often a holder died under it
a      closed attempts, JSON rows joined by commas
d      sha256                                                  (done)
o      notes, JSON                                             (done)
=====  ===============================================================================================

The test that keeps both directions equal: ``tests/unit/test_records.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ledger.jobs import Attempt, Executor, FailureKind, Job, JobRecord, JobState, Pool

STATE_LETTERS = {state: state.value[0] for state in JobState}  # q w r d f c
POOL_LETTERS = {pool: pool.value[0] for pool in Pool}  # p t g
_STATES = {letter: state for state, letter in STATE_LETTERS.items()}
_POOLS = {letter: pool for pool, letter in POOL_LETTERS.items()}


def _compact(values: list[Any]) -> str:
    while values and values[-1] is None:
        values.pop()
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _seconds(ms: Any) -> float | None:
    return None if ms is None else int(ms) / 1000


def _padded(values: list[Any], length: int) -> list[Any]:
    return values + [None] * (length - len(values))


def encode_job(job: Job) -> str:
    return _compact([job.url, job.filename, job.sha256, job.size])


def decode_job(text: str) -> Job:
    url, filename, sha256, size = _padded(json.loads(text), 4)
    return Job(url, filename, sha256, size)


def encode_attempt(attempt: Attempt) -> str:
    """Executor and start first, then what happened; times after the first are ms since the start."""
    who = attempt.executor
    return _compact(
        [
            [who.worker, who.pid, who.thread, who.greenlet] if who else None,
            _ms(attempt.started),
            _ms(attempt.finished - attempt.started),
            _ms(None if attempt.first_byte is None else attempt.first_byte - attempt.started),
            attempt.bytes,
            attempt.status,
            attempt.kind,
            attempt.reason,
        ]
    )


def decode_attempts(text: str) -> tuple[Attempt, ...]:
    return tuple(_decode_attempt(row) for row in json.loads(f"[{text}]"))


def _decode_attempt(row: list[Any]) -> Attempt:
    who, started, took, first, received, status, kind, reason = _padded(row, 8)
    return Attempt(
        executor=Executor(*who) if who else None,
        started=started / 1000,
        finished=(started + took) / 1000,
        first_byte=None if first is None else (started + first) / 1000,
        bytes=received or 0,
        status=status,
        kind=FailureKind(kind) if kind else None,
        reason=reason,
    )


def decode(id_: str, fields: Mapping[str, str]) -> JobRecord:
    """Read a record's hash.

    Raises:
        KeyError, ValueError: this is not a record; ``ledger.Ledger`` never wrote it.
    """
    return JobRecord(
        id=id_,
        job=decode_job(fields["j"]),
        pool=_POOLS[fields["p"]],
        state=_STATES[fields["s"]],
        queued=int(fields["q"]) / 1000,
        attempts=decode_attempts(fields.get("a", "")),
        started=_seconds(fields.get("t")),
        bytes=int(fields.get("b", 0)),
        total=int(fields["z"]) if "z" in fields else None,
        sha256=fields.get("d"),
        notes=tuple(json.loads(fields["o"])) if "o" in fields else (),
    )
