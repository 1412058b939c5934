"""Submitting, cancelling and trying again: the ledger first, then the messages.

A submission may be cut off anywhere and simply repeated: jobs are named by their place in the manifest, the ledger
keeps those that it knows, and a message is sent for the others. A job whose record was written and whose message was
not is seen by the sweep. A batch is sealed at the end, so an unsealed one was cut off. A manifest that has more lines
at its end makes the batch grow; where a mended line moves the others, its new jobs follow those of the batch.

A submission that returns is on the disk of Redis' machine: records, messages and seal are in the append-only file, and
that is flushed (WAITAOF). It survives a SIGKILL of Redis and a power cut, as far as the disk keeps what it confirms.
That does not hold where Redis keeps no such file, is too old to be asked (before 7.2), does not let us ask, or does not
answer within 3 s; then a submission is as safe as Redis' own settings make it. No replica is waited for.
Kept true by ``tests/service/test_producer_submit.py``.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import cycle, islice
from typing import TypeVar
from urllib.parse import urlsplit

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from ledger.jobs import Batch, FailureKind, Job, JobState, Message, Pool, Ref
from ledger.ledger import ConflictError, Ledger, PruningError, TotalError, UnknownJobsError
from ledger.messages import Envelope, Publisher, envelopes_of, label
from ledger.redis_client import (
    AT_ONCE,
    RedisFullError,
    RedisRefusedError,
    connect,
    eviction_policy,
    eviction_warning,
    removes_jobs,
)
from ledger.settings import Settings, SettingsError, get_settings
from producer.errors import ManifestError, OtherManifestError, ProducerError, RedisUnusableError, UnknownBatchError

T = TypeVar("T")

_FIRST_ANSWER = 4.0  # seconds; with the start of Python a person waits less than 5
_DURABLE_WITHIN = 3.0  # seconds; with "everysec" Redis writes its log to the disk once a second


def new_batch_name() -> str:
    """By time, so that a list of batches reads well; random, so that two producers do not meet."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def read_settings() -> Settings:
    """
    Raises:
        ProducerError: a variable has a value that its setting does not take.
    """
    try:
        return get_settings()
    except SettingsError as error:
        raise ProducerError(str(error)) from error


@contextmanager
def redis_errors(settings: Settings) -> Iterator[None]:
    """Map what redis-py raises to one error with a message for people."""
    try:
        yield
    except (RedisError, TimeoutError) as error:
        parts = urlsplit(settings.redis_url)
        address = parts.netloc.rpartition("@")[2] or parts.path
        raise RedisUnusableError(f"Redis at {address} {_what(error)}") from error


def _what(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, RedisFullError):
        return "is full (maxmemory) and takes no more"
    if isinstance(error, RedisRefusedError):
        return f"refuses the command for now ({error.status_code}: {text}); run it again when Redis is well"
    if isinstance(error, (AuthenticationError, NoPermissionError)):
        return f"refuses us: {text}; DOWNPOUR_REDIS_URL and DOWNPOUR_REDIS_PASSWORD_FILE say who we are"
    return f"cannot be used: {text or type(error).__name__}; is it running? DOWNPOUR_REDIS_URL says where it is"


def bounded(call: Callable[[], T], seconds: float) -> T:
    """What the call returns or raises, or ``TimeoutError`` after that time.

    Looking up a host name knows no bound of its own, and a first call connects. So the call runs in a thread, which is
    left behind after that time.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:  # noqa: BLE001, RUF100 - raised again by the caller
            ended.set_exception(error)

    threading.Thread(target=run, name="bounded call", daemon=True).start()
    try:
        return ended.result(seconds)
    except TimeoutError:
        if ended.done():
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None


class Client:
    """The producer's hold on Redis. Building one makes sure that Redis answers."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Connect.

        Args:
            settings: None: those of the environment.

        Raises:
            ProducerError: the environment has a setting that cannot be used.
            RedisUnusableError: no answer within 4 s, name resolution included.
        """
        self.settings = settings or read_settings()
        self.new = 0  # jobs that no producer had recorded before us
        self.ledger = Ledger(connect(self.settings, connections=4), self.settings.key_prefix)
        with redis_errors(self.settings):
            bounded(self.ledger.redis.ping, min(self.settings.redis_timeout, _FIRST_ANSWER))

    @cached_property
    def _publisher(self) -> Publisher:
        return Publisher(self.settings)

    def close(self) -> None:
        self._publisher.close()
        self.ledger.redis.close()

    def batch(self, name: str) -> Batch:
        """The batch's counters.

        Raises:
            UnknownBatchError: there is none of this name.
        """
        batch = self.find(name)
        if batch is None:
            raise UnknownBatchError(name)
        return batch

    def find(self, name: str) -> Batch | None:
        with redis_errors(self.settings):
            return self.ledger.batch(name)

    def jobs(self, batch: Batch) -> Iterator[Job]:
        """What the batch's jobs ask for, in order."""
        with redis_errors(self.settings):
            yield from (record.job for record in self.ledger.read_batch(batch))

    def newest(self, most: int) -> list[Batch]:
        """The newest batches, newest first."""
        with redis_errors(self.settings):
            return [batch for name in self.ledger.batches(most) if (batch := self.ledger.batch(name))]

    def check_eviction(self) -> str | None:
        """The warning for a Redis that removes keys when it is full.

        Raises:
            RedisUnusableError: it may remove jobs, and the settings do not allow that.
        """
        with redis_errors(self.settings):
            policy = eviction_policy(self.ledger.redis)
        if policy is None:
            return None
        warning = eviction_warning(policy)
        if removes_jobs(policy) and not self.settings.allow_eviction:
            raise RedisUnusableError(f"{warning}. Nothing was submitted; with DOWNPOUR_ALLOW_EVICTION=1 it is")
        return warning

    def submit(
        self,
        name: str,
        jobs: Iterable[Job],
        pools: Sequence[Pool],
        per_message: int = 1,
        deadline: float | None = None,
        *,
        front: bool = False,
        first: int = 0,
    ) -> Iterator[int]:
        """Record and send the jobs, a group at a time, and seal the batch.

        Redis works on one group in a second thread while the next one is read.

        Args:
            pools: taken in turn, message by message.
            per_message: consecutive jobs that one message carries.
            deadline: seconds that each job may take from its first claim on; None: what the settings say.
            front: before all that waits now; of a long batch the last few hundred jobs come first.
            first: ordinal of the first job; the batch has those before it.

        Yields:
            How many of the batch's jobs are recorded so far.

        Raises:
            ManifestError: there is no job; nothing was submitted.
            OtherManifestError: the batch has other jobs than these; its cause is a ConflictError if a job has another
                content, and then nothing was submitted.
            RedisUnusableError: Redis went away or is full; the message says what was accepted.
        """
        recorded, messages = first, _messages(name, jobs, pools, per_message, first)
        at_once = -(-AT_ONCE // per_message)  # messages: about as many jobs as one call of the ledger takes
        try:
            with redis_errors(self.settings), ThreadPoolExecutor(1, "submit") as behind:
                stored: Future[int] | None = None
                while group := list(islice(messages, at_once)):
                    if stored:
                        yield (recorded := stored.result())
                    stored = behind.submit(self._store, group, deadline, front)
                if stored:
                    recorded = stored.result()
                yield recorded
                self._seal(name, recorded)
        except RedisUnusableError as error:
            raise RedisUnusableError(
                f"{error}\n{recorded} jobs of batch {name!r} are accepted and will be downloaded; the rest may not be. "
                f"Run the same command with --name {name} again: it goes on where this one stopped"
            ) from error
        except ConflictError as error:
            raise OtherManifestError(f"{error}, or the manifest that it was made from") from error
        except PruningError as error:
            raise OtherManifestError(str(error)) from error

    def _store(self, group: Sequence[Message], deadline: float | None, front: bool) -> int:
        """Record and send some messages of a batch; how many of its jobs are recorded then."""
        unsent = self.ledger.submit(group, deadline=deadline)
        self.new += sum(unsent)
        pairs = (pair for message in group for pair in zip(message.ref.ordinals, message.jobs, strict=True))
        self.ledger.reserve_manifest_names(group[0].ref.batch, pairs)  # before any of these jobs can run
        self.send([message for message, new in zip(group, unsent, strict=True) if new], front=front)
        return group[-1].ref.last + 1

    def send(self, messages: Sequence[Message], *, front: bool = False) -> None:
        """Put the messages of recorded jobs on their queues."""
        envelopes = [
            Envelope(str(message.ref), message.pool, label(message.jobs[0], len(message.jobs) - 1))
            for message in (reversed(messages) if front else messages)  # the last one in front is the first
        ]
        self._publish(envelopes, front=front)

    def _publish(self, envelopes: Sequence[Envelope], *, front: bool = False) -> None:
        if envelopes:
            bounded(lambda: self._publisher.send(envelopes, front=front), self.settings.redis_timeout)

    def _seal(self, name: str, total: int) -> None:
        if not total:
            raise ManifestError("found no usable URL; nothing was submitted")
        try:
            self.ledger.seal(name, total, durable=min(_DURABLE_WITHIN, 0.8 * self.settings.redis_timeout))
        except TotalError as error:
            raise OtherManifestError(
                f"batch {name!r} has {error.known} jobs, the manifest only {total}; choose another name"
            ) from error

    def cancel(self, refs: Iterable[Ref]) -> tuple[int, int]:
        """Cancel these runs of jobs.

        Returns:
            How many were cancelled at once, and how many are running and were asked to stop.
        """
        cancelled = asked = 0
        with redis_errors(self.settings):
            for piece in (piece for ref in refs for piece in _pieces(ref)):
                now, later = self.ledger.cancel(piece)
                cancelled, asked = cancelled + now, asked + later
        return cancelled, asked

    def retry(self, batch: Batch, states: Sequence[JobState], kinds: Sequence[FailureKind]) -> tuple[int, int]:
        """Queue jobs that have ended and send their messages, a group at a time. Cut off anywhere, it is repeated.

        Returns:
            How many jobs were queued, and how many stay done because their headers were dropped.

        Raises:
            UnknownBatchError: it was removed meanwhile.
            RedisUnusableError: Redis went away or is full. A queued job has a message, or gets one from the sweep.
        """
        total = stay = 0
        with redis_errors(self.settings):
            for piece in _pieces(Ref(batch.name, 0, batch.known - 1)):
                try:
                    queued, spent = self.ledger.retry(piece, states, kinds)
                except UnknownJobsError as error:
                    raise UnknownBatchError(batch.name) from error
                self._publish(envelopes_of(self.ledger, dict(queued)))
                total, stay = total + len(queued), stay + spent
        return total, stay


def _pieces(ref: Ref) -> Iterator[Ref]:
    """The run of jobs in parts that one call of the ledger takes."""
    for first in range(ref.first, ref.last + 1, AT_ONCE):
        yield Ref(ref.batch, first, min(first + AT_ONCE - 1, ref.last))


def _messages(
    name: str, jobs: Iterable[Job], pools: Sequence[Pool], per_message: int, first: int = 0
) -> Iterator[Message]:
    left = iter(jobs)
    for pool in cycle(pools):
        carried = tuple(islice(left, per_message))
        if not carried:
            return
        yield Message(Ref(name, first, first + len(carried) - 1), pool, carried)
        first += len(carried)
