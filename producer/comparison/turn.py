"""One contestant's turn: its workers made ready, its jobs run and watched from all sides, and all written down."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

from ledger.connection import connect
from ledger.jobs import Executor, Job, JobState
from producer.comparison import contamination, procfs, turns
from producer.comparison.arrivals import ON_THE_WAY, Arrivals
from producer.comparison.bench import Bench, Ran
from producer.comparison.contamination import Limits
from producer.comparison.experiment import Contestant, MeasuredJob, Turn, Usage
from producer.comparison.fleet import Deployed, Fleet
from producer.comparison.planning import Share, Work
from producer.comparison.sampler import Sampler

KEEP_ALL = 50  # jobs: of turns with no more than that, every turn's are kept; of others, those of the first round
_BATCHES = 50  # newest ones that are asked whether they ran meanwhile
_WARM_MOST = 200  # jobs that warm a fresh worker up


@dataclass(frozen=True, slots=True)
class Slot:
    """Whose turn it is."""

    contestant: Contestant
    round: int
    place: int
    batch: str


@dataclass(slots=True)
class _Seen:
    """What was seen around a run."""

    excluded: list[str]
    usage: Usage | None = None
    pids: frozenset[int] = frozenset()


class Stand:
    """Where turns are run.

    ``costs`` has the seconds of CPU that sampling took, by batch.
    """

    def __init__(self, fleet: Fleet, bench: Bench, limits: Limits) -> None:
        self.bench = bench
        self.costs: dict[str, float] = {}
        self._fleet = fleet
        self._limits = limits
        self._digests = turns.Digests()
        self._dead: set[str] = set()  # batches whose workers are gone: the sweep ends their jobs when the lease is over
        self._hosts: set[str] = set()
        self._offset = 0.0  # seconds by which Redis' clock is ahead of ours
        self._ahead: dict[str, float] = {}  # host: seconds by which its clock is ahead of ours, as last heard

    def turn(self, slot: Slot, work: Work, excluded: Sequence[str]) -> tuple[Turn, str | None]:
        """
        Args:
            excluded: what is known to spoil it before it begins.

        Returns:
            The turn, and why it ended early, if it did.
        """
        contestant, batch = slot.contestant, slot.batch
        share = work.share(contestant, warm_up=slot.round == 0)
        keep = slot.round == 1 or len(share.jobs) <= KEEP_ALL
        with self._fleet.deployed(contestant) as deployed:
            if deployed.fresh:
                self._warm_up(contestant, f"{batch}-warm", deployed)
            seen = _Seen(list(excluded))
            with self._arrivals() if keep else nullcontext() as arrivals, self._observed(deployed, batch, seen):
                ran = self.bench.run(
                    contestant.pool,
                    share.jobs,
                    batch,
                    one_at_a_time=contestant.serial,
                    ended=deployed.ended,
                    workers=len(deployed.roots),
                )
            if ended := deployed.ended():
                self._dead |= {batch, f"{batch}-warm"}
            seen.excluded += [*ended, *self._not_alone(ran)]
        if not work.keeps_files:
            self._fleet.discard(batch)
        turn = self._written(slot, share, ran, deployed, seen)
        if keep:
            turn = replace(turn, jobs=self._jobs(share, ran, arrivals))
        return turn, ran.note

    def notes(self) -> list[str]:
        """What a reader must know about clocks."""
        strange = sorted(self._hosts - {socket.gethostname()})
        if not strange:
            return []
        hosts = ", ".join(f"{host} (its clock is {self._clock(host)})" for host in strange)
        return [
            f"workers run on {hosts}: only when they received a job is told by their clocks; it is set right by that"
            " difference, which the quickest of their events shows to some milliseconds, and put between queued and"
            " started"
        ]

    def _clock(self, host: str) -> str:
        if host not in self._ahead:
            return "not known: nothing of it was heard"
        ahead = self._ahead[host] - self._offset
        if abs(ahead) < ON_THE_WAY:
            return f"Redis' to {ON_THE_WAY * 1000:.0f} ms"
        return f"{abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'} Redis'"

    def _warm_up(self, contestant: Contestant, batch: str, deployed: Deployed) -> None:
        """Tiny jobs, two per slot: connections are made, threads are started, modules are loaded."""
        origin, count = self._fleet.settings.origin_url, min(2 * (contestant.slots or 1), _WARM_MOST)
        jobs = [Job(f"{origin}/files/warm-{n}?size=1", f"warm-{n}") for n in range(count)]
        self.bench.quietly(contestant.pool, jobs, batch, ended=deployed.ended)
        self._fleet.discard(batch)

    def _arrivals(self) -> Arrivals:
        settings = self._fleet.settings
        self._offset = self.bench.now() - time.time()
        return Arrivals(connect(settings, connections=1), settings.key_prefix)

    @contextmanager
    def _observed(self, deployed: Deployed, batch: str, seen: _Seen) -> Iterator[None]:
        sampler = Sampler(deployed.roots, deployed.lateness)
        sampler.start()
        before, others, begun = procfs.machine(), _cpu(deployed.others), time.monotonic()
        try:
            yield
        finally:
            seen.usage = sampler.stop()
            seen.pids = frozenset(sampler.pids)
            self.costs[batch] = sampler.cost
        after, seconds = procfs.machine(), time.monotonic() - begun
        ours = None
        if others is not None and seen.usage and (now := _cpu(deployed.others)) is not None:
            ours = now - others + seen.usage.cpu
        if before and after:
            seen.excluded += contamination.of_machine(before, after, seconds, ours, self._limits)

    def _not_alone(self, ran: Ran) -> list[str]:
        """Whether jobs of another batch ran between the submission and now."""
        ledger = self.bench.ledger
        for name in ledger.batches(_BATCHES):
            batch = ledger.batch(name) if name != ran.batch and name not in self._dead else None
            if batch and (batch.count(JobState.RUNNING) or (batch.ended or 0.0) > ran.submitted):
                return [f"jobs of batch {name} ran meanwhile"]
        return []

    def _written(self, slot: Slot, share: Share, ran: Ran, deployed: Deployed, seen: _Seen) -> Turn:
        def belongs(who: Executor) -> bool:
            return deployed.belongs(who, seen.pids)

        books = turns.books(slot.contestant, len(share.jobs), ran.records, belongs, self._digests)
        executors = [each.executor for record in ran.records for each in record.attempts if each.executor]
        self._hosts |= {who.host for who in executors}
        return Turn(
            contestant=slot.contestant.name,
            round=slot.round,
            place=slot.place,
            batch=ran.batch,
            submitted=ran.submitted,
            wall=turns.wall(ran.submitted, ran.records),
            spans=turns.spans(ran.submitted, ran.records),
            books=books,
            usage=seen.usage,
            excluded=(*seen.excluded, *contamination.of_books(books)),
        )

    def _jobs(self, share: Share, ran: Ran, arrivals: Arrivals | None) -> tuple[MeasuredJob, ...]:
        moments = arrivals.moments() if arrivals else {}
        self._ahead |= arrivals.ahead() if arrivals else {}
        return tuple(
            turns.measured_job(
                record,
                nominal,
                None if (at := moments.get(record.id)) is None else at + self._offset,
                self._digests.expected(record),
            )
            for record, nominal in zip(ran.records, share.nominal, strict=False)
        )


def _cpu(roots: Sequence[int] | None) -> float | None:
    """Seconds that the rest of the stack, and we, have used."""
    if roots is None:
        return None
    with suppress(OSError):
        seen = [procfs.process(pid) for pid in procfs.tree(roots)]
        return time.process_time() + sum(each.cpu + each.cpu_of_children for each in seen if each)
    return None
