"""How sure an advice is, and what would make it surer: doubts in words, and commands."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence

from ledger.jobs import Pool
from producer.comparison import wording
from producer.comparison.choice import REGRET, TIE, Choice, Standing, standing
from producer.comparison.contestants import Spec
from producer.comparison.experiment import Experiment, Setup
from producer.comparison.figures import Row, Summary
from producer.comparison.intervals import LEAST
from producer.comparison.reasons import busy, gated

ROUNDS = 5  # with fewer, an interval depends on how the noise is distributed
NARROWER = 9  # rounds from which on an interval is narrower than the range
MOST_ROUNDS = 30  # more are not proposed
OFTEN = 0.2  # of the turns excluded: the machine was not ours
OURS = 0.75  # of the machine's cores; with less, others are measured too
SAMPLING = 0.05  # of the contestants' CPU


def too_noisy(choice: Choice) -> str:
    rival = choice.rival.name if choice.rival else "another contestant"
    if math.isinf(choice.regret):
        return (
            f"{choice.pick.name} and {rival} cannot be compared: they had other jobs, or fewer than {LEAST} rounds in"
            " which both count"
        )
    return (
        f"{rival} may be {wording.faster(choice.regret, choice.pick.name)}; an answer is given only if it is certain"
        f" that nothing is more than {REGRET:.0%} faster"
    )


def objections(experiment: Experiment, summary: Summary, choice: Choice) -> Iterator[str]:
    pick = choice.pick
    if pick.turns < ROUNDS:
        yield f"{pick.turns} rounds count; below {ROUNDS} much depends on how the noise is distributed"
    turns = sum(row.turns for row in summary.rows) + summary.excluded
    if summary.excluded > OFTEN * turns:
        yield f"{summary.excluded} of {turns} turns were spoiled"
    if len({curve.pool for curve in choice.curves}) == 1:
        yield f"no pool but {pick.contestant.pool} was compared"
    knees = [curve.knee for curve in choice.curves if curve.knee is not pick]
    if unclear := [knee.name for knee in knees if is_open(summary, pick, knee)]:
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
        yield f"measuring took {experiment.sampling.share:.0%} of the CPU that the contestants took"


def is_open(summary: Summary, pick: Row, other: Row) -> bool:
    """Whether the noise hides which of two is faster, and by more than a tie."""
    return all(standing(summary, *pair) is Standing.OPEN for pair in ((pick, other), (other, pick)))


def _open_ends(experiment: Experiment, choice: Choice) -> Iterator[str]:
    curve = choice.curve
    slots, each = choice.pick.contestant.slots, choice.pick.contestant.slots_each
    if curve.reached or slots is None:
        return
    if slots >= experiment.scenario.jobs:
        yield f"there were no more jobs ({experiment.scenario.jobs}) than slots: the knee needs more jobs"
    elif not busy(experiment, choice.pick):
        yield f"the knee of {curve.name} was not reached: more than {each} slots were not measured"


def nothing_to_choose(summary: Summary, able: Sequence[Row], rows: Sequence[Row]) -> Iterator[str]:
    """Why there is no choice at all."""
    if len(able) >= 2 and not rows:
        peaks = [(row.memory.peak, row.name) for row in able if row.memory]
        tails = [(row.latency.p99, row.name) for row in able if row.latency]
        least = f"; the least memory is {wording.size(min(peaks)[0])} ({min(peaks)[1]})" if peaks else ""
        shortest = f"; the shortest p99 is {wording.seconds(min(tails)[0])} ({min(tails)[1]})" if tails else ""
        yield f"no contestant keeps the limits{least}{shortest}"
    elif able:
        yield f"only {able[0].name} has {LEAST} turns that count: there is nothing to compare it with"
    else:
        turns = ", ".join(f"{row.name} {row.turns}" for row in summary.rows if not row.contestant.serial)
        yield f"no contestant has {LEAST} turns that count ({turns or 'there are none'})"


# -- what to measure next


def next_commands(experiment: Experiment, choice: Choice) -> Iterator[str]:
    """Commands that would settle what is open."""
    if math.isinf(choice.regret) and choice.pick.turns >= ROUNDS:
        return  # more of the same would bring nothing
    if not choice.certain or choice.pick.turns < ROUNDS or choice.regret > TIE:
        yield again(experiment, rounds=_rounds(choice))
    pick = choice.pick.contestant
    if pick.slots and not choice.curve.reached and not busy(experiment, choice.pick):
        jobs = 4 * pick.slots if pick.slots >= experiment.scenario.jobs else None
        wider = [Spec(pick.pool, (pick.slots_each or 0) * times, pick.setup) for times in (2, 4)]
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
        if slots := row.contestant.slots_each:
            kind = row.contestant.pool, row.contestant.setup
            fewest[kind] = min(slots, fewest.get(kind, slots))
    if fewer := [Spec(pool, slots // 2, setup).name for (pool, setup), slots in fewest.items() if slots > 1]:
        yield again(experiment, fewer)


def _rounds(choice: Choice) -> int:
    """So many that the interval should be narrow enough: its width falls with the square root of their number."""
    turns = max(choice.pick.turns, LEAST)
    if math.isinf(choice.regret):
        return max(2 * turns, ROUNDS)
    wanted = max(math.ceil(turns * (choice.regret / TIE) ** 2), turns + 2, ROUNDS)
    return min(wanted if wanted <= ROUNDS else max(wanted, NARROWER), MOST_ROUNDS)


def again(
    experiment: Experiment, contestants: Sequence[str] = (), *, rounds: int | None = None, jobs: int | None = None
) -> str:
    """The experiment's command with other options."""
    words = shlex.split(experiment.command)
    for option, value in (("--pools", ",".join(contestants)), ("--repeat", rounds), ("--jobs", jobs)):
        if value:
            words = [*_without(words, option), option, str(value)]
    return shlex.join(words)


def _without(words: Sequence[str], option: str) -> list[str]:
    """The words but for an option and its value."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word.startswith(f"{option}="):
            skip = False
            continue
        if word == option:
            skip = True
            continue
        kept.append(word)
    return kept
