"""HEART: the ledger, the one truth about every job. A message is only a hint that a job may be ready.

                    submit                       claim                        close
    (nothing) ───────────────▶ QUEUED ───────────────▶ RUNNING ───────────────────────▶ DONE
                                ▲  ▲ │ cancel            │ │ │                           FAILED
                        orphan, │  │ └───────────────────┼─┼─┼─────────────────────────▶ CANCELLED
                     hand back  └──┼─────────────────────┘ │ │ cancel seen by the holder ▲
                                   │ due                   │ └───────────────────────────┘
                                WAITING ◀──────────────────┘ retry later

Guarantees
  * A record is written before its first message is sent; whoever dies in between, the sweep sends the message.
  * One holder: a job is claimed by one incarnation at a time, and each claim has a number. Whoever lost the job (its
    lease expired, the sweep took it over) can change nothing any more: progress, attempt and close answer ``False``.
  * One end: DONE, FAILED and CANCELLED are never left, and each job reaches exactly one.
  * Every call may be repeated: a connection that breaks after Redis acted does no harm.
  * Every call is O(jobs named in it), one round trip, and atomic (Lua).

No guarantee
  * That work is done once. A holder that froze may have downloaded the same file; it just cannot publish it.

Who may die when: anybody, at any time, but Redis' disk. Queued and waiting jobs need nobody alive but the sweep.
Kept true by ``tests/service/test_ledger.py`` and ``tests/service/test_sweep.py``.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from ledger.connection import load_script
from ledger.jobs import Attempt, Job, JobRecord, JobState, Pool, Ref, job_id
from ledger.keys import Keys
from ledger.records import POOL_LETTERS, STATE_LETTERS, decode, encode_attempt, encode_job

_READ_AT_ONCE = 500  # records per round trip


class IncarnationLostError(Exception):
    """The lease expired and the sweep took over: claim under a new incarnation."""


class ConflictError(Exception):
    """A batch of this name already has another job at this place."""

    def __init__(self, batch: str, ordinal: int) -> None:
        super().__init__(f"batch {batch!r} already has another job number {ordinal}; choose another name")
        self.batch, self.ordinal = batch, ordinal


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a job, and the token that proves it."""

    record: JobRecord
    incarnation: str
    number: int  # of the claim; grows with each
    epoch: float  # seconds to add to time.monotonic() of this process for the time by Redis' clock


@dataclass(frozen=True, slots=True)
class Result:
    """What a job that is done has brought."""

    size: int  # bytes
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A message's jobs, before it is sent: consecutive jobs for one pool."""

    ref: Ref
    pool: Pool
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's counters."""

    name: str
    created: float
    total: int | None  # None while its submission is not complete
    counts: Mapping[Pool, Mapping[JobState, int]]
    bytes_done: Mapping[Pool, int]

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


class Ledger:
    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.keys = Keys(prefix)
        self._prefix = prefix
        names = ("submit", "sent", "claim", "progress", "attempt", "close", "cancel")
        self._scripts = {name: load_script(redis, name) for name in names}

    def _run(self, name: str, *args: Any) -> Any:
        return self._scripts[name](args=[self._prefix, *args])

    # -- the producer's side

    def submit(self, messages: Sequence[Message]) -> list[bool]:
        """Write the records of the messages' jobs; all of one batch, a few hundred jobs at the most.

        Returns:
            For each message whether it must be sent (a job of it is new).

        Raises:
            ConflictError: a job exists with other content; the messages before it are written.
        """
        if not messages:
            return []
        batch = messages[0].ref.batch
        args: list[Any] = [batch]
        for message in messages:
            args += [POOL_LETTERS[message.pool], message.pool, str(message.ref), len(message.jobs)]
            for ordinal, job in zip(message.ref.ordinals, message.jobs, strict=True):
                args += [ordinal, encode_job(job)]
        fresh = self._run("submit", *args)
        if fresh[0] == -1:
            raise ConflictError(batch, fresh[1])
        return [count > 0 for count in fresh]

    def sent(self, pool: Pool, refs: Sequence[str]) -> None:
        """Say that these messages are on the pool's queue, in this order."""
        if refs:
            self._run("sent", pool, *refs)

    def seal(self, batch: str, total: int) -> None:
        """The submission is complete: the batch has this many jobs."""
        self.redis.hset(self.keys.batch(batch), "sealed", str(total))

    def cancel(self, ref: Ref) -> tuple[int, int]:
        """Cancel jobs; a few hundred at the most.

        Returns:
            How many were cancelled at once, and how many are running and asked to stop.
        """
        now, asked, _final, _unknown = self._run("cancel", ref.batch, ref.first, ref.last)
        return now, asked

    # -- reading

    def batch(self, name: str) -> Batch | None:
        fields = self.redis.hgetall(self.keys.batch(name))
        if "created" not in fields:
            return None
        return Batch(
            name=name,
            created=int(fields["created"]) / 1000,
            total=int(fields["sealed"]) if "sealed" in fields else None,
            counts={
                pool: {state: int(fields.get(letter + STATE_LETTERS[state], 0)) for state in JobState}
                for pool, letter in POOL_LETTERS.items()
            },
            bytes_done={pool: int(fields.get(letter + "b", 0)) for pool, letter in POOL_LETTERS.items()},
        )

    def batches(self, most: int = 20) -> list[str]:
        """The newest batches, newest first."""
        return [str(name) for name in self.redis.zrevrange(self.keys.batches, 0, most - 1)]

    def read(self, ids: Iterable[str]) -> Iterator[JobRecord]:
        """The records that exist, in the order asked for, read a few hundred at a time."""
        page: list[str] = []
        for id_ in ids:
            page.append(id_)
            if len(page) == _READ_AT_ONCE:
                yield from self._read_page(page)
                page = []
        yield from self._read_page(page)

    def read_batch(self, batch: Batch) -> Iterator[JobRecord]:
        return self.read(job_id(batch.name, ordinal) for ordinal in range(batch.total or batch.known))

    def running(self, batch: str) -> list[JobRecord]:
        return list(self.read(sorted(str(id_) for id_ in self.redis.smembers(self.keys.running(batch)))))

    def _read_page(self, ids: Sequence[str]) -> Iterator[JobRecord]:
        pipeline = self.redis.pipeline(transaction=False)
        for id_ in ids:
            pipeline.hgetall(self.keys.job(id_))
        for id_, fields in zip(ids, pipeline.execute(), strict=True):
            if fields:
                yield decode(id_, fields)

    # -- the worker's side

    def claim(self, ref: Ref, pool: Pool, incarnation: str) -> list[Claim]:
        """Take those of a message's jobs that are queued; none if it is a duplicate.

        Raises:
            IncarnationLostError: this incarnation is not alive (any more).
        """
        token = secrets.token_hex(4)
        answer = self._run("claim", incarnation, pool, ref.batch, ref.first, ref.last, str(ref), token)
        if not answer:
            return []
        if answer[0] == -1:
            raise IncarnationLostError(incarnation)
        epoch = answer[0] / 1000 - time.monotonic()
        claims = []
        for ordinal, flat in zip(answer[1::2], answer[2::2], strict=True):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            record = decode(job_id(ref.batch, ordinal), fields)
            claims.append(Claim(record, incarnation, int(fields["n"]), epoch))
        return claims

    def holds(self, claim: Claim) -> bool:
        """Whether the claim still stands. To be asked before a file gets its final name."""
        key = self.keys.job(claim.record.id)
        state, holder, number = self.redis.hmget(key, ["s", "h", "n"])
        return (state, holder, number) == (STATE_LETTERS[JobState.RUNNING], claim.incarnation, str(claim.number))

    def progress(self, claim: Claim, size: int, total: int | None) -> bool:
        """Note the bytes on disk and the announced length; False if the claim is void."""
        return self._held("progress", claim, size, "" if total is None else total)

    def note_attempt(self, claim: Claim, attempt: Attempt) -> bool:
        """Note a failed attempt after which the holder tries again itself; False if the claim is void."""
        return self._held("attempt", claim, encode_attempt(attempt))

    def close(
        self,
        claim: Claim,
        state: JobState,
        attempt: Attempt,
        *,
        due_in: float = 0.0,
        result: Result | None = None,
    ) -> bool:
        """Let go of a job: in a final state, WAITING for ``due_in`` seconds, or QUEUED (handed back).

        Args:
            result: with DONE.

        Returns:
            False if the claim is void, and then nothing was changed.
        """
        extra: list[str | int] = []
        if result:
            extra = ["b", result.size, "z", result.size, "d", result.sha256]
            extra += ["o", json.dumps(result.notes)] if result.notes else []
        return self._held("close", claim, STATE_LETTERS[state], encode_attempt(attempt), round(due_in * 1000), *extra)

    def _held(self, script: str, claim: Claim, *args: Any) -> bool:
        return bool(self._run(script, claim.record.id, claim.incarnation, claim.number, *args))
