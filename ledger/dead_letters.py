"""What lay on a pool's queue and is no message of Downpour: kept to be looked at, a bounded number per pool."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

from redis import Redis

from ledger.jobs import Pool
from ledger.records import Keys

_MOST = 1000  # per pool; the newest stay
_KEPT = 4096  # bytes of each
_REASON = 200  # characters


@dataclass(frozen=True, slots=True)
class DeadLetter:
    time: float  # when it was taken off the queue, seconds since the epoch by the worker's clock
    reason: str
    bytes: int  # its whole length
    element: str  # how it begins; what is not UTF-8 is escaped


class DeadLetters:
    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)

    def keep(self, pool: Pool, element: bytes, reason: str) -> None:
        """
        Raises:
            redis.RedisError: Redis is away or full; it is not kept then.
        """
        begin = element[:_KEPT].decode(errors="backslashreplace")[:_KEPT]
        letter = DeadLetter(time.time(), reason[:_REASON], len(element), begin)
        with self._redis.pipeline() as pipe:
            pipe.lpush(self._keys.dead_letters(pool), json.dumps(asdict(letter)))
            pipe.ltrim(self._keys.dead_letters(pool), 0, _MOST - 1)
            pipe.execute()

    def counts(self) -> dict[Pool, int]:
        with self._redis.pipeline(transaction=False) as pipe:
            for pool in Pool:
                pipe.llen(self._keys.dead_letters(pool))
            return dict(zip(Pool, pipe.execute(), strict=True))

    def read(self, pool: Pool) -> list[DeadLetter]:
        """The newest first."""
        return [DeadLetter(**json.loads(text)) for text in self._redis.lrange(self._keys.dead_letters(pool), 0, -1)]

    def drop(self, pool: Pool) -> int:
        """Remove them all; how many there were."""
        with self._redis.pipeline() as pipe:
            pipe.llen(self._keys.dead_letters(pool))
            pipe.unlink(self._keys.dead_letters(pool))
            return int(pipe.execute()[0])
