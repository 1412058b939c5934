"""The sweep: puts back what no process works on. ``python -m ledger.sweep``, a process of its own; needs Redis alone.

Each round, all of it safe to repeat and to run twice at once:
  1. worker processes whose lease has passed: their jobs go back on their queues, or end as poison;
  2. one look at Redis, which of the steps down to 7 have nothing to do: they are left out;
  3. waiting jobs that are due: back on their queues;
  4. jobs that wait for a host which has room: back on their queues, too;
  5. jobs whose time is used up: failed;
  6. suspects of having killed their process: the next ones may run;
  7. jobs that need a message, and jobs whose message vanished: one is sent. ``lua/sweep.lua`` says how it knows;
  8. batches that ended long enough ago: some of their records are removed, if the settings say so;
  9. how many jobs there are, and which worker processes are alive: Flower is told, if that has changed.

One step that fails, for whatever reason, does not stop the others. All time is the ledger clock's (``lua/common.lua``).
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from redis import Redis
from redis.exceptions import RedisError

from ledger.flower_events import TakenOver, tell_flower, tell_totals
from ledger.host_limits import HostLimits
from ledger.jobs import JobRecord, JobState, Pool
from ledger.leases import End, Lease, Leases
from ledger.ledger import KeptError, Ledger
from ledger.messages import Publisher, envelopes_of
from ledger.records import POOLS, STATES, Keys
from ledger.redis_client import AT_ONCE, Library, connect, eviction_policy, eviction_warning
from ledger.settings import Settings, settings_of

_NAMES = 100  # of old batches, per call
_TOLD = 3  # rounds in which Flower is told the same totals; that a process holds nothing it must hear twice
_TOLD_AGAIN = 10  # ... and then in each tenth
_COUNTED = 200  # newest batches whose jobs Flower is told: two milliseconds of Redis' time
_GAP = 2.0  # seconds without any call after which the ledger clock stands still, at the least
_LATE = 10.0  # seconds that a holder gets to end a job whose time is used up, at the least
_SOON = 0.1  # seconds between two rounds while the end of a trial is expected
_TRIAL_ROUNDS = 5  # such rounds after a suspect was released
_LOG_AGAIN = 60  # rounds until a step that keeps failing is logged again

log = logging.getLogger("downpour.sweep")


@dataclass(slots=True)
class Swept:
    """What one round did, in jobs."""

    orphans: int = 0  # back on their queues
    ended: int = 0  # of a dead holder: poison, deadline, cancelled
    due: int = 0
    woken: int = 0  # waited for a host
    overdue: int = 0
    trials: int = 0  # suspects that may run
    sent: int = 0
    removed: int = 0  # batches, not jobs


class Expiry:
    """Removes batches whose last job ended ``keep`` seconds ago, a small step at a time; 0: none."""

    def __init__(self, ledger: Ledger, keep: float) -> None:
        self._ledger = ledger
        self._keep = keep
        self._walk: Iterator[int] = iter(())

    def step(self, most: int = 20) -> int:
        """At most so many calls of Redis; how many batches are gone with them."""
        if not self._keep:
            return 0
        done = list(islice(self._walk, most))
        if len(done) < most:  # through with the list: the next step begins anew
            self._walk = self._through()
        return done.count(0)

    def _through(self) -> Iterator[int]:
        """Once through the batches that are old enough, those that stay included."""
        redis, batches = self._ledger.redis, self._ledger.keys.batches
        seconds, microseconds = redis.time()
        oldest, at = round((seconds - self._keep) * 1000 + microseconds / 1000), 0
        while names := redis.zrangebyscore(batches, "-inf", oldest, start=at, num=_NAMES):
            yield 1
            for name in names:
                try:
                    yield from self._ledger.prune(str(name), ended_for=self._keep)
                except KeptError:
                    at += 1
                    yield 1


class Sweep:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis: Redis = connect(settings, quick=True)
        self._ledger = Ledger(self._redis, settings.key_prefix)
        self._leases = Leases(self._redis, settings.key_prefix, settings.lease)
        self._host_limits = HostLimits(self._redis, settings)
        self._publisher = Publisher(settings)
        self._keys = Keys(settings.key_prefix)
        self._call = Library(self._redis, settings.key_prefix, "sweep")
        self._expiry = Expiry(self._ledger, settings.keep_batches)
        self._company: dict[str, int] = {}  # by process group: jobs that it held when the first of it was found dead
        self._alive: list[Lease] | None = None  # None: not known in this round
        self._living: set[str] = set()  # names of workers that have a process with a lease
        self._gap_is_set = False
        self._failing: dict[str, int] = {}  # by step: in how many rounds it failed, one after the other
        self._totals: Mapping[str, object] = {}  # of the last round
        self._same = 0  # rounds since they changed
        self._idle: frozenset[str] = frozenset()  # names of steps that have nothing to do in this round
        self._steps = {
            "lost": self._take_over_the_lost,
            "look": self._look,
            "dead": self._finish_the_dead,
            "due": self._put_back_due,
            "hosts": self._wake,
            "overdue": self._end_overdue,
            "suspects": self._try_suspects,
            "send": self._send_all,
            "expire": self._expire,
            "totals": self._tell_totals,
        }

    def check_redis(self) -> None:
        with contextlib.suppress(RedisError, OSError):  # away: the first round says so
            if policy := eviction_policy(self._redis):
                log.warning(eviction_warning(policy))

    def round(self) -> Swept:
        """One round.

        Raises:
            redis.RedisError: Redis is away, full or loading.
        """
        if not self._gap_is_set:
            # By a script: a full Redis takes no plain write.
            self._call("gap", round(1000 * max(_GAP, 2 * self._settings.sweep_every + 1)))
            self._gap_is_set = True
        swept = Swept()
        away: RedisError | OSError | None = None
        for name, step in self._steps.items():
            if name in self._idle and not (name == "send" and swept != Swept()):  # what was put back needs messages
                continue
            try:
                step(swept)
            except (RedisError, OSError) as error:
                away = error
            except Exception:
                rounds = self._failing[name] = self._failing.get(name, 0) + 1
                if rounds % _LOG_AGAIN == 1:
                    log.exception("step %s failed, the others go on; the next round tries it again", name)
            else:
                self._failing.pop(name, None)
        if away:
            raise away
        return swept

    @property
    def quiet(self) -> bool:
        """Whether no process holds a job, and nothing has changed for some rounds."""
        held = sum(each.held for each in self._alive or ())
        return not held and self._same >= _TOLD and self._idle.issuperset(("due", "hosts", "suspects", "send"))

    def _look(self, _swept: Swept) -> None:
        self._idle = frozenset()
        queues = [each for pool in Pool for each in (pool, self._keys.queue(pool))]
        self._idle = frozenset(map(str, self._call("idle", round(self._settings.message_grace * 1000), *queues)))

    def _take_over_the_lost(self, swept: Swept) -> None:
        self._alive = None
        known = self._leases.known()
        groups = {lease.identity.family for lease in known}
        self._company = {family: jobs for family, jobs in self._company.items() if family in groups}
        self._alive = [lease for lease in known if lease.alive]
        self._living = {lease.identity.worker for lease in self._alive}
        taken: dict[str, list[TakenOver]] = {}
        for lease in known:
            if not lease.alive:
                worker, evidence = lease.identity.worker, self._evidence(lease, known)
                taken.setdefault(worker, []).extend(self._take_over(lease.incarnation, worker, evidence, swept))
        self._tell(taken)

    def _finish_the_dead(self, swept: Swept) -> None:
        """A sweep died while it took their jobs over."""
        for incarnation in self._redis.smembers(self._keys.dead):
            self._tell({"unknown": self._take_over(str(incarnation), "unknown", "nothing", swept)})

    def _evidence(self, dead: Lease, known: Sequence[Lease]) -> str:
        """What the death of a process says about its jobs: a loss counts only against a job that was alone.

        A child whose parent lives to tell died alone. If no parent tells, its whole process group died, at one moment.
        The leases of those that hold jobs pass close together, so what they held is noted with the first of them.
        Where jobs run in children, hardly any job ends the main process, too: something else did.
        """
        if dead.end is End.ENDED:
            return "nothing"
        if dead.end is End.DIED:
            return "alone" if dead.held == 1 else "company"
        if dead.identity.pool is Pool.PREFORK:
            return "worker"
        family = dead.identity.family
        group = [each for each in known if family and each.identity.family == family and each.end is None]
        silent = sum(each.held for each in group if each.left < self._settings.lease / 2)
        together = max(silent, dead.held, self._company.get(family, 0))
        if len(group) > 1:
            self._company[family] = together
        return "alone" if together == 1 else "company"

    def _take_over(self, incarnation: str, worker: str, evidence: str, swept: Swept) -> list[TakenOver]:
        taken: list[TakenOver] = []
        left = 1
        while left > 0:
            left, *answer = self._call("orphans", incarnation, evidence, self._settings.max_losses, AT_ONCE)
            if left < 0:  # alive after all
                self._living.add(worker)
                break
            jobs = list(zip(answer[::3], (STATES[letter] for letter in answer[1::3]), answer[2::3], strict=True))
            back = [id_ for id_, state, _ in jobs if state is JobState.QUEUED]
            ended = [id_ for id_, state, _ in jobs if state is not JobState.QUEUED]
            swept.orphans += len(back)
            swept.ended += len(ended)
            if jobs:
                said = (incarnation, worker, evidence, back[:5], ended[:5])
                log.info("took over incarnation=%s of=%s died=%s back=%s ended=%s", *said)
            reasons = {record.id: _reason(record) for record in self._ledger.read(ended)}
            taken += [TakenOver(row, state, reasons.get(id_, "")) for id_, state, row in jobs]
        return taken

    def _tell(self, taken: Mapping[str, Sequence[TakenOver]]) -> None:
        try:
            tell_flower(self._redis, self._keys, taken, self._living)
        except RedisError as error:
            log.warning("Flower is not told what was taken over from workers=%s: %s", ",".join(taken), error)

    def _put_back_due(self, swept: Swept) -> None:
        while count := self._call("due", AT_ONCE):
            swept.due += count

    def _wake(self, swept: Swept) -> None:
        swept.woken += self._host_limits.wake_all()

    def _end_overdue(self, swept: Swept) -> None:
        late, handled = round(1000 * max(_LATE, 2 * self._settings.lease)), 1
        holders = {lease.incarnation: lease.identity.worker for lease in self._alive or ()}
        while handled:
            handled, *answer = self._call("overdue", AT_ONCE, late)
            ended = {id_: (holders.get(holder), row) for id_, holder, row in zip(*[iter(answer)] * 3, strict=True)}
            swept.overdue += len(ended)
            rows: dict[str, list[TakenOver]] = {}
            for record in self._ledger.read(ended):
                worker, row = ended[record.id]
                if not worker:  # it waited: the row of its last attempt says RETRY
                    worker = next((a.executor.worker for a in reversed(record.attempts) if a.executor), None)
                if worker:  # else it has no row of a task that began
                    rows.setdefault(worker, []).append(TakenOver(row, record.state, _reason(record)))
            self._tell(rows)

    def _try_suspects(self, swept: Swept) -> None:
        for pool in Pool:
            swept.trials += self._call("suspects", pool, round(self._settings.lease * 1000))

    def _send_all(self, swept: Swept) -> None:
        grace_ms = round(self._settings.message_grace * 1000)
        for pool in Pool:
            while refs := self._call("unsent", pool, self._keys.queue(pool), grace_ms, AT_ONCE):
                found = envelopes_of(self._ledger, dict.fromkeys(refs, pool))
                self._publisher.send(reversed(found), front=True)  # they ran, or were about to: not behind a backlog
                if unknown := set(refs) - {envelope.ref for envelope in found}:  # no refs, or their records are gone
                    self._redis.zrem(self._keys.hand(pool), *unknown)
                    log.info("no record, left out pool=%s refs=%s", pool, sorted(unknown)[:5])
                log.info("sent again pool=%s messages=%d refs=%s", pool, len(refs), refs[:5])
                swept.sent += len(refs)

    def _expire(self, swept: Swept) -> None:
        swept.removed += self._expiry.step()

    def _tell_totals(self, _swept: Swept) -> None:
        if self._alive is None:
            return
        batches, counted, submitted, *flat = self._call("totals", _COUNTED)
        jobs: dict[str, dict[str, int]] = {pool: {} for pool in Pool}
        for (pool, state), count in zip(flat[::2], flat[1::2], strict=True):
            jobs[POOLS[pool]][STATES[state]] = count
        alive = [
            (who.worker, who.pool, who.family, who.pid, each.held)
            for each in self._alive
            if (who := each.identity).pool
        ]
        totals = {"jobs": jobs, "submitted": submitted, "batches": batches, "counted": counted, "processes": alive}
        self._same, self._totals = self._same + 1 if totals == self._totals else 0, totals
        if self._same < _TOLD or self._same % _TOLD_AGAIN == 0:
            with contextlib.suppress(RedisError):  # Redis' users are of a version before this one
                tell_totals(self._redis, self._keys, totals)


def _reason(record: JobRecord) -> str:
    return f"{record.last.kind}: {record.last.reason}" if record.last else ""


def run(settings: Settings, stop: threading.Event) -> None:
    """Sweep until told to stop; outlives every absence of Redis."""
    sweep = Sweep(settings)
    sweep.check_redis()
    away: bool | None = None  # not known yet
    soon = 0
    while not stop.is_set():
        try:
            swept = sweep.round()
        except (RedisError, OSError) as error:
            if not away:
                log.warning("Redis cannot be used, waiting for it: %s", error)
            away = True
        else:
            if away is not False:
                log.info("Redis can be used again" if away else "ready")
            away = False
            if settings.health_file:
                settings.health_file.touch()
            # A suspect on trial is mostly over at once, and many others may wait for it.
            soon = _TRIAL_ROUNDS if swept.trials else max(0, soon - 1)
            if swept != Swept():
                log.info("swept %s", " ".join(f"{name}={count}" for name, count in asdict(swept).items() if count))
        stop.wait(min(_SOON, settings.sweep_every) if soon else settings.sweep_every * (2 if sweep.quiet else 1))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    run(settings_of("sweep"), stop)


if __name__ == "__main__":
    main()
