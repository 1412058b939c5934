"""The sweep: puts back what nobody works on. ``python -m ledger.sweep``, a process of its own; needs Redis alone.

Each round, all of it safe to repeat and to run twice at once:
  1. incarnations whose lease has expired: their jobs go back on their queues (or end as poison);
  2. waiting jobs that are due: back on their queues;
  3. jobs that wait for a host which has room: back on their queues, too;
  4. queued and waiting jobs whose time is used up: failed;
  5. jobs that need a message, and jobs whose message vanished: one is sent. ``lua/unsent.lua`` says how it knows;
  6. batches that ended long enough ago: some of their records are removed, if the settings say so.

After Redis was away or has restarted, leases have expired that nobody could renew. So the sweep first gives back the
time for which that lasted, to every lease; ``lua/forbear.lua`` says how it knows.
"""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import asdict, dataclass
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError

from ledger.connection import AWAY, connect, load_script
from ledger.jobs import Pool, Ref, job_id
from ledger.keys import Keys
from ledger.ledger import Ledger
from ledger.manners import Manners
from ledger.messages import Envelope, Publisher, label
from ledger.prune import Expiry
from ledger.settings import Settings, get_settings

_AT_ONCE = 500  # jobs per script call: a few milliseconds of Redis' time

log = logging.getLogger("downpour.sweep")


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round did, in jobs."""

    orphans: int = 0
    poisoned: int = 0
    due: int = 0
    woken: int = 0  # who waited for a host
    sent: int = 0
    overdue: int = 0
    removed: int = 0  # batches, not jobs


class Sweep:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis: Redis = connect(settings)
        self._ledger = Ledger(self._redis, settings.key_prefix)
        self._manners = Manners(self._redis, settings)
        self._publisher = Publisher(settings)
        self._keys = Keys(settings.key_prefix)
        self._forbear = load_script(self._redis, "forbear")
        self._orphans = load_script(self._redis, "orphans")
        self._due = load_script(self._redis, "due")
        self._overdue = load_script(self._redis, "overdue")
        self._expiry = Expiry(self._ledger, settings.keep_batches)
        self._unsent = load_script(self._redis, "unsent")
        self._away = False  # since the last round

    def round(self) -> Swept:
        """One round.

        Raises:
            redis.RedisError: Redis is away, full or loading.
        """
        self._give_back_time()
        orphans, poisoned = self._bury_the_dead()
        due, woken = self._put_back_due(), self._manners.wake_all()
        overdue = self._end_overdue()
        sent = sum(self._send(pool) for pool in Pool)
        return Swept(orphans, poisoned, due, woken, sent, overdue, self._expiry.step())

    def redis_was_away(self) -> None:
        """The next round is to judge nobody before everybody had the time to renew."""
        self._away = True

    def _give_back_time(self) -> None:
        run_id, lease_ms = self._redis.info("server")["run_id"], round(self._settings.lease * 1000)
        given = self._forbear(args=[self._settings.key_prefix, run_id, lease_ms, int(self._away)])
        self._away = False
        if given:
            log.info("Redis was away: every lease lasts %.1f s longer", given / 1000)

    def _bury_the_dead(self) -> tuple[int, int]:
        orphans = poisoned = 0
        alive = self._redis.hgetall(self._keys.incarnations)
        for incarnation in [*alive, *self._redis.smembers(self._keys.dead)]:
            left = 1
            while left > 0:
                prefix, losses = self._settings.key_prefix, self._settings.max_losses
                left, *ids = self._orphans(args=[prefix, incarnation, losses, _AT_ONCE])
                if left < 0:
                    break
                at = ids.index("poison")
                orphans, poisoned = orphans + at, poisoned + len(ids) - at - 1
                log.info("took over incarnation=%s who=%s jobs=%s", incarnation, alive.get(incarnation), ids)
        return orphans, poisoned

    def _put_back_due(self) -> int:
        total = 0
        while count := self._due(args=[self._settings.key_prefix, _AT_ONCE]):
            total += count
        return total

    def _end_overdue(self) -> int:
        total, look_again_ms = 0, round(self._settings.lease * 1000)
        while count := self._overdue(args=[self._settings.key_prefix, _AT_ONCE, look_again_ms]):
            total += count
        return total

    def _send(self, pool: Pool) -> int:
        total, grace_ms = 0, round(self._settings.message_grace * 1000)
        queue = self._keys.queue(pool)
        while refs := self._unsent(args=[self._settings.key_prefix, pool, queue, grace_ms, _AT_ONCE]):
            envelopes = self._envelopes(pool, refs)
            self._publisher.send(reversed(envelopes), front=True)  # they ran, or were about to: not behind a backlog
            if unknown := set(refs) - {envelope.ref for envelope in envelopes}:  # their records are gone
                self._redis.zrem(self._keys.hand(pool), *unknown)
            log.info("sent again pool=%s messages=%d refs=%s", pool, len(refs), refs[:5])
            total += len(refs)
        return total

    def _envelopes(self, pool: Pool, refs: list[str]) -> list[Envelope]:
        parsed = [Ref.parse(ref) for ref in refs]
        records = {record.id: record for record in self._ledger.read(job_id(ref.batch, ref.first) for ref in parsed)}
        return [
            Envelope(str(ref), pool, label(record.job, ref.last - ref.first))
            for ref in parsed
            if (record := records.get(job_id(ref.batch, ref.first)))
        ]


def run(settings: Settings, stop: threading.Event) -> None:
    """Sweep until told to stop; outlives every absence of Redis."""
    sweep = Sweep(settings)
    away = False
    while not stop.is_set():
        try:
            swept = sweep.round()
        except (RedisError, OSError) as error:
            if isinstance(error, (*AWAY, OSError)):  # a full Redis is there, and lets workers renew
                sweep.redis_was_away()
            if not away:
                log.warning("Redis cannot be used, waiting for it: %s", error)
            away = True
        else:
            if away:
                log.info("Redis can be used again")
            away = False
            if settings.health_file:
                settings.health_file.touch()
            if swept != Swept():
                log.info("swept %s", " ".join(f"{name}={count}" for name, count in asdict(swept).items() if count))
        stop.wait(settings.sweep_every)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    run(get_settings(), stop)


if __name__ == "__main__":
    main()
