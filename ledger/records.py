"""How a record lies in its Redis hash: one-letter fields, times in whole milliseconds, JSON without blanks.

A job takes some 800 bytes of Redis while it is queued, its message included, and less than 400 once it is done: what
can be told from something else is left out, and a digest is 43 letters. ``tests/pools/test_memory.py`` measures it.

=====  ===============================================================================================
field  content
=====  ===============================================================================================
s      state, one letter (``STATE_LETTERS``)
p      pool, one letter (``POOL_LETTERS``)
j      the job, ``[url, filename, sha256, size, options]``, without trailing nulls; 0 for a filename that ends the path
q      queued at, ms
n      claims so far; with ``h`` the token that a holder shows to change the record
h      the incarnation that holds or last held it
t k    claimed at, ms, and by which call                       (running)
b z    bytes on disk, announced length
x      cancel requested                                        (running)
f      final filename, if a server proposed another one
m      the host whose slot it has (running), or in whose queue it is (waiting)
l      losses that count: how often its holder died while it ran alone, or was on trial
y      losses in company: how often its holder died together with other jobs
e      when its time is used up, ms of the ledger clock        (from the first claim until it is final)
a      closed attempts, JSON rows joined by commas; they begin so many ms after ``q``
d      sha256, unless it is the expected one                   (done)
v      attempts made before it was submitted again: history
o      notes, JSON                                             (done)
u      ETag and Last-Modified, see ``ledger.validators``       (done)
=====  ===============================================================================================

The test that keeps both directions equal: ``tests/unit/test_records.py``.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ledger.books import Batch
from ledger.jobs import Attempt, Executor, FailureKind, Job, JobRecord, JobState, Naming, Pool
from ledger.validators import decode_validators

STATE_LETTERS = {state: state.value[0] for state in JobState}  # q w r d f c
POOL_LETTERS = {pool: pool.value[0] for pool in Pool}  # p t g
_POOL_NAMES = frozenset(pool.value for pool in Pool)
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)  # made once: that halves the time of a submission
STATES = {letter: state for state, letter in STATE_LETTERS.items()}
_POOLS = {letter: pool for pool, letter in POOL_LETTERS.items()}


def _compact(values: list[Any]) -> str:
    while values and values[-1] is None:
        values.pop()
    return _JSON.encode(values)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _seconds(ms: Any) -> float | None:
    return None if ms is None else int(ms) / 1000


def _padded(values: list[Any], length: int) -> list[Any]:
    return values + [None] * (length - len(values))


def encode_digest(sha256: str) -> str:
    """64 hex digits as 43 letters; what is no such digest stays as it is, marked."""
    try:
        raw = bytes.fromhex(sha256)
    except ValueError:
        raw = b""
    return urlsafe_b64encode(raw)[:-1].decode() if len(raw) == 32 and raw.hex() == sha256 else f"={sha256}"


def decode_digest(text: str) -> str:
    return text[1:] if text.startswith("=") else urlsafe_b64decode(f"{text}=").hex()


def _end_of_path(url: str) -> str:
    """Plain cutting, the same in every version of Python: most filenames are just that."""
    return url.partition("?")[0].rpartition("/")[2]


def _options(job: Job) -> dict[str, Any] | None:
    """What few jobs have: headers, mirrors, naming, step. None: nothing of it, and it takes no room."""
    options: dict[str, Any] = {}
    if job.headers:
        options["h"] = dict(job.headers)
    if job.mirrors:
        options["m"] = job.mirrors
    if job.naming:
        options["n"] = int(job.naming)
    if job.step:
        options["s"] = job.step
    return options or None


def _with_options(job: Job, options: Mapping[str, Any]) -> Job:
    return replace(
        job,
        headers=tuple(options.get("h", {}).items()),
        mirrors=tuple(options.get("m", ())),
        naming=Naming(options.get("n", 0)),
        step=options.get("s"),
    )


def encode_job(job: Job) -> str:
    filename = None if job.filename == _end_of_path(job.url) else job.filename
    sha256 = None if job.sha256 is None else encode_digest(job.sha256)
    options = None if job.plain else _options(job)
    left_out = job.size is not None or sha256 is not None or options is not None
    return _compact([job.url, 0 if filename is None and left_out else filename, sha256, job.size, options])


def decode_job(text: str) -> Job:
    url, filename, sha256, size, options = _padded(json.loads(text), 5)
    filename = filename if isinstance(filename, str) else _end_of_path(url)
    job = Job(url, filename, None if sha256 is None else decode_digest(sha256), size)
    return _with_options(job, options) if options else job


def encode_attempt(attempt: Attempt, queued: float) -> str:
    """Executor and start first, then what happened; the start is in ms since the job was queued, the rest since it."""
    row = _compact(
        [
            round(attempt.started * 1000) - round(queued * 1000),
            _ms(attempt.finished - attempt.started),
            _ms(None if attempt.first_byte is None else attempt.first_byte - attempt.started),
            attempt.bytes,
            attempt.status,
            attempt.kind,
            attempt.reason,
        ]
    )
    return f"[{_executor(attempt.executor)},{row[1:]}"


@lru_cache(1000)  # one for all jobs of a chunk
def _executor(who: Executor | None) -> str:
    """Processes and greenlets run in the main thread, whose id is the pid: 0."""
    if who is None:
        return "null"
    thread = 0 if who.thread == who.pid else who.thread
    return _compact([_short(who.worker), who.pid, thread, who.greenlet])


def _short(worker: str) -> str:
    """``threads@host`` is ``@thost``: most workers are named after their pool."""
    name, at, host = worker.partition("@")
    if at and name in _POOL_NAMES:
        return f"@{name[0]}{host}"
    return f"@={worker}" if worker.startswith("@") else worker


def _long(worker: str) -> str:
    if not worker.startswith("@"):
        return worker
    pool = _POOLS.get(worker[1])
    return f"{pool}@{worker[2:]}" if pool else worker[2:]


def decode_attempts(text: str, queued: float) -> tuple[Attempt, ...]:
    begin = round(queued * 1000)
    return tuple(_decode_attempt(row, begin) for row in json.loads(f"[{text}]"))


def _decode_attempt(row: list[Any], begin: int) -> Attempt:
    who, started, took, first, received, status, kind, reason = _padded(row, 8)
    started += begin
    if who:
        worker, pid, thread, greenlet = _padded(who, 4)
        who = Executor(_long(worker), pid, thread or pid, greenlet)
    return Attempt(
        executor=who or None,
        started=started / 1000,
        finished=(started + took) / 1000,
        first_byte=None if first is None else (started + first) / 1000,
        bytes=received or 0,
        status=status,
        kind=FailureKind(kind) if kind else None,
        reason=reason,
    )


def decode_batch(name: str, fields: Mapping[Any, Any]) -> Batch:
    """Read a batch's hash."""
    return Batch(
        name=name,
        created=int(fields["created"]) / 1000,
        total=int(fields["sealed"]) if "sealed" in fields else None,
        counts={
            pool: {state: int(fields.get(letter + STATE_LETTERS[state], 0)) for state in JobState}
            for pool, letter in POOL_LETTERS.items()
        },
        bytes_done={pool: int(fields.get(letter + "b", 0)) for pool, letter in POOL_LETTERS.items()},
        ended=int(fields["ended"]) / 1000 if "ended" in fields else None,
    )


UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, IndexError)  # raised by ``decode``


def decode_unreadable(id_: str, fields: Any, error: Exception) -> JobRecord:
    """What can be said of a record that ``decode`` does not take: where it stands, and that it cannot be read."""
    have = fields if isinstance(fields, Mapping) else {}
    reason = f"its record cannot be read: {error!r}"
    attempt = Attempt(None, 0.0, 0.0, kind=FailureKind.INTERNAL, reason=reason)
    return JobRecord(
        id=id_,
        job=Job("", id_),
        pool=_POOLS.get(str(have.get("p")), Pool.THREADS),
        state=STATES.get(str(have.get("s")), JobState.FAILED),
        queued=0.0,
        attempts=(attempt,),
        notes=(reason,),
    )


def decode(id_: str, fields: Mapping[str, str]) -> JobRecord:
    """Read a record's hash.

    Raises:
        KeyError, ValueError: this is not a record; ``ledger.Ledger`` never wrote it.
    """
    job, state, queued, size = decode_job(fields["j"]), STATES[fields["s"]], int(fields["q"]) / 1000, fields.get("b")
    sha256, total = fields.get("d"), fields.get("z")
    if state is JobState.DONE:  # then the announced length is the length
        sha256, total = decode_digest(sha256) if sha256 else job.sha256, size
    etag, last_modified = decode_validators(fields.get("u"))
    return JobRecord(
        id=id_,
        job=job,
        pool=_POOLS[fields["p"]],
        state=state,
        queued=queued,
        attempts=decode_attempts(fields["a"], queued) if "a" in fields else (),
        started=_seconds(fields.get("t")),
        deadline=_seconds(fields.get("e")),
        bytes=int(size or 0),
        total=None if total is None else int(total),
        sha256=sha256,
        notes=tuple(json.loads(fields["o"])) if "o" in fields else (),
        etag=etag,
        last_modified=last_modified,
        name=fields.get("f"),
        before=int(fields.get("v", 0)),
    )
