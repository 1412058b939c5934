"""An experiment, run: rounds of measurements in rotated order, the warm-up first, excluded measurements once more.

Ctrl-C, or SIGTERM, cancels what runs and keeps what was measured: the experiment then says that it is not whole. So it
is when the workload fails for good, or a worker does not start.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from poolbench import checks, sampler
from poolbench.checks import NONE, NoiseLimits
from poolbench.experiment import Deployment, Experiment, MeasuredJob, Measurement, Note, RunCommand
from poolbench.sampler import Sampler
from poolbench.workload import Display, Workers, Workload

KEEP_ALL = 50  # jobs: of measurements with no more, the jobs are always kept; of others, those of the first round
_BUSY = 0.6  # of the cores: a machine that gives less is said to be busy


@dataclass(frozen=True, slots=True)
class Design:
    """How an experiment is to be run."""

    repeat: int
    request: RunCommand
    warm_up: bool = True
    again: bool = True  # run an excluded measurement once more
    limits: NoiseLimits = field(default_factory=NoiseLimits)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    experiment: Experiment
    cut: BaseException | None = None  # what ended it early


def run_experiment(workload: Workload, design: Design, display: Display) -> RunOutcome:
    """
    Raises:
        KeyboardInterrupt, one of the workload's failures: before there was anything to keep.
    """
    return _Rounds(workload, design, display).run()


class _Rounds:
    def __init__(self, workload: Workload, design: Design, display: Display) -> None:
        self._workload = workload
        self._design = design
        self._display = display
        self._probes: list[float] = []  # cores that were ours, before each round and at the end
        self._measurements: list[Measurement] = []
        self._begun = time.monotonic()
        self._stamp = stamp()

    def run(self) -> RunOutcome:
        self._started, self._machine = self._workload.now(), sampler.describe_machine()  # before the load is ours
        self._versions, self._notes = self._workload.versions(), self._workload.notes()
        number = 0
        stops: tuple[type[BaseException], ...] = (KeyboardInterrupt, *self._workload.failures)
        try:
            for number in range(0 if self._design.warm_up else 1, self._design.repeat + 1):
                self._round(number)
            self._probes.append(sampler.probe())
        except stops as cut:
            if not self._measurements:
                raise
            why = "interrupted" if isinstance(cut, KeyboardInterrupt) else f"ended early ({cut})"
            self._notes.append(Note(f"{why} in {self._turn(number)}: what was measured is here", caveat=True))
            last = self._measurements[-1]
            return RunOutcome(self._experiment(last.submitted + (last.wall or 0.0)), cut)
        return RunOutcome(self._experiment(self._workload.now()))

    def _round(self, number: int) -> None:
        self._probes.append(found := sampler.probe())
        if found < _BUSY * sampler.nominal() and len(self._probes) == 1:
            self._display.says(f"only {found:.2f} of {sampler.nominal()} cores are ours now: this machine is busy")
        order = ordered(self._workload.deployments, number)
        found_all = [self._measure(each, number) for each in order]
        if not self._design.again or not number:
            return
        for each, measured in zip(order, found_all, strict=True):
            if not measured.counts:
                self._measure(each, number, again=True)

    def _measure(self, deployment: Deployment, number: int, *, again: bool = False) -> Measurement:
        """Workers made ready, jobs run and observed, all written down."""
        workload, warm_up = self._workload, number == 0
        names = workload.share(deployment, warm_up=warm_up)
        self._display.begins(deployment, self._turn(number), names, self._left(number))
        name = label(deployment, workload.deployments.index(deployment) + 1)
        batch = f"{workload.scenario.name}-{self._stamp}-{number}{'b' if again else ''}-{name}"
        keep = number == 1 or len(names) <= KEEP_ALL
        with workload.deployed(deployment, batch) as workers:
            watch = Sampler(workers.roots, workers.probes)
            with workload.arrivals() if keep else nullcontext() as arrivals, self._observed(workers, watch) as noise:
                ran = workload.run(deployment, batch, workers, self._display, warm_up=warm_up)
            excluded = [*noise, *workload.disturbances(ran, workers)]
        workload.discard(batch)

        received = arrivals() if arrivals else {}
        seen = frozenset(watch.pids)
        checked = checks.check(deployment, len(names), ran.jobs, lambda who: workers.belongs(who, seen))
        measurement = Measurement(
            deployment=deployment.name,
            round=number,
            batch=batch,
            submitted=ran.submitted,
            wall=checks.wall(ran.submitted, ran.jobs),
            spans=checks.spans(ran.submitted, ran.jobs),
            checks=checked,
            usage=watch.usage,
            excluded=(*excluded, *checks.of_checks(checked)),
            jobs=tuple(arrived(job, received.get(job.id)) for job in ran.jobs) if keep else (),
        )
        self._measurements.append(measurement)
        self._display.measured(measurement, ran.note)
        return measurement

    def _turn(self, number: int) -> str:
        return f"round {number} of {self._design.repeat}" if number else "the warm-up"

    def _left(self, number: int) -> float | None:
        """Seconds until the end, from what all measurements took so far; None: some have not had their first."""
        if number < 2:
            return None
        rounds, done = self._design.repeat + self._design.warm_up, len(self._measurements)
        left = max(0, rounds * len(self._workload.deployments) - done)
        return left * (time.monotonic() - self._begun) / done

    @contextmanager
    def _observed(self, workers: Workers, watch: Sampler) -> Iterator[list[str]]:
        """What the machine did meanwhile that excludes the measurement is in the list at the end."""
        found: list[str] = []
        watch.start()
        before, others, begun = sampler.machine(), _cpu(workers.others), time.monotonic()
        try:
            yield found
        finally:
            usage = watch.stop()
        after, seconds, now = sampler.machine(), time.monotonic() - begun, _cpu(workers.others)
        ours = None if others is None or now is None or not usage else now - others + usage.cpu
        if before and after:
            found += checks.of_machine(before, after, seconds, ours, self._design.limits)

    def _experiment(self, finished: float) -> Experiment:
        design, deployments = self._design, self._workload.deployments
        notes = [*self._notes, *self._workload.afterthoughts()]
        if design.limits is not NONE:
            notes.append(Note(design.limits.text))
        notes += checks.too_few(self._measurements, [each.name for each in deployments], design.repeat)
        return Experiment(
            scenario=self._workload.scenario,
            deployments=deployments,
            measurements=tuple(self._measurements),
            started=self._started,
            finished=finished,
            request=design.request,
            versions=self._versions,
            machine=self._machine,
            cores=sampler.cores(self._probes),
            notes=tuple(note.text for note in notes),
            caveats=tuple(note.text for note in notes if note.caveat),
        )


def arrived(job: MeasuredJob, received: float | None) -> MeasuredJob:
    """The job, received between queued and started, where it must be."""
    if received is not None and job.attempts:
        received = max(job.queued, min(received, job.attempts[0].started))
    return replace(job, received=received)


def _cpu(roots: Sequence[int] | None) -> float | None:
    """Seconds that the rest of the stack, and we, have used."""
    return None if roots is None else time.process_time() + sampler.cpu(sampler.tree(roots))


def ordered(deployments: Sequence[Deployment], number: int) -> list[Deployment]:
    """The order of a round: it begins one further than the round before."""
    first = (number - 1) % len(deployments)
    return [*deployments[first:], *deployments[:first]]


def label(deployment: Deployment, place: int) -> str:
    """``threads-100``; with options also its place among the deployments: a batch's name has no room for them."""
    plain = deployment.name.partition("+")[0].replace(":", "-")
    return f"{plain}-{place}" if deployment.setup.options else plain


def stamp() -> str:
    """Tells the batches of two experiments apart."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
