"""CONTRACT: what a job is, what can become of it, and which queue carries it.

Times are seconds since the epoch by Redis' clock, sizes are bytes. A *job* is one URL of a *batch*;
its id is ``BATCH.ORDINAL`` (``nightly.17``), so a batch is listed without an index and submitting
the same manifest twice under one name names the same jobs. A *ref* is what a message carries: a job
id, or a run of consecutive jobs, ``BATCH.FIRST-LAST``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

TASK_NAME = "downpour.download"
QUEUE_PREFIX = "downloads."
JOBS_PER_MESSAGE = 500  # at most

_BATCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_REF = re.compile(r"(?P<batch>[A-Za-z0-9][A-Za-z0-9_-]{0,63})\.(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?")


class Pool(StrEnum):
    """An execution pool; the worker's ``-P`` and its queue are named after it."""

    PREFORK = "prefork"  # a process per slot
    THREADS = "threads"  # a thread per slot, one process
    GEVENT = "gevent"  # a greenlet per slot, one thread

    @property
    def queue(self) -> str:
        return QUEUE_PREFIX + self.value


class JobState(StrEnum):
    """Where a job stands. The last three are final: a job reaches exactly one, and only ``retry`` leaves it."""

    QUEUED = "queued"  # a message for it exists, or the sweep will send one
    WAITING = "waiting"  # a retry is due later, or its host has no slot free
    RUNNING = "running"  # an incarnation holds it
    DONE = "done"  # the file is whole, verified, and carries its final name
    FAILED = "failed"  # see kind and reason
    CANCELLED = "cancelled"  # by request, before it was done

    @property
    def final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


class FailureKind(StrEnum):
    """Why an attempt or a job failed. ``download.errors`` says which kinds are transient."""

    # Transient: worth another attempt.
    DNS = "dns"  # the host name did not resolve
    CONNECT = "connect"  # no connection: refused, unreachable, timed out
    TIMEOUT = "timeout"  # connected, then nothing for too long
    SLOW = "slow"  # below the low-speed limit
    RESET = "reset"  # the connection broke in the middle
    TRUNCATED = "truncated"  # fewer bytes than announced
    PROTOCOL = "protocol"  # not HTTP, or HTTP that contradicts itself
    SERVER = "server"  # 408, 425, 429, 5xx; 202 and 403 with Retry-After
    CHANGED = "changed"  # the content changed while a resume was under way
    DISK_FULL = "disk-full"  # no space left for the temp file
    LOST = "lost"  # the holder died or lost its lease
    MACHINE = "machine"  # the worker's machine has no descriptors, threads or memory left, or its temp files vanish
    # Permanent: another attempt would fail in the same way.
    BAD_URL = "bad-url"  # not an http(s) URL that we accept
    REFUSED = "refused"  # the address policy says no
    TLS = "tls"  # a certificate was not accepted, or there is no common version
    STATUS = "status"  # any other 4xx, or a status without a file
    REDIRECT = "redirect"  # too many redirects, a loop, or https to http without a digest
    EMPTY = "empty"  # no byte came and nothing said that none should
    SIZE = "size"  # another length than the manifest asked for
    DIGEST = "digest"  # another digest than expected
    TOO_LARGE = "too-large"  # more than the size cap
    DEADLINE = "deadline"  # the job's total time is used up
    NAME = "name"  # no usable file name
    DISK = "disk"  # unwritable folder, read-only file system, ...
    STEP = "step"  # what was to be done with the file is not known here, or went wrong
    POISON = "poison"  # its process died under it too often
    INTERNAL = "internal"  # a bug in Downpour; the reason has the exception


# Attempts that ended so are not counted: they say nothing about the job. DISK without a fault of the machine is final.
UNCOUNTED_KINDS = frozenset({None, FailureKind.LOST, FailureKind.MACHINE, FailureKind.DISK, FailureKind.DISK_FULL})


class Naming(IntEnum):
    """Where the name of the file comes from."""

    FIXED = 0  # the manifest, or its URL
    RESERVED = 1  # the manifest, in a batch where servers name other files
    SERVER = 2  # the server, if it proposes a name; otherwise as FIXED


@dataclass(frozen=True, slots=True)
class Job:
    """What one line of a manifest asks for."""

    url: str
    filename: str  # a clean relative path below the batch's folder; unique in its batch, see ``folded``
    sha256: str | None = None  # expected, lower-case hex
    size: int | None = None  # expected, bytes
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # for the URL's own origin; may be secrets
    mirrors: tuple[str, ...] = ()  # URLs of the same file, tried in this order when a server is at fault
    naming: Naming = Naming.FIXED
    step: str | None = None  # what is done with the file before it gets its name; see download.steps
    digest: str | None = None  # a further one that is expected, ``ALGORITHM:lower-case hex``, as hashlib names them

    @property
    def plain(self) -> bool:
        """Whether URL, name and expectations are all there is to it."""
        return not (self.headers or self.mirrors or self.naming or self.step)

    @property
    def digests(self) -> tuple[str, ...]:
        """All that are expected, each as ``digest``."""
        return tuple(filter(None, (self.sha256 and f"sha256:{self.sha256}", self.digest)))

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url, *self.mirrors)

    @property
    def spent(self) -> Job:
        """What is kept of a job that is done: the values of its headers, which may be secrets, are not."""
        return replace(self, headers=tuple((name, "") for name, _ in self.headers))


@dataclass(frozen=True, slots=True)
class Executor:
    """Who ran an attempt."""

    worker: str  # Celery node name, "threads@host"
    pid: int
    thread: int  # the kernel's thread id: one for all greenlets of a gevent worker
    greenlet: int | None  # gevent's identifier; None in the other pools

    @property
    def host(self) -> str:
        """Process and thread ids are of a host: another one, or another container, may have the same."""
        return self.worker.partition("@")[2]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job, closed. Times are seconds since the epoch."""

    executor: Executor | None  # None: the holder vanished, the sweep closed the attempt
    started: float
    finished: float
    first_byte: float | None = None
    bytes: int = 0  # received in this attempt
    status: int | None = None  # the last HTTP status
    kind: FailureKind | None = None  # None: it succeeded, was cancelled or handed back, or brought the file further
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The ledger's record of a job: what was asked, where it stands, and what became of it."""

    id: str
    job: Job
    pool: Pool
    state: JobState
    queued: float
    attempts: tuple[Attempt, ...] = ()
    started: float | None = None  # of the attempt that runs now
    executor: Executor | None = None  # ... and who runs it, once that was noted with its progress
    deadline: float | None = None  # when its time is used up, if limited; from its first claim until it is final
    bytes: int = 0  # on disk so far; once done the file's length
    total: int | None = None  # announced length of the file
    sha256: str | None = None  # once done
    notes: tuple[str, ...] = ()  # e.g. "length: unverified"
    etag: str | None = None  # once done, as far as they are short: see ``ledger.records``
    last_modified: str | None = None
    final_url: str | None = None  # once done: where redirects led to, without its query
    content_type: str | None = None  # once done, unless it is ``UNKNOWN_TYPE``
    name: str | None = None  # the final filename, if it is not the job's
    step: float | None = None  # once done: seconds that its step took
    before: int = 0  # attempts made before it was submitted again: history, they count no more
    weight: int = 0  # of its holders' deaths against it, see ``weight`` in lua/common.lua

    @property
    def batch(self) -> str:
        return self.id.rpartition(".")[0]

    @property
    def path(self) -> str:
        """Below the downloads folder."""
        return f"{self.batch}/{self.name or self.job.filename}"

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True, slots=True)
class Ref:
    """A run of consecutive jobs of one batch; a single job is a run of one."""

    batch: str
    first: int
    last: int

    def __str__(self) -> str:
        tail = f"-{self.last}" if self.last != self.first else ""
        return f"{self.batch}.{self.first}{tail}"

    @classmethod
    def parse(cls, text: str, *, most: int | None = JOBS_PER_MESSAGE) -> Ref:
        """Read ``BATCH.N`` or ``BATCH.FIRST-LAST``.

        Args:
            most: jobs that it may name; None: any number, for a ref that no message carries.

        Raises:
            ValueError: the text is neither, or names more jobs.
        """
        match = _REF.fullmatch(text)
        if match is None:
            raise ValueError(f"expected BATCH.N or BATCH.FIRST-LAST, got {text!r}")
        first = int(match["first"])
        last = int(match["last"] or first)
        if last < first:
            raise ValueError(f"expected FIRST <= LAST, got {text!r}")
        if most is not None and last - first >= most:
            raise ValueError(f"expected at most {most} jobs from FIRST to LAST, got {text!r}")
        return cls(match["batch"], first, last)

    @property
    def ordinals(self) -> range:
        return range(self.first, self.last + 1)


@dataclass(frozen=True, slots=True)
class Message:
    """A message's jobs, before it is sent: consecutive jobs for one pool."""

    ref: Ref
    pool: Pool
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a job that is done has brought."""

    size: int  # bytes
    sha256: str
    notes: tuple[str, ...] = ()
    etag: str | None = None  # of the answer that brought it
    last_modified: str | None = None
    name: str | None = None  # the final filename, if it is not the one that the record has
    final_url: str | None = None  # where redirects led to, without its query
    content_type: str | None = None
    step: float | None = None  # seconds that the job's step took


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's counters."""

    name: str
    created: float
    total: int | None  # None while its submission is not complete
    counts: Mapping[Pool, Mapping[JobState, int]]
    bytes_done: Mapping[Pool, int]
    ended: float | None = None  # when the last job did, so far

    def count(self, *states: JobState) -> int:
        return sum(by_state.get(state, 0) for by_state in self.counts.values() for state in states)

    @property
    def known(self) -> int:
        return self.count(*JobState)

    @property
    def finished(self) -> bool:
        """Submitted completely, and every job has its final state."""
        final = self.count(JobState.DONE, JobState.FAILED, JobState.CANCELLED)
        return self.total is not None and final == self.total


def folded(path: str) -> str:
    """A path as file systems compare it that ignore case and the form of Unicode: equal ones are one file there."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def job_id(batch: str, ordinal: int) -> str:
    return f"{batch}.{ordinal}"


def check_batch_name(name: str) -> str:
    """Return the name.

    Raises:
        ValueError: it is not 1 to 64 of ``A-Z a-z 0-9 _ -`` beginning with a letter or a digit.
    """
    if not _BATCH.fullmatch(name):
        raise ValueError(
            f"expected 1 to 64 letters, digits, '_' or '-', beginning with a letter or digit; got {name!r}"
        )
    return name
