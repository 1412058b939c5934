"""An experiment, run: rounds of turns in rotated order, the warm-up first, spoiled turns once more.

Ctrl-C, or SIGTERM, cancels what runs and keeps what was measured: the experiment then says that it is not whole. So it
is when Redis goes away, or a worker does not start.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from ledger.messages import Publisher
from producer.client import Client
from producer.comparison import contamination, cores
from producer.comparison.bench import Audience, Bench
from producer.comparison.contamination import Limits
from producer.comparison.cores import Probes
from producer.comparison.experiment import Contestant, Experiment, Sampling, Turn
from producer.comparison.fleet import Fleet
from producer.comparison.machine import describe_machine, describe_versions
from producer.comparison.notes import CUT
from producer.comparison.planning import Work
from producer.comparison.sampler import EVERY
from producer.comparison.turn import Slot, Stand
from producer.errors import ProducerError, bounded, redis_errors

_CALM = 3.0  # seconds to wait for cores that are busy before a round begins


@dataclass(frozen=True, slots=True)
class Position:
    """Where an experiment is."""

    contestant: Contestant
    work: Work
    round: int  # 0: the warm-up
    rounds: int
    left: float | None  # seconds until the end, about; None: nothing is known yet
    again: bool = False  # a spoiled turn, once more


class Stage(Audience, Protocol):
    """An audience that also learns which turn is on."""

    def begins(self, position: Position) -> None: ...

    def measured(self, contestant: Contestant, turn: Turn, note: str | None) -> None:
        """The note says why it ended early."""

    def says(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Design:
    """How an experiment is to be run."""

    work: Work
    repeat: int
    command: str
    warm_up: bool = True
    again: bool = True  # run a spoiled turn once more
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class _Pace:
    """How long is left, from how long turns took so far."""

    took: dict[str, float] = field(default_factory=dict)

    def left(self, contestants: Sequence[Contestant], rounds: int) -> float | None:
        if not all(each.name in self.took for each in contestants):
            return None
        return rounds * sum(self.took[each.name] for each in contestants)


@dataclass(frozen=True, slots=True)
class Outcome:
    experiment: Experiment
    cut: BaseException | None = None  # what ended it early


def run_experiment(fleet: Fleet, design: Design, stage: Stage) -> Outcome:
    """
    Raises:
        ProducerError: Redis cannot be used, before there was anything to keep.
        KeyboardInterrupt: the same.
    """
    ledger = Client(fleet.settings).ledger
    settings = fleet.settings
    with redis_errors(settings), closing(Publisher(settings)) as publisher:
        bench = Bench(ledger, publisher, stage, settings.redis_timeout)
        bounded(lambda: publisher.send([]), settings.redis_timeout)  # connects: the first turn must not pay for it
        return _Rounds(fleet, design, stage, Stand(fleet, bench, design.limits)).run()


class _Rounds:
    def __init__(self, fleet: Fleet, design: Design, stage: Stage, stand: Stand) -> None:
        self._fleet = fleet
        self._design = design
        self._stage = stage
        self._stand = stand
        self._probes = Probes()
        self._turns: list[Turn] = []
        self._pace = _Pace()
        self._notes: list[str] = []
        self._stamp = stamp()

    def run(self) -> Outcome:
        bench = self._stand.bench
        self._started, self._machine = bench.now(), describe_machine()  # before the load is ours
        self._versions, self._about = describe_versions(bench.ledger), self._fleet.notes()
        number = 0
        try:
            for number in range(0 if self._design.warm_up else 1, self._design.repeat + 1):
                self._round(number)
            self._probes.look()
        except (KeyboardInterrupt, RedisError, KombuError, TimeoutError, ProducerError) as cut:
            if not self._turns:
                raise
            why = "interrupted" if isinstance(cut, KeyboardInterrupt) else f"ended early ({cut})"
            where = f"round {number} of {self._design.repeat}" if number else "the warm-up"
            self._notes.append(f"{why} in {where}: {CUT}")
            last = self._turns[-1]
            return Outcome(self._experiment(last.submitted + (last.wall or 0.0)), cut)
        return Outcome(self._experiment(bench.now()))

    def _round(self, number: int) -> None:
        found, ours = self._probes.look(), self._design.limits.cores
        if found < ours * cores.nominal() and len(self._probes.seen) == 1:
            self._stage.says(f"only {found:.2f} of {cores.nominal()} cores are ours now: this machine is busy")
        dropped = self._probes.dropped(ours)
        if dropped:
            time.sleep(_CALM)
            self._probes.look()
            dropped = self._probes.dropped(ours)
        order = ordered(self._fleet.contestants, number)
        turns = [self._turn(each, number, place, [dropped] if dropped else []) for place, each in enumerate(order)]
        if not self._design.again or not number:
            return
        spoiled = [each for each, turn in zip(order, turns, strict=True) if not turn.counts]
        by_machine = [turn for turn in turns if not turn.counts and turn.wall is not None and turn.books.balance]
        if len(by_machine) > 1 and len(by_machine) > len(order) / 2:
            self._stage.says("most of this round was spoiled by the machine: it is not run again")
            return
        for place, each in enumerate(spoiled, len(order)):
            self._turn(each, number, place, [], again=True)

    def _turn(
        self, contestant: Contestant, number: int, place: int, excluded: list[str], *, again: bool = False
    ) -> Turn:
        begun = time.monotonic()
        left = None
        if number:
            rest = ordered(self._fleet.contestants, number)[place:] if not again else [contestant]
            rounds = self._pace.left(self._fleet.contestants, self._design.repeat - number)
            this = self._pace.left(rest, 1)
            left = None if rounds is None or this is None else rounds + this
        work = self._design.work
        self._stage.begins(Position(contestant, work, number, self._design.repeat, left, again))
        name = label(contestant, self._fleet.contestants.index(contestant) + 1)
        batch = f"{work.scenario.name}-{self._stamp}-{number}{'b' if again else ''}-{name}"
        turn, note = self._stand.turn(Slot(contestant, number, place, batch), work, excluded)
        self._turns.append(turn)
        if number:
            self._pace.took[contestant.name] = time.monotonic() - begun
        self._stage.measured(contestant, turn, note)
        return turn

    def _experiment(self, finished: float) -> Experiment:
        design, contestants = self._design, self._fleet.contestants
        notes = [*self._about, *design.work.notes(contestants), *self._notes, *self._stand.notes()]
        if design.warm_up and design.limits is not contamination.NONE:
            notes.append(design.limits.text)
        names = [each.name for each in contestants]
        notes += contamination.too_few(self._turns, names, design.repeat)
        return Experiment(
            scenario=design.work.scenario,
            contestants=contestants,
            turns=tuple(self._turns),
            started=self._started,
            finished=finished,
            command=design.command,
            versions=self._versions,
            machine=self._machine,
            cores=self._probes.cores(),
            sampling=self._sampling(),
            notes=tuple(notes),
        )

    def _sampling(self) -> Sampling | None:
        counted = [turn for turn in self._turns if turn.counts and turn.usage]
        used = sum(turn.usage.cpu for turn in counted if turn.usage)
        cost = sum(self._stand.costs.get(turn.batch, 0.0) for turn in counted)
        return Sampling(EVERY, round(cost, 4), round(cost / used, 4) if used else 0.0) if counted else None


def ordered(contestants: Sequence[Contestant], number: int) -> list[Contestant]:
    """The order of a round: it begins one further than the round before."""
    first = (number - 1) % len(contestants)
    return [*contestants[first:], *contestants[:first]]


def label(contestant: Contestant, place: int) -> str:
    """``threads-100``; with options also its place among the contestants: a batch's name has no room for them."""
    plain = contestant.name.partition("+")[0].replace(":", "-")
    return f"{plain}-{place}" if contestant.setup.options else plain


def stamp() -> str:
    """What tells the batches of two comparisons apart."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
