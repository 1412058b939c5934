"""How an answer was found, in words: each sentence has the figures it follows from, and nothing is said that was not
measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ledger.jobs import Pool
from producer.comparison import wording
from producer.comparison.choice import ALIKE, MARGIN, TIE, Choice, Curve, Standing, standing
from producer.comparison.experiment import Experiment
from producer.comparison.figures import Row, Summary
from producer.comparison.intervals import LEAST

SEVERAL_CORES = 1.5  # effective ones, or nothing can be said about several
FULL = 0.8  # of the effective cores: the CPU is what limits
MATTERS = 0.4  # of the effective cores: with others on the machine, more cores might have been used
ONE_CORE = 0.85  # cores that a single process uses: as good as one, for Python


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer has to keep."""

    memory: int | None = None  # bytes of PSS at the peak, all processes of the worker together
    p99: float | None = None  # seconds from the submission of all jobs to a job's end


def fits(row: Row, limits: Limits) -> bool:
    """Whether a contestant keeps the limits; what is not known does not."""
    memory = limits.memory is None or (row.memory is not None and row.memory.peak <= limits.memory)
    return memory and (limits.p99 is None or (row.latency is not None and row.latency.p99 <= limits.p99))


def cores_of(row: Row) -> float | None:
    """Cores' worth of CPU that it used."""
    return row.cores_used.median if row.cores_used else None


def effective(experiment: Experiment) -> float | None:
    return experiment.cores.effective if experiment.cores else None


def processes(row: Row) -> int | None:
    """In which its jobs run, one for each worker; None: prefork has one for each slot."""
    return None if row.contestant.pool is Pool.PREFORK else row.contestant.setup.workers


# -- how the answer was found


def measured(experiment: Experiment, summary: Summary, able: Sequence[Row]) -> Iterator[str]:
    yield (
        f"Measured: {experiment.scenario.title} ({wording.counted(experiment.scenario.jobs, 'job')});"
        f" {wording.counted(len(summary.rows), 'contestant')} in {wording.counted(summary.rounds, 'round')} after the"
        " warm-up."
    )
    spoiled = [f"{row.name} {reason}" for row in summary.rows for reason in row.excluded]
    if spoiled:
        more = f"; and {len(spoiled) - 6} more" if len(spoiled) > 6 else ""
        yield f"Left out, {len(spoiled)} turns: {'; '.join(spoiled[:6])}{more}."
    few = [f"{row.name} ({row.turns})" for row in summary.rows if row not in able and not row.contestant.serial]
    if few:
        yield f"Not compared, because fewer than {LEAST} of their turns count: {', '.join(few)}."


def noted(notes: Sequence[str]) -> Iterator[str]:
    """What whoever measured says that a reader must know."""
    yield from (f"Note: {note}." for note in notes)


def limited(able: Sequence[Row], limits: Limits) -> Iterator[str]:
    if out := [row for row in able if not fits(row, limits)]:
        yield f"Beyond the limits: {', '.join(f'{row.name} ({_limited(row)})' for row in out)}."


def _limited(row: Row) -> str:
    peak = wording.size(row.memory.peak) if row.memory else "memory not known"
    p99 = f"p99 {wording.seconds(row.latency.p99)}" if row.latency else "p99 not known"
    return f"{peak}, {p99}"


def chosen(experiment: Experiment, summary: Summary, choice: Choice) -> Iterator[str]:
    for curve in choice.curves:
        yield _curve(summary, curve)
    yield from _knees(summary, choice)
    if choice.criterion:
        yield _tie(choice)
    yield from _cores(experiment, choice)
    if choice.rival and not math.isinf(choice.regret):
        yield _regret(choice)
    if choice.pick.speedup:
        yield f"{choice.pick.name} is {wording.ratio(choice.pick.speedup)} times as fast as one job at a time."
    if choice.pick.share_of_ideal:
        reached = choice.pick.share_of_ideal.median
        yield f"{choice.pick.name} reaches {reached:.0%} of the best that its slots allow for these paced jobs."


def _curve(summary: Summary, curve: Curve) -> str:
    points = ", ".join(wording.rate_of(row) for row in curve.rows)
    if len(curve.rows) == 1:
        return f"{curve.name}: {points}; one point is no curve."
    if curve.knee is curve.best:
        why = "nothing else is as fast" if curve.reached else "the most that was measured"
    else:
        found = summary.compare(curve.knee.name, curve.best.name).ratio
        why = f"{wording.ratio(found)} of {curve.best.name}, the fastest: not worth more slots"
    return f"{curve.name}: {points}; the knee is at {curve.knee.contestant.slots_each}: {why}."


def _knees(summary: Summary, choice: Choice) -> Iterator[str]:
    for curve in choice.curves:
        if curve.knee is choice.best:
            continue
        how = {
            Standing.BEHIND: "is slower than",
            Standing.TIED: f"is tied with (within {TIE:.0%} for certain)",
            Standing.OPEN: "cannot be told from",
        }[standing(summary, curve.knee, choice.best)]
        found = summary.compare(curve.knee.name, choice.best.name).ratio
        yield f"{curve.knee.name} {how} {choice.best.name}, the fastest knee: {wording.ratio(found)} of its jobs/s."


def runner_up(summary: Summary, choice: Choice) -> str | None:
    """Its rate beside the pick's, and the verdict."""
    if choice.runner_up is None:
        return None
    found = summary.compare(choice.runner_up.name, choice.pick.name)
    return f"{wording.ratio(found.ratio)} of its jobs/s: {found.verdict}"


def _tie(choice: Choice) -> str:
    figures = "; ".join(f"{row.name} {_limited(row)}, {row.contestant.slots} slots" for row in choice.tied)
    options = ", then fewer options" if any(row.contestant.setup.options for row in choice.tied) else ""
    return (
        f"A tie of {len(choice.tied)}, decided by less memory, then a shorter p99 of latency, then fewer slots{options}"
        f" (where they differ by more than {ALIKE:.0%}): {figures}. {choice.pick.name} has {choice.criterion}."
    )


def _regret(choice: Choice) -> str:
    if choice.regret <= MARGIN:
        return f"Nothing measured is faster than {choice.pick.name} by more than {max(choice.regret, 0.01):.0%}."
    return (
        f"What the noise leaves open: {choice.rival.name if choice.rival else 'another'} may be"
        f" {wording.faster(choice.regret, choice.pick.name)}."
    )


def _cores(experiment: Experiment, choice: Choice) -> Iterator[str]:
    used, cores = cores_of(choice.pick), effective(experiment)
    if used is None or choice.pick.cpu_per_job is None:
        yield "CPU was not measured: nothing is said about it."
        return
    of = f"{used / cores:.0%} of the {cores:.2g} cores that the probes found" if cores else "cores were not probed"
    yield (
        f"{choice.pick.name} uses {wording.seconds(choice.pick.cpu_per_job.median)} of CPU per job, {used:.2g} cores:"
        f" {of} (origin, Redis and producer not counted)."
    )
    for curve in choice.curves:
        yield from _one_core(curve, cores)
    if gated(experiment, choice):
        found = "cores were not probed" if cores is None else f"the probes found {cores:.2g} effective cores"
        yield (
            f"A conclusion about several cores cannot be drawn: {found}, and {SEVERAL_CORES} are needed to tell a pool"
            " that uses several from one that cannot."
        )


def _one_core(curve: Curve, cores: float | None) -> Iterator[str]:
    """A pool of one process that fills one core: whether its jobs wait for one another."""
    least, most = curve.rows[0], curve.rows[-1]
    used = cores_of(most)
    if processes(most) != 1 or least is most or used is None or used < ONE_CORE * min(1.0, cores or 1.0):
        return
    if not least.run or not most.run:
        return
    grew = most.run.p50 / least.run.p50 if least.run.p50 else 1.0
    where = "one thread of one process" if curve.pool is Pool.GEVENT else "one process, whose threads share the GIL"
    yield (
        f"{curve.name} is {where}: {most.name} uses {used:.2g} cores, and a job runs {wording.seconds(most.run.p50)}"
        f" there instead of {wording.seconds(least.run.p50)} in {least.name}, {grew:.2g} times as long: jobs wait for"
        " that core."
    )


def busy(experiment: Experiment, row: Row) -> bool:
    """Whether CPU is what limits it: the cores that there are, or the one that each of its processes can use."""
    used, cores, of = cores_of(row), effective(experiment), processes(row)
    if used is None:
        return False
    return (of is not None and used >= ONE_CORE * of) or (cores is not None and used >= FULL * cores)


def gated(experiment: Experiment, choice: Choice) -> bool:
    """Whether more than one core would matter, and could not be seen."""
    cores = effective(experiment)
    if cores is not None and cores >= SEVERAL_CORES:
        return False
    used = [cores_of(row) or 0.0 for curve in choice.curves for row in (curve.knee, curve.best)]
    return max(used) >= MATTERS * (cores or 1.0)
