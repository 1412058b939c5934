"""What the tutorial's numbers say, in one sentence, and whether the books balance. Nothing is said but computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ledger.jobs import JobState
from producer.comparison.experiment import Contestant, Experiment, MeasuredJob, Turn

TOLERANCE = 0.05  # of the yardstick: this near, the total "was" the longest or the sum


class Finding(StrEnum):
    LONGEST = "the longest file, not the sum"
    SUM = "the sum, not the longest file"
    BETWEEN = "neither the longest file nor the sum"
    SLOWER = "more than the sum"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Shown:
    """A contestant and the turn whose jobs are kept."""

    contestant: Contestant
    turn: Turn

    @property
    def name(self) -> str:
        return self.contestant.name

    @property
    def totals(self) -> Totals:
        return totals(self.turn)


@dataclass(frozen=True, slots=True)
class Totals:
    """A turn in four numbers; ``total`` and ``ratio`` are None unless every job is done.

    ``sum`` and ``longest`` are of the nominal seconds, not of the measured ones: so whatever submission, queue,
    claim, HTTP, publication and books cost stands in ``total`` and ``ratio``, and cannot hide in the yardstick.
    """

    sum: float
    longest: float
    total: float | None  # from just before the submission to the last file's finish
    ratio: float | None  # total ÷ longest


def totals(turn: Turn) -> Totals:
    nominal = [job.nominal or 0.0 for job in turn.jobs]
    longest = max(nominal, default=0.0)
    ratio = turn.wall / longest if turn.wall is not None and longest else None
    return Totals(sum(nominal), longest, turn.wall, ratio)


def shown(experiment: Experiment) -> list[Shown]:
    found = [(each, experiment.shown(each.name)) for each in experiment.contestants]
    return [Shown(each, turn) for each, turn in found if turn]


def find(each: Shown) -> Finding:
    """What a total was."""
    numbers = each.totals
    if numbers.total is None:
        return Finding.UNKNOWN
    if numbers.total <= numbers.longest * (1 + TOLERANCE):
        return Finding.LONGEST
    if numbers.total > numbers.sum * (1 + TOLERANCE):
        return Finding.SLOWER
    return Finding.SUM if numbers.total >= numbers.sum * (1 - TOLERANCE) else Finding.BETWEEN


def verdict(turns: Sequence[Shown]) -> str:
    """One sentence: the pools grouped by what was found, then the serial row, which is a yardstick and not a pool."""
    pools = [each for each in turns if not each.contestant.serial]
    clauses = []
    for finding in Finding:
        if found := [each for each in pools if find(each) is finding]:
            figures = ", ".join(_figures(each) for each in found)
            clauses.append(f"{_where(found, len(pools))} the total was {finding.value}: {figures}")
    clauses += [_serial(each) for each in turns if each.contestant.serial]
    sentence = "; ".join(clauses) or "nothing was compared"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _where(found: Sequence[Shown], of: int) -> str:
    names = [each.name for each in found]
    if len(names) == of > 1:
        return {2: "in both pools", 3: "in all three pools"}.get(of, f"in all {of} pools")
    return "in " + " and ".join(names)


def _figures(each: Shown) -> str:
    numbers = each.totals
    if numbers.total is None:
        return each.name + _not_done(each.turn)
    text = f"{each.name} {numbers.total:.2f} s (longest {numbers.longest:g} s, sum {numbers.sum:g} s)"
    waited = max(map(_waited, each.turn.jobs))
    if find(each) is not Finding.LONGEST and waited > numbers.longest * TOLERANCE:
        text += f" with {waited:.1f} s in the queue"
    return text


def _waited(job: MeasuredJob) -> float:
    return job.attempts[0].started - job.queued if job.attempts else 0.0


def _not_done(turn: Turn) -> str:
    lost = [f"{job.filename} {job.state}" for job in turn.jobs if job.state is not JobState.DONE]
    return f" ({', '.join(lost)})"


def _serial(each: Shown) -> str:
    numbers, found = each.totals, find(each)
    if numbers.total is None:
        return f"one at a time it is {found.value}{_not_done(each.turn)}"
    return f"one at a time it was {found.value}: {numbers.total:.2f} s (sum {numbers.sum:g} s)"


# -- the books


def faults(turns: Sequence[Turn]) -> list[str]:
    """Why the books do not balance: every job should have run exactly once, on the contestant under test."""
    return [f"{turn.contestant}: {fault}" for turn in turns for fault in turn.books.faults]


def books(turns: Sequence[Turn]) -> str:
    """Whether each job ran once and where, from the records alone."""
    wrong = faults(turns)
    if wrong:
        return "The books do not balance: " + "; ".join(wrong) + "."
    jobs = sum(turn.books.jobs for turn in turns)
    ran = {turn.contestant: turn.books.executors for turn in turns}
    where = "; ".join(f"{name} in {executors}" for name, executors in ran.items())
    return f"The books: {jobs:,} jobs, each ran exactly once, on the pool under test, and its sha256 is right: {where}."


def failed(experiment: Experiment) -> bool:
    """Whether jobs failed, or books do not balance: those of the last turn that each contestant had in each round."""
    last = {(turn.contestant, turn.round): turn for turn in experiment.turns}
    return not all(turn.books.balance for turn in last.values())
