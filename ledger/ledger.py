"""HEART: the ledger, the one truth about every job. A message is only a hint that a job may be ready.

                    submit                       claim                        close
    (nothing) ───────────────▶ QUEUED ───────────────▶ RUNNING ───────────────────────▶ DONE
                                ▲  ▲ │ cancel            │ │ │                           FAILED
                        orphan, │  │ └───────────────────┼─┼─┼─────────────────────────▶ CANCELLED
                     hand back  └──┼─────────────────────┘ │ │ cancel seen by the holder ▲
                                   │ due                   │ └───────────────────────────┘
                                WAITING ◀──────────────────┘ retry later

Not drawn: the sweep fails poison and jobs whose time is used up; a waiting job is cancelled as a queued one is;
``retry`` leads from an end to QUEUED.

Guarantees
  * A record is written before its first message is sent. If the sender dies in between, the sweep sends the message.
  * One holder: a job is claimed by one incarnation (worker process) at a time, and each claim has a number. A holder
    that lost the job (its lease expired, the sweep took it over) changes nothing any more: progress and attempt answer
    ``False``, close answers ``VOID``.
  * One end: DONE, FAILED and CANCELLED are never left but by ``retry``, and each job reaches exactly one.
  * Every call but ``take`` may be repeated: a connection that breaks after Redis acted does no harm.
  * Every call is O(jobs that it names or takes), one round trip, and atomic (Lua).

No guarantee
  * That work is done once. A holder that froze may have downloaded the same file; it just cannot publish it.

Every process may die at any time; Redis' disk may not. Queued and waiting jobs need only the sweep.
Kept true by ``tests/service/test_ledger.py`` and ``tests/service/test_sweep.py``.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from math import inf
from pathlib import PurePosixPath
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from ledger.jobs import (
    FINAL_STATES,
    Attempt,
    Batch,
    Executor,
    FailureKind,
    Job,
    JobRecord,
    JobState,
    Message,
    Naming,
    Pool,
    Ref,
    Result,
    folded,
    job_id,
)
from ledger.records import (
    LONGEST_TYPE,
    LONGEST_URL,
    POOL_LETTERS,
    STATE_LETTERS,
    UNKNOWN_TYPE,
    UNREADABLE,
    Keys,
    decode,
    decode_batch,
    decode_unreadable,
    encode_attempt,
    encode_digest,
    encode_executor,
    encode_job,
    encode_validators,
)
from ledger.redis_client import AT_ONCE, Library, RedisClock, flushed

_KEPT = {-1: "is not known", -2: "has not finished", -3: "ended too lately"}
_DAY = 86_400.0  # seconds
_FOLDER = "-"  # owner of a reserved name that a folder has


class IncarnationLostError(Exception):
    """The lease expired and the sweep took over: claim under a new incarnation."""


class ConflictError(Exception):
    """A batch of this name already has another job at this place."""


class PruningError(Exception):
    """A batch of this name is being removed."""


class UnknownJobsError(Exception):
    """There is no such batch (any more), or it is being removed."""


class KeptError(Exception):
    """A batch is not removed; says why."""


class TotalError(Exception):
    """A batch was to be sealed with another number of jobs than it has."""

    def __init__(self, batch: str, known: int, total: int) -> None:
        super().__init__(f"expected batch {batch!r} to have {total} jobs, the ledger knows {known}; it stays unsealed")
        self.known = known


class Closed(IntEnum):
    """What came of closing a record; true if the claim was good."""

    VOID = 0  # the caller does not hold the job; nothing was changed
    RECORDED = 1
    BEFORE = 2  # by an earlier call of this very claim
    AWAITED = 3  # recorded, and another job waits for the slot of its host; see ``ledger.host_limits``


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a job, and the token that proves it."""

    record: JobRecord
    incarnation: str
    number: int  # of the claim; grows with each
    epoch: float  # seconds to add to time.monotonic() of this process for the time by Redis' clock
    ends: float  # time.monotonic() of this process when the job's time is used up; inf: never

    @property
    def proof(self) -> tuple[str, str, int]:
        """What a script compares with the record."""
        return self.record.id, self.incarnation, self.number


@dataclass(frozen=True, slots=True)
class Closing:
    """How a holder lets go of a job; the fields are those of ``Ledger.close``."""

    claim: Claim
    state: JobState
    attempt: Attempt
    due_in: float = 0.0  # seconds
    result: Result | None = None


class Ledger:
    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.keys = Keys(prefix)
        self.call = Library(redis, prefix, "job", refused_when_full=("submit", "send", "retry"))
        self._clock = RedisClock()

    # -- the producer's side

    def submit(self, messages: Sequence[Message], *, deadline: float | None = None) -> list[int]:
        """Write the records of the messages' jobs; all of one batch, a few hundred jobs at the most.

        Args:
            deadline: seconds that each of the batch's jobs may take from its first claim on.

        Returns:
            For each message how many of its jobs are new; if one is, it must be sent.

        Raises:
            ConflictError: a job exists with other content; the messages before it are written.
            PruningError: the batch is being removed.
        """
        if not messages:
            return []
        batch = messages[0].ref.batch
        args: list[Any] = [batch, "" if deadline is None else round(deadline * 1000)]
        for message in messages:
            ref, pool, jobs = message.ref, message.pool, message.jobs
            # As the record of a job that is done has it, which is no other job.
            spent = [encode_job(job.spent) for job in jobs] if any(job.headers for job in jobs) else []
            args += [
                POOL_LETTERS[pool],
                pool,
                str(ref),
                ref.first,
                len(jobs),
                len(spent),
                *map(encode_job, jobs),
                *spent,
            ]
        fresh = self.call("submit", *args)
        if fresh[0] == -1:
            raise ConflictError(f"batch {batch!r} already has another job number {fresh[1]}; choose another name")
        if fresh[0] == -2:
            raise PruningError(f"batch {batch!r} is being removed; `producer prune {batch}` finishes that")
        return list(fresh)

    def send(self, pool: Pool, messages: Sequence[tuple[str, str]], *, front: bool = False) -> int:
        """Put messages on the pool's queue, in this order; a few hundred at the most.

        Args:
            messages: pairs of ref and text.
            front: before all that waits, the last of them first.

        Returns:
            How many were sent: those whose jobs still wait for a message.
        """
        flat = [each for pair in messages for each in pair]
        return int(self.call("send", pool, self.keys.queue(pool), int(front), *flat)) if flat else 0

    def seal(self, batch: str, total: int, *, durable: float = 0.0) -> bool:
        """The submission is complete: the batch has this many jobs.

        Args:
            durable: seconds to wait at most until the seal, and so all that was written before it, is on Redis' disk.

        Returns:
            Whether it is known to be there.

        Raises:
            TotalError: the ledger knows more or fewer.
        """
        # On one connection: Redis waits for what the connection that asks has written.
        with Redis(connection_pool=self.redis.connection_pool, single_connection_client=True) as connection:
            known = self.call("seal", batch, total, client=connection)
            if known != total:
                raise TotalError(batch, max(known, 0), total)
            return durable > 0 and flushed(connection, durable)

    def cancel(self, ref: Ref) -> tuple[int, int]:
        """Cancel jobs; a few hundred at the most.

        Returns:
            How many were cancelled at once, and how many are running and asked to stop.
        """
        now, asked, _final, _unknown = self.call("cancel", ref.batch, ref.first, ref.last)
        return now, asked

    def retry(
        self, ref: Ref, states: Sequence[JobState], kinds: Sequence[FailureKind] = ()
    ) -> tuple[list[tuple[str, Pool]], int]:
        """Queue jobs that ended in one of these states again, in place; a few hundred at the most.

        Args:
            kinds: of failures; none: all of them.

        Returns:
            Their ids and pools: a message is to be sent for each; if the caller dies before, the sweep sends it.
            And how many stay done because the values of their headers were dropped then.

        Raises:
            UnknownJobsError: the batch does not exist.
        """
        letters = "".join(STATE_LETTERS[state] for state in states if state in FINAL_STATES)
        spent, *answer = self.call("retry", ref.batch, ref.first, ref.last, letters, *kinds)
        if spent == -1:
            raise UnknownJobsError(ref.batch)
        return [(id_, Pool(pool)) for id_, pool in zip(answer[::2], answer[1::2], strict=True)], spent

    def prune(self, batch: str, *, ended_for: float = 0.0, force: bool = False) -> Iterator[int]:
        """Remove a batch, a few hundred jobs at a time. It takes no jobs from then on; files are not touched.

        If the caller dies, the next call goes on where it stopped.

        Args:
            ended_for: only if its last job ended so many seconds ago.
            force: also if jobs of it have not ended; a holder of one publishes nothing. To be cancelled first.

        Yields:
            Jobs left; 0 is the last.

        Raises:
            KeptError: it stays, all of it.
        """
        first, left = 0, 1
        while left > 0:
            left = int(self.call("prune", batch, first, AT_ONCE, int(force), round(ended_for * 1000)))
            if left < 0:
                raise KeptError(_KEPT[left])
            first += AT_ONCE
            yield left

    def reserve_manifest_names(self, batch: str, jobs: Iterable[tuple[int, Job]]) -> None:
        """Reserve the names that a manifest gives, in a batch where servers name other files; before it is sent."""
        pipeline = self.redis.pipeline(transaction=False)
        for ordinal, job in jobs:
            if job.naming is not Naming.RESERVED:
                continue
            names = self.keys.names(batch)
            name = folded(job.filename)
            pipeline.hsetnx(names, name, str(ordinal))
            for folder in list(PurePosixPath(name).parents)[:-1]:
                pipeline.hsetnx(names, str(folder), _FOLDER)
        if len(pipeline):
            pipeline.execute()

    # -- reading

    def batch(self, name: str) -> Batch | None:
        fields = self.redis.hgetall(self.keys.batch(name))
        return decode_batch(name, fields) if "created" in fields else None

    def batches(self, most: int = 20) -> list[str]:
        """The newest batches, newest first."""
        return [str(name) for name in self.redis.zrevrange(self.keys.batches, 0, most - 1)]

    def read(self, ids: Iterable[str]) -> Iterator[JobRecord]:
        """The records that exist, in the order asked for, read a few hundred at a time."""
        left = iter(ids)
        while page := list(islice(left, AT_ONCE)):
            yield from self._read_page(page)

    def read_batch(self, batch: Batch) -> Iterator[JobRecord]:
        return self.read(job_id(batch.name, ordinal) for ordinal in range(batch.total or batch.known))

    def running(self, batch: str) -> list[JobRecord]:
        return list(self.read(sorted(str(id_) for id_ in self.redis.smembers(self.keys.running(batch)))))

    def _read_page(self, ids: Sequence[str]) -> Iterator[JobRecord]:
        pipeline = self.redis.pipeline(transaction=False)
        for id_ in ids:
            pipeline.hgetall(self.keys.job(id_))
        for id_, fields in zip(ids, pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(fields, RedisError) and not str(fields).startswith("WRONGTYPE"):
                raise fields
            if fields:
                try:
                    yield decode(id_, fields)
                except UNREADABLE as error:
                    yield decode_unreadable(id_, fields, error)

    # -- the worker's side

    def claim(self, ref: Ref, pool: Pool, incarnation: str, *, deadline: float = _DAY) -> list[Claim]:
        """Take those of a message's jobs that are queued.

        Empty if it is a duplicate, the pool is paused, or the worker drained or unwell.

        Args:
            deadline: seconds that a job may take from its first claim on, if its batch does not say otherwise; 0: any.

        Raises:
            IncarnationLostError: this incarnation is not alive (any more).
        """
        return self._claimed("claim", pool, incarnation, "", deadline, str(ref), ref.batch, ref.first, ref.last)

    def take(self, leader: Claim, pool: Pool, most: int, *, leave: int = 0, deadline: float = _DAY) -> list[Claim]:
        """Take more messages off the queue, and their jobs: small ones, on their first try or lost once in company.

        Args:
            leader: of the only job of a message; that message's row in Flower stands for all of them.
            most: messages; never more than this process' share of those that lie there.
            leave: messages that do not count as lying there: the process' other slots may begin them at once.
            deadline: as for ``claim``.

        Raises:
            IncarnationLostError: as ``claim``.
        """
        row = f":{leader.record.id}"
        return self._claimed("take", pool, leader.incarnation, row, deadline, self.keys.queue(pool), most, leave)

    def _claimed(self, script: str, pool: Pool, incarnation: str, row: str, deadline: float, *args: Any) -> list[Claim]:
        token, asked = secrets.token_hex(4) + row, time.monotonic()
        answer = self.call(script, incarnation, pool, token, round(deadline * 1000), *args)
        if not answer:
            return []
        if answer[0] == -1:
            raise IncarnationLostError(incarnation)
        answered, now = time.monotonic(), answer[1]
        epoch = self._clock.learn(answer[0] / 1000, asked, answered)
        claims = []
        for id_, flat in zip(answer[2::2], answer[3::2], strict=True):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            try:
                record = decode(str(id_), fields)
                ends = answered + (int(fields["e"]) - now) / 1000 if "e" in fields else inf
                claims.append(Claim(record, incarnation, int(fields["n"]), epoch, ends))
            except UNREADABLE as error:
                self.call("unreadable", id_, incarnation, repr(error))
        return claims

    def standing(self, claims: Sequence[Claim]) -> list[bool]:
        """For each claim whether it still stands. To be asked before a file gets its final name."""
        return [answer == 1 for answer in self.call("holds", *(each for claim in claims for each in claim.proof))]

    def unclaim(self, claims: Sequence[Claim]) -> int:
        """Jobs that were not begun go back on their queues, without an attempt; how many did."""
        return int(self.call("unclaim", *(each for claim in claims for each in claim.proof)))

    def progress(self, claim: Claim, size: int, total: int | None, who: Executor | None = None) -> bool:
        """Note the bytes on disk, the announced length and who runs the job; False if the claim is void."""
        return bool(self.call("progress", *claim.proof, size, "" if total is None else total, encode_executor(who)))

    def note_attempt(self, claim: Claim, attempt: Attempt) -> bool:
        """Note a failed attempt after which the holder tries again itself; False if the claim is void."""
        return bool(self.call("attempt", *claim.proof, encode_attempt(attempt, claim.record.queued)))

    def reserve_name(self, claim: Claim, names: Sequence[str]) -> str | None:
        """Reserve the name of a running job's file, so that no two files of a batch share one.

        Args:
            names: candidates, the best first.

        Returns:
            The first free one; empty: all are taken; None: the claim is void.
        """
        answer = self.call("reserve", *claim.proof, *(each for name in names for each in (name, folded(name))))
        return None if answer == 0 else str(answer)

    def note_fault(self, worker: str, reason: str, need: int = 0) -> None:
        """A fault of its machine: the worker can claim nothing until ``Switches.note_well``. The first note counts.

        Args:
            need: bytes of room that a job lacked.
        """
        self.call("unwell", worker, reason, need)

    def close(
        self,
        claim: Claim,
        state: JobState,
        attempt: Attempt,
        *,
        due_in: float = 0.0,
        result: Result | None = None,
    ) -> Closed:
        """Let go of a job: in a final state, WAITING for ``due_in`` seconds, or QUEUED (handed back).

        Args:
            result: with DONE.
        """
        return self.close_all([Closing(claim, state, attempt, due_in, result)])[0]

    def close_all(self, closings: Sequence[Closing]) -> list[Closed]:
        """Let go of a chunk's jobs, a few hundred at the most, in one round trip; for each what came of it.

        Each is judged on its own: a void claim among good ones harms none of them.
        """
        args = [arg for closing in closings for arg in _close_args(closing)]
        return [Closed(answer) for answer in self.call("close", *args)]


def _close_args(closing: Closing) -> list[Any]:
    """What ``close`` takes for a job."""
    claim, result = closing.claim, closing.result
    attempt = encode_attempt(closing.attempt, claim.record.queued)
    args: list[Any] = [*claim.proof, STATE_LETTERS[closing.state], attempt, round(closing.due_in * 1000)]
    if result:
        args += ["b", result.size]
        args += ["d", encode_digest(result.sha256)] if result.sha256 != claim.record.job.sha256 else []
        args += ["o", json.dumps(result.notes)] if result.notes else []
        validators = encode_validators(result.etag, result.last_modified)
        args += ["u", validators] if validators else []
        args += ["f", result.name] if result.name else []
        args += ["r", result.final_url[:LONGEST_URL]] if result.final_url else []
        kind = (result.content_type or UNKNOWN_TYPE)[:LONGEST_TYPE]
        args += ["g", round(1000 * result.step, 1)] if result.step is not None else []
        args += ["c", kind] if kind != UNKNOWN_TYPE and kind.isprintable() else []
    if closing.state is JobState.DONE and claim.record.job.headers:
        args += ["j", encode_job(claim.record.job.spent)]
    return [len(args), *args]
