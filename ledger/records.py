"""What lies in Redis: its keys, and how a record lies in its hash.

Scripts build the keys of the jobs they touch from the prefix, so the ledger needs a single Redis, not a cluster.

===========================  ======  ==============================================================================
key (after the prefix)       type    content
===========================  ======  ==============================================================================
job:BATCH.N                  hash    one record; its fields are below
batch:BATCH                  hash    counters ``<pool><state>`` by letter, bytes ``<pool>b``; ``created``, ``sealed``,
                                     ``ended`` (when the last job did so far), ``deadline``, ``pruning``
batch:BATCH:running          set     ids of its running jobs
batch:BATCH:names            hash    filename, folded → ordinal, where servers name files
batches                      zset    batch names by creation time
sent:POOL                    zset    refs of messages that lie on the queue, in its order
hand:POOL                    zset    refs of messages that a process may have in hand, by when that was last known
resend:POOL                  list    ids of queued jobs that need a message now
due                          zset    ids of waiting jobs by due time
deadlines                    zset    ids of jobs that were claimed and are not final, by when their time is used up
paused                       set     pools whose jobs stay queued for now
drained                      set     names of workers that take nothing new
unwell                       hash    worker → fault of its machine, JSON, while it takes nothing new; ``worker.machine``
suspects:POOL                zset    ids of queued jobs that may have killed their process, the next to be tried first
trial:POOL                   hash    those of them that were let run, and since when they have, ledger clock
incarnations                 hash    incarnation id → what process it is, JSON
leases                       hash    incarnation id → its end, ms of the ledger clock; or how it ended: ended, died
held:INCARNATION             set     ids of the jobs it runs
cancel:INCARNATION           set     ``ID NUMBER`` of those of its claims that should stop
host:HOST                    hash    its cool-down and its rate; with :slots :queue :woken, see ``lua/host_limits.lua``
hosts                        set     hosts that jobs wait for
clock                        hash    the ledger clock: ``shift`` against Redis' own, ``last`` moment, ``gap``, all in ms
dead                         set     incarnations whose jobs are being taken over
downloads.POOL               list    Celery's queue
dead-letters:POOL            list    what lay on the queue and is no message of ours, newest first; ``dead_letters``
===========================  ======  ==============================================================================

A record has one-letter fields, times in whole milliseconds, JSON without blanks. A job takes some 800 bytes of Redis
while it is queued, its message included, and less than 400 once it is done: what can be told from something else is
left out, and a digest is 43 letters. ``tests/pools/test_memory.py`` measures it.

=====  ===============================================================================================
field  content
=====  ===============================================================================================
s      state, one letter (``STATE_LETTERS``)
p      pool, one letter (``POOL_LETTERS``)
j      the job, ``[url, filename, sha256, size, options]``, without trailing nulls; 0 for a filename that ends the path;
       once it is done, without the values of its headers
q      queued at, ms
n      claims so far; with ``h`` the token that a holder shows to change the record
h      the incarnation that holds or last held it
t k    claimed at, ms; by which call, after a colon Flower's row (running)
b z    bytes on disk, announced length
w      who runs it, as in ``a``; noted with its progress       (running)
x      cancel requested                                        (running)
f      final filename, if a server proposed another one, or a file that is not the job's had its name
m      the host whose slot it has (running), or in whose queue it is (waiting)
l      losses that count: how often its holder died while it ran alone, or was tried alone
y      losses in company: how often its holder died together with other jobs, or with its whole prefork worker
e      end of its time, if limited, ms of the ledger clock     (from the first claim until it is final)
a      closed attempts, JSON rows joined by commas; they begin so many ms after ``q``
d      sha256, unless it is the expected one                   (done)
v      attempts made before it was submitted again: history
o      notes, JSON                                             (done)
u      ETag and Last-Modified, see ``encode_validators``       (done)
r      where redirects led to, without the query               (done)
g      ms that its step took, with one decimal                 (done)
c      Content-Type, unless it is ``UNKNOWN_TYPE``              (done)
=====  ===============================================================================================

The test that keeps both directions equal: ``tests/unit/test_records.py``.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import Any

from ledger.jobs import Attempt, Batch, Executor, FailureKind, Job, JobRecord, JobState, Naming, Pool

STATE_LETTERS = {state: state.value[0] for state in JobState}  # q w r d f c
POOL_LETTERS = {pool: pool.value[0] for pool in Pool}  # p t g
_quoted = json.encoder.encode_basestring
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)  # made once: that halves the time of a submission
_URLSAFE = str.maketrans("-_", "+/")
_raw = json.JSONDecoder().raw_decode
STATES = {letter: state for state, letter in STATE_LETTERS.items()}
POOLS = {letter: pool for pool, letter in POOL_LETTERS.items()}


class Keys:
    """Names of the keys above, for what is read without a script."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.batches = f"{prefix}batches"
        self.paused = f"{prefix}paused"
        self.drained = f"{prefix}drained"
        self.unwell = f"{prefix}unwell"
        self.incarnations = f"{prefix}incarnations"
        self.hosts = f"{prefix}hosts"
        self.dead = f"{prefix}dead"

    def job(self, id_: str) -> str:
        return f"{self.prefix}job:{id_}"

    def batch(self, name: str) -> str:
        return f"{self.prefix}batch:{name}"

    def running(self, batch: str) -> str:
        return f"{self.batch(batch)}:running"

    def names(self, batch: str) -> str:
        return f"{self.batch(batch)}:names"

    def hand(self, pool: Pool) -> str:
        return f"{self.prefix}hand:{pool}"

    def held(self, incarnation: str) -> str:
        return f"{self.prefix}held:{incarnation}"

    def queue(self, pool: Pool) -> str:
        return f"{self.prefix}{pool.queue}"

    def dead_letters(self, pool: Pool) -> str:
        return f"{self.prefix}dead-letters:{pool}"

    def events(self, routing_key: str, database: int) -> str:
        """The channel of Celery's events; kombu writes the database's number into its name."""
        return f"{self.prefix}/{database}.celeryev/{routing_key}"


def _compact(values: list[Any]) -> str:
    while values and values[-1] is None:
        values.pop()
    return _JSON.encode(values)


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
    return text[1:] if text.startswith("=") else a2b_base64(f"{text}=".translate(_URLSAFE)).hex()


def _end_of_path(url: str) -> str:
    """Plain cutting, the same in every version of Python: most filenames are just that."""
    return url.partition("?")[0].rpartition("/")[2]


def _options(job: Job) -> dict[str, Any] | None:
    """What few jobs have. None: nothing of it, and it takes no room."""
    if job.plain and job.digest is None:
        return None
    options = {"h": dict(job.headers), "m": job.mirrors, "n": int(job.naming), "s": job.step, "d": job.digest}
    return {name: value for name, value in options.items() if value}


def encode_job(job: Job) -> str:
    filename = None if job.filename == _end_of_path(job.url) else job.filename
    sha256 = None if job.sha256 is None else encode_digest(job.sha256)
    options = _options(job)
    left_out = job.size is not None or sha256 is not None or options is not None
    if filename is None and not left_out:
        return f"[{_quoted(job.url)}]"  # most jobs; an encoder for a list is made anew each time
    return _compact([job.url, 0 if filename is None and left_out else filename, sha256, job.size, options])


def _read(text: str) -> Any:
    """As ``json.loads``, which takes twice as long for texts as short as these."""
    value, end = _raw(text)
    if end != len(text):
        raise ValueError(f"expected JSON and no more, got {len(text) - end} more characters")
    return value


def decode_job(text: str) -> Job:
    row = _read(text)
    if len(row) == 1:  # most jobs
        return Job(row[0], _end_of_path(row[0]))
    url, filename, sha256, size, options = _padded(row, 5)
    options = options or {}
    return Job(
        url=url,
        filename=filename if isinstance(filename, str) else _end_of_path(url),
        sha256=None if sha256 is None else decode_digest(sha256),
        size=size,
        headers=tuple(options.get("h", {}).items()),
        mirrors=tuple(options.get("m", ())),
        naming=Naming(options.get("n", 0)),
        step=options.get("s"),
        digest=options.get("d"),
    )


def encode_attempt(attempt: Attempt, queued: float) -> str:
    """Executor and start first, then what happened; the start is in ms since the job was queued, the rest since it."""
    started, first_byte = attempt.started, attempt.first_byte
    times = [
        round(started * 1000) - round(queued * 1000),
        round((attempt.finished - started) * 1000),
        None if first_byte is None else round((first_byte - started) * 1000),
    ]
    row = _compact([*times, attempt.bytes, attempt.status, attempt.kind, attempt.reason])
    return f"[{encode_executor(attempt.executor)},{row[1:]}"


@lru_cache(1000)  # one for all jobs of a chunk
def encode_executor(who: Executor | None) -> str:
    """Processes and greenlets run in the main thread, whose id is the pid: 0."""
    if who is None:
        return "null"
    thread = 0 if who.thread == who.pid else who.thread
    return _compact([_short(who.worker), who.pid, thread, who.greenlet])


def _short(worker: str) -> str:
    """``threads@host`` is ``@thost``: most workers are named after their pool."""
    name, at, host = worker.partition("@")
    if at and name in tuple(Pool):
        return f"@{name[0]}{host}"
    return f"@={worker}" if worker.startswith("@") else worker


def _long(worker: str) -> str:
    if not worker.startswith("@"):
        return worker
    pool = POOLS.get(worker[1])
    return f"{pool}@{worker[2:]}" if pool else worker[2:]


def decode_attempts(text: str, queued: float) -> tuple[Attempt, ...]:
    begin = round(queued * 1000)
    return tuple(_decode_attempt(row, begin) for row in _read(f"[{text}]"))


def _decode_attempt(row: list[Any], begin: int) -> Attempt:
    who, started, took, first, received, status, kind, reason = _padded(row, 8)
    started += begin
    return Attempt(
        executor=_decode_executor(who),
        started=started / 1000,
        finished=(started + took) / 1000,
        first_byte=None if first is None else (started + first) / 1000,
        bytes=received or 0,
        status=status,
        kind=FailureKind(kind) if kind else None,
        reason=reason,
    )


def _decode_executor(who: list[Any] | None) -> Executor | None:
    return _who(*who[:4]) if who else None


@lru_cache(1000)
def _who(worker: str, pid: int, thread: int | None = None, greenlet: int | None = None) -> Executor:
    return Executor(_long(worker), pid, thread or pid, greenlet)


LONGEST_URL, LONGEST_TYPE = 500, 100  # characters
UNKNOWN_TYPE = "application/octet-stream"  # says as much as no type (RFC 9110)
LONGEST_ETAG = 72  # characters of an ETag: a sha256 in hexadecimal fits, with its quotes
_TEXT = r'(?:W/)?"[\x21\x23-\x7e\xa1-\xac\xae-\xff]*'  # printable
_ETAG = re.compile(f'{_TEXT}"')
_STORED = re.compile(f"([0-9a-z]*)({_TEXT})?")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def encode_validators(etag: str | None, last_modified: str | None) -> str:
    """Seconds since the epoch to the base of 36, then the ETag without its last quote; empty if there is neither.

    They take few bytes: a long ETag is left out, and so is a date that is not written as HTTP wants it. The worker
    itself asks with an attribute of the file.
    """
    kept = etag[:-1] if etag and len(etag) <= LONGEST_ETAG and _ETAG.fullmatch(etag) else ""
    return (_date(last_modified) if last_modified else "") + kept


def decode_validators(text: str | None) -> tuple[str | None, str | None]:
    """ETag and Last-Modified as the server wrote them."""
    match = _STORED.fullmatch(text or "")
    if match is None:
        return None, None
    seconds, etag = match.groups()
    return etag and f'{etag}"', _http_date(seconds) if seconds else None


@lru_cache(1000)
def _http_date(seconds: str) -> str:
    return formatdate(int(seconds, 36), usegmt=True)


@lru_cache(1000)  # files of one server often have one date
def _date(text: str) -> str:
    try:
        seconds = int(parsedate_to_datetime(text).timestamp())
        if seconds < 0 or formatdate(seconds, usegmt=True) != text:
            return ""
    except (ValueError, OverflowError, OSError):
        return ""
    digits = ""
    while seconds or not digits:
        seconds, digit = divmod(seconds, 36)
        digits = _DIGITS[digit] + digits
    return digits


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


@lru_cache(1000)  # of most jobs the same
def _notes(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, IndexError)  # raised by ``decode``


def decode_unreadable(id_: str, fields: Any, error: Exception) -> JobRecord:
    """What can be said of a record that ``decode`` does not take: where it stands, and that it cannot be read."""
    have = fields if isinstance(fields, Mapping) else {}
    reason = f"its record cannot be read: {error!r}"
    attempt = Attempt(None, 0.0, 0.0, kind=FailureKind.INTERNAL, reason=reason)
    return JobRecord(
        id=id_,
        job=Job("", id_),
        pool=POOLS.get(str(have.get("p")), Pool.THREADS),
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
        pool=POOLS[fields["p"]],
        state=state,
        queued=queued,
        attempts=decode_attempts(fields["a"], queued) if "a" in fields else (),
        started=_seconds(fields.get("t")),
        executor=_decode_executor(json.loads(fields["w"])) if "w" in fields and state is JobState.RUNNING else None,
        deadline=_seconds(fields.get("e")),
        bytes=int(size or 0),
        total=None if total is None else int(total),
        sha256=sha256,
        notes=_notes(fields["o"]) if "o" in fields else (),
        etag=etag,
        last_modified=last_modified,
        final_url=fields.get("r"),
        content_type=fields.get("c"),
        name=fields.get("f"),
        step=float(fields["g"]) / 1000 if "g" in fields else None,
        before=int(fields.get("v", 0)),
        weight=2 * int(fields.get("l", 0)) + int(fields.get("y", 0)),
    )
