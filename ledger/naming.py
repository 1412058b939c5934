"""Names that are known only when the answer comes: reserved in the ledger, so no two files of a batch share one.

A batch in which servers name files has one hash, name → ordinal. The names that its manifest gives are reserved before
any message is sent. Whoever comes first has the name; who comes later has its ordinal added.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from redis import Redis

from ledger.jobs import Job, Naming
from ledger.ledger import Claim
from ledger.records import Keys
from ledger.redis_client import Library

_FOLDER = "-"


class NamesTaken:
    """The names of batches in which servers name files."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)
        self._call = Library(redis, prefix, "job")

    def reserve(self, claim: Claim, names: Sequence[str]) -> str | None:
        """The first free one of these, for a running job's file; empty: all are taken. None: the claim is void."""
        id_ = claim.record.id
        answer = self._call("reserve", id_, claim.incarnation, claim.number, *names)
        return None if answer == 0 else str(answer)

    def keep_for_manifest(self, batch: str, jobs: Iterable[tuple[int, Job]]) -> None:
        """Reserve the names that a manifest gives, unless a server was faster."""
        pipeline = self._redis.pipeline(transaction=False)
        for ordinal, job in jobs:
            if job.naming is not Naming.RESERVED:
                continue
            names = self._keys.names(batch)
            pipeline.hsetnx(names, job.filename, str(ordinal))
            for folder in list(PurePosixPath(job.filename).parents)[:-1]:
                pipeline.hsetnx(names, str(folder), _FOLDER)
        if len(pipeline):
            pipeline.execute()
