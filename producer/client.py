"""Submitting and cancelling: the ledger first, then the messages.

A submission may be cut off anywhere and simply repeated: jobs are named by their place in the manifest, the ledger
keeps those that it knows, and a message is sent for the others. A job whose record was written and whose message was
not is seen by the sweep. A batch is sealed at the end, so an unsealed one was cut off.

A submission that returns is on the disk of Redis' machine: records, messages and seal are in the append-only file, and
that is flushed (WAITAOF). It survives a SIGKILL of Redis and a power cut, as far as the disk keeps what it confirms.
That does not hold where Redis keeps no such file, is too old to be asked (before 7.2), does not let us ask, or does not
answer within 3 s; then a submission is as safe as Redis' own settings make it. No replica is waited for.
Kept true by ``tests/service/test_producer_submit.py``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import cycle, islice

from ledger.dead_letters import DeadLetters
from ledger.jobs import Batch, Job, Message, Pool, Ref
from ledger.ledger import ConflictError, Ledger, PruningError, TotalError
from ledger.messages import Envelope, Publisher, label
from ledger.redis_client import connect, eviction_policy, eviction_warning, removes_jobs
from ledger.settings import Settings
from ledger.switches import Switches
from producer.errors import (
    ManifestError,
    OtherManifestError,
    RedisUnusableError,
    UnknownBatchError,
    bounded,
    redis_errors,
)

_FIRST_ANSWER = 4.0  # seconds; with the start of Python a person waits less than 5
_CARRIED = 250  # jobs per message at the most, where we choose
_AT_ONCE = 500  # jobs per call of the ledger: a few milliseconds of Redis' time
_DURABLE_WITHIN = 3.0  # seconds; with "everysec" Redis writes its log to the disk once a second


def new_batch_name() -> str:
    """By time, so that a list of batches reads well; random, so that two producers do not meet."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


class Client:
    """The producer's hold on Redis. Building one makes sure that Redis answers."""

    def __init__(self, settings: Settings) -> None:
        """Connect.

        Raises:
            RedisUnusableError: no answer within 4 s, name resolution included.
        """
        self.settings = settings
        self.ledger = Ledger(connect(settings, connections=4), settings.key_prefix)
        with redis_errors(settings):
            bounded(self.ledger.redis.ping, min(settings.redis_timeout, _FIRST_ANSWER))

    @cached_property
    def _publisher(self) -> Publisher:
        return Publisher(self.settings)

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

    def newest(self, most: int) -> list[Batch]:
        """The newest batches, newest first."""
        with redis_errors(self.settings):
            found = (self.ledger.batch(name) for name in self.ledger.batches(most))
            return [batch for batch in found if batch]

    def paused(self) -> list[Pool]:
        with redis_errors(self.settings):
            return Switches(self.ledger).paused()

    def check_eviction(self) -> str | None:
        """What is to be said of a Redis that removes keys when it is full.

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

    def dead_letters(self) -> dict[Pool, int]:
        with redis_errors(self.settings):
            return DeadLetters(self.ledger.redis, self.settings.key_prefix).counts()

    def submit(
        self,
        name: str,
        jobs: Iterable[Job],
        pools: Sequence[Pool],
        per_message: int = 1,
        deadline: float | None = None,
        *,
        front: bool = False,
    ) -> Iterator[int]:
        """Record and send the jobs, a group at a time, and seal the batch.

        Args:
            pools: taken in turn, message by message.
            per_message: consecutive jobs that one message carries; 0: see ``growing``.
            deadline: seconds that each job may take from its first claim on; None: what the settings say.
            front: before all that waits now; of a long batch the last few hundred jobs come first.

        Yields:
            How many of the manifest's jobs are recorded so far.

        Raises:
            ManifestError: there is no job; nothing was submitted.
            OtherManifestError: the batch has other jobs than these.
            RedisUnusableError: Redis went away or is full; the message says what was accepted.
        """
        recorded = 0
        try:
            with redis_errors(self.settings):
                known = self.ledger.batch(name)
                room = known.total if known else None
                for group in _grouped(_messages(name, jobs, pools, per_message)):
                    end = group[-1].ref.last + 1
                    if room is not None and end > room:
                        raise OtherManifestError(f"batch {name!r} is complete with {room} jobs, the manifest has more")
                    unsent = self.ledger.submit(group, deadline=deadline)
                    self._reserve_names(name, group)
                    recorded = end
                    self._send([message for message, send in zip(group, unsent, strict=True) if send], front)
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

    def _reserve_names(self, name: str, group: Sequence[Message]) -> None:
        """Before any of these jobs can run."""
        jobs = (pair for message in group for pair in zip(message.ref.ordinals, message.jobs, strict=True))
        self.ledger.reserve_manifest_names(name, jobs)

    def _send(self, messages: Sequence[Message], front: bool) -> None:
        envelopes = [
            Envelope(str(message.ref), message.pool, label(message.jobs[0], len(message.jobs) - 1))
            for message in (reversed(messages) if front else messages)  # whoever comes to the front last is first
        ]
        if envelopes:
            bounded(lambda: self._publisher.send(envelopes, front=front), self.settings.redis_timeout)

    def _seal(self, name: str, total: int) -> None:
        if not total:
            raise ManifestError("expected at least one URL, got none; nothing was submitted")
        try:
            self.ledger.seal(name, total, durable=min(_DURABLE_WITHIN, 0.8 * self.settings.redis_timeout))
        except TotalError as error:
            raise OtherManifestError(
                f"batch {name!r} has {error.known} jobs, the manifest only {total}; choose another name"
            ) from error

    def cancel(self, batch: Batch, refs: Sequence[Ref]) -> tuple[int, int]:
        """Cancel these runs of jobs.

        Returns:
            How many were cancelled at once, and how many are running and were asked to stop.
        """
        cancelled = asked = 0
        with redis_errors(self.settings):
            for ref in refs:
                for first in range(ref.first, ref.last + 1, _AT_ONCE):
                    piece = Ref(batch.name, first, min(first + _AT_ONCE - 1, ref.last))
                    now, later = self.ledger.cancel(piece)
                    cancelled, asked = cancelled + now, asked + later
        return cancelled, asked


def _messages(name: str, jobs: Iterable[Job], pools: Sequence[Pool], per_message: int) -> Iterator[Message]:
    left, first = iter(jobs), 0
    for pool in cycle(pools):
        carried = tuple(islice(left, per_message or growing(first)))
        if not carried:
            return
        yield Message(Ref(name, first, first + len(carried) - 1), pool, carried)
        first += len(carried)


def growing(before: int) -> int:
    """How many jobs a message carries after so many others: a thirty-second of them, 250 at the most.

    So a short manifest is spread over as many slots as there are, a long one costs few messages, nobody has to know
    beforehand how long it is, and the same manifest makes the same messages again.
    """
    return max(1, min(_CARRIED, before // 32))


def _grouped(messages: Iterator[Message]) -> Iterator[list[Message]]:
    """Messages with about as many jobs as one call of the ledger takes."""
    group: list[Message] = []
    jobs = 0
    for message in messages:
        group.append(message)
        jobs += len(message.jobs)
        if jobs >= _AT_ONCE:
            yield group
            group, jobs = [], 0
    if group:
        yield group
