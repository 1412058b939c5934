"""An experiment, run: rounds of turns in rotated order, the warm-up first, excluded turns once more.

Ctrl-C, or SIGTERM, cancels what runs and keeps what was measured: the experiment then says that it is not whole. So it
is when the workload fails for good, or a worker does not start.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from poolbench import checks, sampler
from poolbench.checks import NONE, NoiseLimits
from poolbench.experiment import (
    Deployment,
    Executor,
    Experiment,
    MeasuredJob,
    Measurement,
    Note,
    Request,
    Sampling,
    Usage,
)
from poolbench.sampler import Probes, Sampler
from poolbench.workload import Arrivals, Display, Ran, Workers, Workload

KEEP_ALL = 50  # jobs: of turns with no more than that, every turn's are kept; of others, those of the first round
_CALM = 3.0  # seconds to wait for cores that are busy before a round begins


@dataclass(frozen=True, slots=True)
class Position:
    """Where an experiment is."""

    deployment: Deployment
    round: int  # 0: the warm-up
    rounds: int
    left: float | None  # seconds until the end, about; None: nothing is known yet
    again: bool = False  # a excluded turn, once more


class RunDisplay(Display, Protocol):
    """An display that also learns which turn is on."""

    def begins(self, position: Position, workload: Workload) -> None: ...

    def measured(self, measurement: Measurement, note: str | None) -> None:
        """The note says why it ended early."""

    def says(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Design:
    """How an experiment is to be run."""

    repeat: int
    request: Request
    warm_up: bool = True
    again: bool = True  # run a excluded turn once more
    limits: NoiseLimits = field(default_factory=NoiseLimits)


@dataclass(slots=True)
class _TimeLeft:
    """How long is left, from how long turns took so far."""

    took: dict[str, float] = field(default_factory=dict)

    def left(self, deployments: Sequence[Deployment], rounds: int) -> float | None:
        if not all(each.name in self.took for each in deployments):
            return None
        return rounds * sum(self.took[each.name] for each in deployments)


@dataclass(frozen=True, slots=True)
class Outcome:
    experiment: Experiment
    cut: BaseException | None = None  # what ended it early


def run_experiment(workload: Workload, design: Design, display: RunDisplay) -> Outcome:
    """
    Raises:
        KeyboardInterrupt, one of the workload's failures: before there was anything to keep.
    """
    return _Rounds(workload, design, display).run()


class _Rounds:
    def __init__(self, workload: Workload, design: Design, display: RunDisplay) -> None:
        self._workload = workload
        self._design = design
        self._display = display
        self._probes = Probes()
        self._measurements: list[Measurement] = []
        self._time_left = _TimeLeft()
        self._notes: list[Note] = []
        self._stamp = stamp()
        self._costs: dict[str, float] = {}  # seconds of CPU that sampling took, by batch

    def run(self) -> Outcome:
        self._started, self._machine = self._workload.now(), sampler.describe_machine()  # before the load is ours
        self._versions, self._about = self._workload.versions(), self._workload.notes()
        number = 0
        stops: tuple[type[BaseException], ...] = (KeyboardInterrupt, *self._workload.failures)
        try:
            for number in range(0 if self._design.warm_up else 1, self._design.repeat + 1):
                self._round(number)
            self._probes.look()
        except stops as cut:
            if not self._measurements:
                raise
            why = "interrupted" if isinstance(cut, KeyboardInterrupt) else f"ended early ({cut})"
            where = f"round {number} of {self._design.repeat}" if number else "the warm-up"
            self._notes.append(Note(f"{why} in {where}: what was measured is here", caveat=True))
            last = self._measurements[-1]
            return Outcome(self._experiment(last.submitted + (last.wall or 0.0)), cut)
        return Outcome(self._experiment(self._workload.now()))

    def _round(self, number: int) -> None:
        found, ours = self._probes.look(), self._design.limits.cores
        if found < ours * sampler.nominal() and len(self._probes.seen) == 1:
            self._display.says(f"only {found:.2f} of {sampler.nominal()} cores are ours now: this machine is busy")
        dropped = self._probes.dropped(ours)
        if dropped:
            time.sleep(_CALM)
            self._probes.look()
            dropped = self._probes.dropped(ours)
        order = ordered(self._workload.deployments, number)
        measurements = [
            self._measurement(each, number, place, [dropped] if dropped else []) for place, each in enumerate(order)
        ]
        if not self._design.again or not number:
            return
        excluded = [each for each, measurement in zip(order, measurements, strict=True) if not measurement.counts]
        by_machine = [
            measurement
            for measurement in measurements
            if not measurement.counts and measurement.wall is not None and measurement.checks.passed
        ]
        if len(by_machine) > 1 and len(by_machine) > len(order) / 2:
            self._display.says("most of this round was excluded because of the machine: it is not run again")
            return
        for place, each in enumerate(excluded, len(order)):
            self._measurement(each, number, place, [], again=True)

    def _measurement(
        self, deployment: Deployment, number: int, place: int, excluded: list[str], *, again: bool = False
    ) -> Measurement:
        begun = time.monotonic()
        deployments = self._workload.deployments
        left = None
        if number:
            rest = ordered(deployments, number)[place:] if not again else [deployment]
            rounds = self._time_left.left(deployments, self._design.repeat - number)
            this = self._time_left.left(rest, 1)
            left = None if rounds is None or this is None else rounds + this
        self._display.begins(Position(deployment, number, self._design.repeat, left, again), self._workload)
        name = label(deployment, deployments.index(deployment) + 1)
        batch = f"{self._workload.scenario.name}-{self._stamp}-{number}{'b' if again else ''}-{name}"
        measurement, note = self._measure(deployment, number, place, batch, excluded)
        self._measurements.append(measurement)
        if number:
            self._time_left.took[deployment.name] = time.monotonic() - begun
        self._display.measured(measurement, note)
        return measurement

    def _measure(
        self, deployment: Deployment, number: int, place: int, batch: str, excluded: list[str]
    ) -> tuple[Measurement, str | None]:
        """One turn: workers made ready, jobs run and watched from all sides, all written down.

        Args:
            excluded: what is known to spoil it before it begins.

        Returns:
            The turn, and why it ended early, if it did.
        """
        workload = self._workload
        jobs = len(workload.share(deployment, warm_up=number == 0).names)
        keep = number == 1 or jobs <= KEEP_ALL
        seen = _Seen(list(excluded))
        with workload.deployed(deployment, batch) as workers:
            with workload.arrivals() if keep else nullcontext() as arrivals, self._observed(workers, batch, seen):
                ran = workload.run(deployment, batch, workers, self._display, warm_up=number == 0)
            seen.excluded += workload.disturbances(ran, workers)
        workload.discard(batch)

        def belongs(who: Executor) -> bool:
            return workers.belongs(who, seen.pids)

        checked = checks.check(deployment, jobs, ran.jobs, belongs)
        measurement = Measurement(
            deployment=deployment.name,
            round=number,
            place=place,
            batch=batch,
            submitted=ran.submitted,
            wall=checks.wall(ran.submitted, ran.jobs),
            spans=checks.spans(ran.submitted, ran.jobs),
            checks=checked,
            usage=seen.usage,
            excluded=(*seen.excluded, *checks.of_checks(checked)),
            jobs=_with_arrivals(ran, arrivals) if keep else (),
        )
        return measurement, ran.note

    @contextmanager
    def _observed(self, workers: Workers, batch: str, seen: _Seen) -> Iterator[None]:
        watch = Sampler(workers.roots, workers.probes)
        watch.start()
        before, others, begun = sampler.machine(), _cpu(workers.others), time.monotonic()
        try:
            yield
        finally:
            seen.usage = watch.stop()
            seen.pids = frozenset(watch.pids)
            self._costs[batch] = watch.cost
        after, seconds = sampler.machine(), time.monotonic() - begun
        ours = None
        if others is not None and seen.usage and (now := _cpu(workers.others)) is not None:
            ours = now - others + seen.usage.cpu
        if before and after:
            seen.excluded += checks.of_machine(before, after, seconds, ours, self._design.limits)

    def _experiment(self, finished: float) -> Experiment:
        design, deployments = self._design, self._workload.deployments
        notes = [*self._about, *self._notes, *self._workload.afterthoughts()]
        if design.warm_up and design.limits is not NONE:
            notes.append(Note(design.limits.text))
        names = [each.name for each in deployments]
        notes += checks.too_few(self._measurements, names, design.repeat)
        return Experiment(
            scenario=self._workload.scenario,
            deployments=deployments,
            measurements=tuple(self._measurements),
            started=self._started,
            finished=finished,
            command=str(design.request),
            request=design.request,
            versions=self._versions,
            machine=self._machine,
            cores=self._probes.cores(),
            sampling=self._sampling(),
            notes=tuple(note.text for note in notes),
            caveats=tuple(note.text for note in notes if note.caveat),
        )

    def _sampling(self) -> Sampling | None:
        counted = [measurement for measurement in self._measurements if measurement.counts and measurement.usage]
        used = sum(measurement.usage.cpu for measurement in counted if measurement.usage)
        cost = sum(self._costs.get(measurement.batch, 0.0) for measurement in counted)
        return Sampling(sampler.EVERY, round(cost, 4), round(cost / used, 4) if used else 0.0) if counted else None


@dataclass(slots=True)
class _Seen:
    """What was seen around a run."""

    excluded: list[str]
    usage: Usage | None = None
    pids: frozenset[int] = frozenset()


def _with_arrivals(ran: Ran, arrivals: Arrivals | None) -> tuple[MeasuredJob, ...]:
    """The jobs, and when each was received."""
    moments = arrivals() if arrivals else {}
    return tuple(arrived(job, moments.get(job.id)) for job in ran.jobs)


def arrived(job: MeasuredJob, received: float | None) -> MeasuredJob:
    """The job, received between queued and started, where it must be."""
    if received is not None and job.attempts:
        received = max(job.queued, min(received, job.attempts[0].started))
    return replace(job, received=received)


def _cpu(roots: Sequence[int] | None) -> float | None:
    """Seconds that the rest of the stack, and we, have used."""
    if roots is None:
        return None
    with suppress(OSError):
        seen = [sampler.process(pid) for pid in sampler.tree(roots)]
        return time.process_time() + sum(each.cpu + each.cpu_of_children for each in seen if each)
    return None


def ordered(deployments: Sequence[Deployment], number: int) -> list[Deployment]:
    """The order of a round: it begins one further than the round before."""
    first = (number - 1) % len(deployments)
    return [*deployments[first:], *deployments[:first]]


def label(deployment: Deployment, place: int) -> str:
    """``threads-100``; with options also its place among the deployments: a batch's name has no room for them."""
    plain = deployment.name.partition("+")[0].replace(":", "-")
    return f"{plain}-{place}" if deployment.setup.options else plain


def stamp() -> str:
    """What tells the batches of two comparisons apart."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
