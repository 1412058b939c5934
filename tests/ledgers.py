"""A ledger on a real Valkey, with the producers and workers that a test lets act on it."""

from __future__ import annotations

from functools import cached_property

from ledger.jobs import Attempt, Batch, FailureKind, Job, JobRecord, JobState, Message, Pool, Ref
from ledger.leases import Identity, Leases
from ledger.ledger import Claim, Ledger
from ledger.messages import Envelope, Publisher
from ledger.redis_client import connect
from ledger.settings import Settings


class LedgerWorld:
    """Jobs are those of batch "b", unless a test says otherwise."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis = connect(settings)
        self.ledger = Ledger(self.redis, settings.key_prefix)
        self.leases = Leases(self.redis, settings.key_prefix, settings.lease)

    def submit(self, count: int, *, send: bool = True, pool: Pool = Pool.THREADS, batch: str = "b") -> None:
        """Jobs in messages of their own, which lie on the queue if they are sent."""
        for at in range(0, count, 500):
            numbers = range(at, min(at + 500, count))
            jobs = [(Ref(batch, n, n), Job(f"http://origin/{n}", f"f{n}")) for n in numbers]
            self.ledger.submit([Message(ref, pool, (job,)) for ref, job in jobs])
            if send:
                Publisher(self.settings).send(Envelope(str(ref), pool, job.filename) for ref, job in jobs)

    def register(self, pool: Pool = Pool.THREADS, pid: int = 7, family: str = "") -> str:
        return self.leases.register(Identity(f"{pool}@here", pool, pid, family))

    @cached_property
    def incarnation(self) -> str:
        """A process of a threads worker, alive for as long as a lease lasts."""
        return self.register()

    def hold(self, number: int = 0) -> Claim:
        """That process claims a job."""
        return self.claim(self.incarnation, number)

    def claim(self, incarnation: str, number: int = 0, pool: Pool = Pool.THREADS, batch: str = "b") -> Claim:
        (taken,) = self.ledger.claim(Ref(batch, number, number), pool, incarnation)
        return taken

    def batch(self) -> Batch:
        batch = self.ledger.batch("b")
        assert batch is not None
        return batch

    def record(self, number: int = 0) -> JobRecord:
        (record,) = self.ledger.read([f"b.{number}"])
        return record

    def states(self) -> str:
        return states_of(self.ledger)


def states_of(ledger: Ledger, name: str = "b") -> str:
    """The states of a batch's jobs by letter, in order; its counters say the same."""
    batch = ledger.batch(name)
    assert batch is not None
    records = list(ledger.read(f"{name}.{number}" for number in range(batch.known)))
    for state in JobState:
        assert batch.count(state) == sum(record.state is state for record in records), state
    for pool in Pool:
        done = [record.bytes for record in records if record.state is JobState.DONE and record.pool is pool]
        assert batch.bytes_done.get(pool, 0) == sum(done)
    return "".join(record.state.value[0] for record in records)


def attempt(kind: FailureKind | None = None) -> Attempt:
    return Attempt(None, started=1.0, finished=2.0, kind=kind)
