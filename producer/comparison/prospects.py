"""What an advice costs, and what would change it: other contestants' figures, and the same choice made again without
some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from producer.comparison import wording
from producer.comparison.choice import ALIKE, Choice, decide
from producer.comparison.experiment import Experiment
from producer.comparison.figures import Row, Summary
from producer.comparison.reasons import busy, cores_of, effective, processes

LATE = 0.005  # seconds more than elsewhere: worth a word


def gives_up(summary: Summary, choice: Choice, rows: Sequence[Row]) -> Iterator[str]:
    """What others do better."""
    pick = choice.pick
    if lean := _better(rows, pick, peak):
        found = summary.compare(lean.name, pick.name).ratio
        yield (
            f"Memory: {wording.size(peak(pick) or 0)} at the peak; {lean.name} takes"
            f" {wording.size(peak(lean) or 0)} and does {wording.ratio(found)} of its jobs/s."
        )
    if quick := _better(rows, pick, p99):
        yield (
            f"Tail latency: p99 {wording.seconds(p99(pick) or 0)} from the submission of all jobs to a job's end;"
            f" {quick.name} {wording.seconds(p99(quick) or 0)}."
        )
    if prompt := _better(rows, pick, late):
        ours, theirs = late(pick) or 0.0, late(prompt) or 0.0
        if ours > 2 * theirs and ours > theirs + LATE:
            yield (
                f"Promptness: a thread beside the jobs is {wording.seconds(ours)} late (p99), in {prompt.name}"
                f" {wording.seconds(theirs)}."
            )
    yield from _isolation(choice)


def _isolation(choice: Choice) -> Iterator[str]:
    pick = choice.pick
    where = f" (it ran in {pick.executors})" if pick.executors else ""
    if of := processes(pick):
        slots = pick.contestant.slots_each
        yield (
            f"Isolation: what kills {'the' if of == 1 else 'a'} process takes all jobs that run in it"
            f"{f', up to {slots}' if slots else ''}; a process of prefork runs one{where}."
        )
        return
    if each := choice.curve.memory_per_slot:
        yield f"Memory per slot: a slot is a process, and each adds {wording.size(each)} to the peak{where}."


def would_change(experiment: Experiment, summary: Summary, choice: Choice, rows: Sequence[Row]) -> Iterator[str]:
    """Circumstances under which the same figures, or more of them, give another answer."""
    pick = choice.pick
    yield from _without_the_fat(summary, choice, rows)
    yield from _cpu(experiment, pick)
    slots = pick.contestant.slots_each
    if slots and not choice.curve.reached and not busy(experiment, pick):
        yield f"More slots: {choice.curve.name} with more than {slots} was not measured."
    lives_on = pick.contestant.command is None  # of workers that are started anew, growth would mean nothing
    if lives_on and pick.memory and pick.memory.grows and pick.memory.growth:
        yield (
            f"Time: memory grew by {wording.size(pick.memory.growth.median)} from round to round"
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
        yield f"A {name} below {said(ours)}: then {other.pick.name}{doubt}; {wording.ratio(found)} of its jobs/s."


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
            f"Jobs with more CPU: at {room:.2g} times the {wording.seconds(pick.cpu_per_job.median)} per job CPU is the"
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
    return row.lateness.p99 if row.lateness else None


def _better(rows: Sequence[Row], pick: Row, value: Callable[[Row], float | None]) -> Row | None:
    """The contestant with the least of it, if that is clearly less than the pick's."""
    ours = value(pick)
    known = [(theirs, row) for row in rows if row is not pick and (theirs := value(row)) is not None]
    if ours is None or not known:
        return None
    least, row = min(known, key=lambda each: each[0])
    return row if least < ours * (1 - ALIKE) else None


_LIMITS: tuple[tuple[Callable[[Row], float | None], str, Callable[[float], str]], ...] = (
    (peak, "memory limit", wording.size),
    (p99, "limit of the p99 of latency", wording.seconds),
)
