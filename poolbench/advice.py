"""Which pool, with what concurrency, for the work that was measured: one command, and why.

The answer follows from the measurements alone (``choice`` says how; ``reasons`` puts the figures into words). Nothing
is taken from a rule of thumb, and nothing from what the scenario calls itself. Where the noise is larger than the
difference, where too little was measured, or where nothing keeps the limits, the answer is that we cannot tell, and
what to measure next.

A conclusion about several cores is gated by what the probes found: below ``SEVERAL_CORES`` effective cores it cannot be
drawn, whatever the machine claims to have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from poolbench import figures
from poolbench.choice import ALIKE, MARGIN, REGRET, TIE, Choice, Curve, Standing, comparable, decide, standing
from poolbench.deployment import Spec
from poolbench.experiment import Experiment, Pool, Request, Setup
from poolbench.runfiles import pooled
from poolbench.statistics import LEAST, Row, Summary, summarise


class Confidence(StrEnum):
    HIGH = "high"  # nothing limits it
    MODERATE = "moderate"  # one or two things do
    LOW = "low"  # more do
    NONE = "cannot tell"


@dataclass(frozen=True, slots=True)
class Advice:
    """For people and as JSON. Sentences have their figures in them."""

    scenario: str
    confidence: Confidence
    because: tuple[str, ...]  # what limits the confidence, or why we cannot tell
    compared: tuple[str, ...]  # the deployments it was chosen from
    reasoning: tuple[str, ...]  # to be numbered
    next: tuple[str, ...]  # commands that would make the answer surer
    limits: Limits
    answer: str | None = None  # the deployment's name; None: cannot tell
    command: str | None = None  # starts workers like it
    tied: tuple[str, ...] = ()  # those as good as the answer in jobs per second ...
    criterion: str | None = None  # ... and what it was chosen by
    runner_up: str | None = None
    runner_up_rate: str | None = None  # beside the answer's, and the verdict
    gives_up: tuple[str, ...] = ()  # what others do better
    would_change: tuple[str, ...] = ()  # the answer


def recommend(experiments: Sequence[Experiment], limits: Limits | None = None, *, conditions: bool = True) -> Advice:
    """The advice of runs of one kind, taken together.

    Args:
        conditions: whether the notes on the conditions are among the reasons; not on a page that has them by itself.

    Raises:
        ValueError: there are none, or they differ in scenario, machine or versions; see ``pooling.agreeing``.
    """
    limits = limits or Limits()
    experiment = pooled(experiments)
    summary = summarise(experiment)
    able = comparable(summary)
    rows = [row for row in able if fits(row, limits)]
    choice = decide(summary, rows) if len(able) >= 2 else None
    lines = [
        *measured(experiment, summary, able),
        *noted(experiment.notes if conditions else experiment.caveats),
        *limited(able, limits),
    ]
    if choice:
        lines += chosen(experiment, summary, choice)
    unsure = Advice(
        scenario=experiment.scenario.name,
        confidence=Confidence.NONE,
        because=tuple(nothing_to_choose(summary, able, rows)),
        compared=tuple(row.name for row in rows),
        reasoning=tuple(lines),
        next=tuple(next_when_unable(experiment, able)),
        limits=limits,
    )
    if choice is None:
        return unsure
    against = list(objections(experiment, summary, choice))
    unsure = replace(unsure, next=tuple(next_commands(experiment, choice)))
    if not choice.certain:
        return replace(unsure, because=(too_noisy(choice), *against))
    pick = choice.pick.deployment
    return replace(
        unsure,
        answer=choice.pick.name,
        command=pick.command,
        confidence=_confidence(len(against)),
        because=tuple(against),
        tied=tuple(row.name for row in choice.tied if row is not choice.pick),
        criterion=choice.criterion,
        runner_up=choice.runner_up.name if choice.runner_up else None,
        runner_up_rate=runner_up(summary, choice),
        gives_up=tuple(gives_up(summary, choice, rows)),
        would_change=tuple(would_change(experiment, summary, choice, rows)),
    )


def _confidence(objections: int) -> Confidence:
    if not objections:
        return Confidence.HIGH
    return Confidence.MODERATE if objections <= 2 else Confidence.LOW


# -- how the answer was found


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
    """Whether a deployment keeps the limits; what is not known does not."""
    memory = limits.memory is None or (row.memory is not None and row.memory.peak <= limits.memory)
    return memory and (limits.p99 is None or (row.latency is not None and row.latency.p99 <= limits.p99))


def cores_of(row: Row) -> float | None:
    """Cores' worth of CPU that it used."""
    return row.cores_used.median if row.cores_used else None


def effective(experiment: Experiment) -> float | None:
    return experiment.cores.effective if experiment.cores else None


def processes(row: Row) -> int | None:
    """In which its jobs run, one for each worker; None: prefork has one for each job at once."""
    return None if row.deployment.pool is Pool.PREFORK else row.deployment.setup.workers


# -- how the answer was found


def measured(experiment: Experiment, summary: Summary, able: Sequence[Row]) -> Iterator[str]:
    yield (
        f"Measured: {experiment.scenario.title} ({figures.counted(experiment.scenario.jobs, 'job')});"
        f" {figures.counted(len(summary.rows), 'deployment')} in {figures.counted(summary.rounds, 'round')} after the"
        " warm-up."
    )
    excluded = [f"{row.name} {reason}" for row in summary.rows for reason in row.excluded]
    if excluded:
        more = f"; and {len(excluded) - 6} more" if len(excluded) > 6 else ""
        yield f"Left out, {len(excluded)} turns: {'; '.join(excluded[:6])}{more}."
    few = [f"{row.name} ({row.measurements})" for row in summary.rows if row not in able and not row.deployment.serial]
    if few:
        yield f"Not compared, because fewer than {LEAST} of their turns count: {', '.join(few)}."


def noted(notes: Sequence[str]) -> Iterator[str]:
    """The notes of the experiment."""
    yield from (f"Note: {note}." for note in notes)


def limited(able: Sequence[Row], limits: Limits) -> Iterator[str]:
    if out := [row for row in able if not fits(row, limits)]:
        yield f"Beyond the limits: {', '.join(f'{row.name} ({_limited(row)})' for row in out)}."


def _limited(row: Row) -> str:
    peak = figures.size(row.memory.peak) if row.memory else "memory not known"
    p99 = f"p99 {figures.seconds(row.latency.p99)}" if row.latency else "p99 not known"
    return f"{peak}, {p99}"


def chosen(experiment: Experiment, summary: Summary, choice: Choice) -> Iterator[str]:
    for curve in choice.curves:
        yield _curve_in_words(summary, curve)
    yield from _knees(summary, choice)
    if choice.criterion:
        yield _tie(choice)
    yield from _cores(experiment, choice)
    if choice.rival and not math.isinf(choice.regret):
        yield _regret(choice)
    if choice.pick.speedup:
        yield f"{choice.pick.name} is {figures.ratio(choice.pick.speedup)} times as fast as one job at a time."
    if choice.pick.share_of_ideal:
        reached = choice.pick.share_of_ideal.median
        yield f"{choice.pick.name} reaches {reached:.0%} of the best that its concurrency allows for these paced jobs."


def _curve_in_words(summary: Summary, curve: Curve) -> str:
    points = ", ".join(figures.rate_of(row) for row in curve.rows)
    if len(curve.rows) == 1:
        return f"{curve.name}: {points}; one point is no curve."
    if curve.saturation is curve.best:
        why = "nothing else is as fast" if curve.reached else "the most that was measured"
    else:
        found = summary.compare(curve.saturation.name, curve.best.name).ratio
        why = f"{figures.ratio(found)} of {curve.best.name}, the fastest: not worth a higher concurrency"
    return f"{curve.name}: {points}; the saturation point is {curve.saturation.deployment.concurrency_each}: {why}."


def _knees(summary: Summary, choice: Choice) -> Iterator[str]:
    for curve in choice.curves:
        if curve.saturation is choice.best:
            continue
        how = {
            Standing.BEHIND: "is slower than",
            Standing.TIED: f"is tied with (within {TIE:.0%} for certain)",
            Standing.OPEN: "cannot be told from",
        }[standing(summary, curve.saturation, choice.best)]
        found = summary.compare(curve.saturation.name, choice.best.name).ratio
        yield (
            f"{curve.saturation.name} {how} {choice.best.name}, the fastest saturation point: {figures.ratio(found)} of"
            " its jobs/s."
        )


def runner_up(summary: Summary, choice: Choice) -> str | None:
    """Its rate beside the pick's, and the verdict."""
    if choice.runner_up is None:
        return None
    found = summary.compare(choice.runner_up.name, choice.pick.name)
    return f"{figures.ratio(found.ratio)} of its jobs/s: {found.verdict}"


def _tie(choice: Choice) -> str:
    figures = "; ".join(f"{row.name} {_limited(row)}, concurrency {row.deployment.concurrency}" for row in choice.tied)
    options = ", then fewer options" if any(row.deployment.setup.options for row in choice.tied) else ""
    return (
        f"A tie of {len(choice.tied)}, decided by less memory, then a shorter p99 of latency, then a lower"
        f" concurrency{options} (where they differ by more than {ALIKE:.0%}): {figures}. {choice.pick.name} has"
        f" {choice.criterion}."
    )


def _regret(choice: Choice) -> str:
    if choice.regret <= MARGIN:
        return f"Nothing measured is faster than {choice.pick.name} by more than {max(choice.regret, 0.01):.0%}."
    return (
        f"What the noise leaves open: {choice.rival.name if choice.rival else 'another'} may be"
        f" {figures.faster(choice.regret, choice.pick.name)}."
    )


def _cores(experiment: Experiment, choice: Choice) -> Iterator[str]:
    used, cores = cores_of(choice.pick), effective(experiment)
    if used is None or choice.pick.cpu_per_job is None:
        yield "CPU was not measured: nothing is said about it."
        return
    of = f"{used / cores:.0%} of the {cores:.2g} cores that the probes found" if cores else "cores were not probed"
    yield (
        f"{choice.pick.name} uses {figures.seconds(choice.pick.cpu_per_job.median)} of CPU per job, {used:.2g} cores:"
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
        f"{curve.name} is {where}: {most.name} uses {used:.2g} cores, and a job runs {figures.seconds(most.run.p50)}"
        f" there instead of {figures.seconds(least.run.p50)} in {least.name}, {grew:.2g} times as long: jobs wait for"
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
    used = [cores_of(row) or 0.0 for curve in choice.curves for row in (curve.saturation, curve.best)]
    return max(used) >= MATTERS * (cores or 1.0)


# -- what speaks against it, and what to measure next


ROUNDS = 5  # with fewer, an interval depends on how the noise is distributed
NARROWER = 9  # rounds from which on an interval is narrower than the range
MOST_ROUNDS = 30  # more are not proposed
OFTEN = 0.2  # of the turns excluded: the machine was not ours
OURS = 0.75  # of the machine's cores; with less, others are measured too
SAMPLING = 0.05  # of the deployments' CPU


def too_noisy(choice: Choice) -> str:
    rival = choice.rival.name if choice.rival else "another deployment"
    if math.isinf(choice.regret):
        return (
            f"{choice.pick.name} and {rival} cannot be compared: they had other jobs, or fewer than {LEAST} rounds in"
            " which both count"
        )
    return (
        f"{rival} may be {figures.faster(choice.regret, choice.pick.name)}; an answer is given only if it is certain"
        f" that nothing is more than {REGRET:.0%} faster"
    )


def objections(experiment: Experiment, summary: Summary, choice: Choice) -> Iterator[str]:
    pick = choice.pick
    if pick.measurements < ROUNDS:
        yield f"{pick.measurements} rounds count; below {ROUNDS} much depends on how the noise is distributed"
    measurements = sum(row.measurements for row in summary.rows) + summary.excluded
    if summary.excluded > OFTEN * measurements:
        yield f"{summary.excluded} of {measurements} turns were excluded"
    if len({curve.pool for curve in choice.curves}) == 1:
        yield f"no pool but {pick.deployment.pool} was compared"
    saturated = [curve.saturation for curve in choice.curves if curve.saturation is not pick]
    if unclear := [saturation.name for saturation in saturated if is_open(summary, pick, saturation)]:
        yield f"whether {' or '.join(unclear)} is slower cannot be told"
    yield from _open_ends(experiment, choice)
    if choice.certain and choice.regret > TIE:
        yield f"another may be up to {choice.regret:.0%} faster"
    if gated(experiment, choice):
        yield (
            "CPU matters here, and several cores could not be seen: it holds for this machine only; run the same"
            " command on a machine with at least two free cores"
        )
    cores = experiment.cores
    if cores and cores.effective < OURS * cores.nominal:
        yield f"the machine gave {cores.effective:.2g} of its {cores.nominal} cores: others were at work"
    if experiment.sampling and experiment.sampling.share > SAMPLING:
        yield f"measuring took {experiment.sampling.share:.0%} of the CPU that the deployments took"


def is_open(summary: Summary, pick: Row, other: Row) -> bool:
    """Whether the noise hides which of two is faster, and by more than a tie."""
    return all(standing(summary, *pair) is Standing.OPEN for pair in ((pick, other), (other, pick)))


def _open_ends(experiment: Experiment, choice: Choice) -> Iterator[str]:
    curve = choice.curve
    concurrency, each = choice.pick.deployment.concurrency, choice.pick.deployment.concurrency_each
    if curve.reached or concurrency is None:
        return
    if concurrency >= experiment.scenario.jobs:
        jobs = experiment.scenario.jobs
        yield f"there were no more jobs ({jobs}) than ran at once: the saturation point needs more jobs"
    elif not busy(experiment, choice.pick):
        yield f"the saturation point of {curve.name} was not reached: a concurrency above {each} was not measured"


def nothing_to_choose(summary: Summary, able: Sequence[Row], rows: Sequence[Row]) -> Iterator[str]:
    """Why there is no choice at all."""
    if len(able) >= 2 and not rows:
        peaks = [(row.memory.peak, row.name) for row in able if row.memory]
        tails = [(row.latency.p99, row.name) for row in able if row.latency]
        least = f"; the least memory is {figures.size(min(peaks)[0])} ({min(peaks)[1]})" if peaks else ""
        shortest = f"; the shortest p99 is {figures.seconds(min(tails)[0])} ({min(tails)[1]})" if tails else ""
        yield f"no deployment keeps the limits{least}{shortest}"
    elif able:
        yield f"only {able[0].name} has {LEAST} turns that count: there is nothing to compare it with"
    else:
        measurements = ", ".join(f"{row.name} {row.measurements}" for row in summary.rows if not row.deployment.serial)
        yield f"no deployment has {LEAST} turns that count ({measurements or 'there are none'})"


# -- what to measure next


def next_commands(experiment: Experiment, choice: Choice) -> Iterator[str]:
    """Commands that would settle what is open."""
    if math.isinf(choice.regret) and choice.pick.measurements >= ROUNDS:
        return  # more of the same would bring nothing
    if not choice.certain or choice.pick.measurements < ROUNDS or choice.regret > TIE:
        yield again(experiment, rounds=_rounds(choice))
    pick = choice.pick.deployment
    if pick.concurrency and not choice.curve.reached and not busy(experiment, choice.pick):
        jobs = 4 * pick.concurrency if pick.concurrency >= experiment.scenario.jobs else None
        wider = [Spec(pick.pool, (pick.concurrency_each or 0) * times, pick.setup) for times in (2, 4)]
        names = [each.name for each in wider if each.possible]
        if names or jobs:
            yield again(experiment, [choice.pick.name, *names] if names else [], jobs=jobs)


def next_when_unable(experiment: Experiment, able: Sequence[Row]) -> Iterator[str]:
    """Commands that would bring something to choose from."""
    if len(able) < 2:
        yield again(experiment, rounds=ROUNDS)
        return
    fewest: dict[tuple[Pool, Setup], int] = {}
    for row in able:
        if concurrency := row.deployment.concurrency_each:
            kind = row.deployment.pool, row.deployment.setup
            fewest[kind] = min(concurrency, fewest.get(kind, concurrency))
    if fewer := [Spec(pool, least // 2, setup).name for (pool, setup), least in fewest.items() if least > 1]:
        yield again(experiment, fewer)


def _rounds(choice: Choice) -> int:
    """So many that the interval should be narrow enough: its width falls with the square root of their number."""
    measurements = max(choice.pick.measurements, LEAST)
    if math.isinf(choice.regret):
        return max(2 * measurements, ROUNDS)
    wanted = max(math.ceil(measurements * (choice.regret / TIE) ** 2), measurements + 2, ROUNDS)
    return min(wanted if wanted <= ROUNDS else max(wanted, NARROWER), MOST_ROUNDS)


def again(
    experiment: Experiment, deployments: Sequence[str] = (), *, rounds: int | None = None, jobs: int | None = None
) -> str:
    """The experiment's command with other options."""
    request = experiment.request or Request.parse(experiment.command)
    return str(request.having(pools=",".join(deployments), repeat=rounds, jobs=jobs))


# -- what it costs, and what would change it


LATE = 0.005  # seconds more than elsewhere: worth a word


def gives_up(summary: Summary, choice: Choice, rows: Sequence[Row]) -> Iterator[str]:
    """What others do better."""
    pick = choice.pick
    if lean := _better(rows, pick, peak):
        found = summary.compare(lean.name, pick.name).ratio
        yield (
            f"Memory: {figures.size(peak(pick) or 0)} at the peak; {lean.name} takes"
            f" {figures.size(peak(lean) or 0)} and does {figures.ratio(found)} of its jobs/s."
        )
    if quick := _better(rows, pick, p99):
        yield (
            f"Tail latency: p99 {figures.seconds(p99(pick) or 0)} from the submission of all jobs to a job's end;"
            f" {quick.name} {figures.seconds(p99(quick) or 0)}."
        )
    if prompt := _better(rows, pick, late):
        ours, theirs = late(pick) or 0.0, late(prompt) or 0.0
        if ours > 2 * theirs and ours > theirs + LATE:
            yield (
                f"Promptness: a thread beside the jobs is {figures.seconds(ours)} late (p99), in {prompt.name}"
                f" {figures.seconds(theirs)}."
            )
    yield from _isolation(choice)


def _isolation(choice: Choice) -> Iterator[str]:
    pick = choice.pick
    where = f" (it ran in {pick.executors})" if pick.executors else ""
    if of := processes(pick):
        most = pick.deployment.concurrency_each
        yield (
            f"Isolation: what kills {'the' if of == 1 else 'a'} process takes all jobs that run in it"
            f"{f', up to {most}' if most else ''}; a process of prefork runs one{where}."
        )
        return
    if each := choice.curve.memory_per_job_at_once:
        yield f"Memory per process: each runs one job at once, and adds {figures.size(each)} to the peak{where}."


def would_change(experiment: Experiment, summary: Summary, choice: Choice, rows: Sequence[Row]) -> Iterator[str]:
    """Circumstances under which the same figures, or more of them, give another answer."""
    pick = choice.pick
    yield from _without_the_fat(summary, choice, rows)
    yield from _cpu(experiment, pick)
    most = pick.deployment.concurrency_each
    if most and not choice.curve.reached and not busy(experiment, pick):
        yield f"A higher concurrency: {choice.curve.name} above {most} was not measured."
    lives_on = pick.deployment.lives_on  # of workers that are started anew, growth would mean nothing
    if lives_on and pick.memory and pick.memory.grows and pick.memory.growth:
        yield (
            f"Time: memory grew by {figures.size(pick.memory.growth.median)} from round to round"
            f" ({experiment.scenario.jobs} jobs), and what a worker needs after a day was not measured."
        )


def _without_the_fat(summary: Summary, choice: Choice, rows: Sequence[Row]) -> Iterator[str]:
    """The choice under limits that the pick just misses."""
    for what, name, said in _LIMITS:
        ours = what(choice.pick)
        if ours is None:
            continue
        left = [row for row in rows if (theirs := what(row)) is not None and theirs < ours * (1 - ALIKE)]
        other = decide(summary, left)
        if other is None:
            continue
        found = summary.compare(other.pick.name, choice.pick.name).ratio
        doubt = "" if other.certain else ", which is not certain"
        yield f"A {name} below {said(ours)}: then {other.pick.name}{doubt}; {figures.ratio(found)} of its jobs/s."


def _cpu(experiment: Experiment, pick: Row) -> Iterator[str]:
    used, cores = cores_of(pick), effective(experiment)
    if not used or pick.cpu_per_job is None:
        return
    if cores and used >= 0.5 * cores:
        yield f"Fewer cores: it uses {used:.2g} of {cores:.2g}; with fewer than that, CPU limits it."
    most, why = _most_cores(pick, cores or 1.0)
    room = most / used
    if room > 1.1:
        yield (
            f"Jobs with more CPU: at {room:.2g} times the {figures.seconds(pick.cpu_per_job.median)} per job CPU is the"
            f" limit, because {why}."
        )


def _most_cores(pick: Row, cores: float) -> tuple[float, str]:
    """That it can use, and why no more."""
    of = processes(pick)
    if of is None or of > max(cores, 1.0):
        return cores, f"there are {cores:.2g} cores"
    return of, "one process cannot use more than one core" if of == 1 else f"{of} processes cannot use more than {of}"


def peak(row: Row) -> float | None:
    """Bytes."""
    return row.memory.peak if row.memory else None


def p99(row: Row) -> float | None:
    """Seconds of latency."""
    return row.latency.p99 if row.latency else None


def late(row: Row) -> float | None:
    """Seconds, p99."""
    return row.scheduling.p99 if row.scheduling else None


def _better(rows: Sequence[Row], pick: Row, value: Callable[[Row], float | None]) -> Row | None:
    """The deployment with the least of it, if that is clearly less than the pick's."""
    ours = value(pick)
    known = [(theirs, row) for row in rows if row is not pick and (theirs := value(row)) is not None]
    if ours is None or not known:
        return None
    least, row = min(known, key=lambda each: each[0])
    return row if least < ours * (1 - ALIKE) else None


_LIMITS: tuple[tuple[Callable[[Row], float | None], str, Callable[[float], str]], ...] = (
    (peak, "memory limit", figures.size),
    (p99, "limit of the p99 of latency", figures.seconds),
)
