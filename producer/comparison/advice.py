"""Which pool and how many slots, for the work that was measured: one command, and why.

The answer follows from the measurements alone (``choice`` says how; ``reasons`` puts the figures into words). Nothing
is taken from a rule of thumb, and nothing from what the scenario calls itself. Where the noise is larger than the
difference, where too little was measured, or where nothing keeps the limits, the answer is that we cannot tell, and
what to measure next.

A conclusion about several cores is gated by what the probes found: below ``SEVERAL_CORES`` effective cores it cannot be
drawn, whatever the machine claims to have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from producer.comparison import doubts, prospects, reasons
from producer.comparison.choice import comparable, decide
from producer.comparison.contestants import command
from producer.comparison.experiment import Experiment
from producer.comparison.notes import of_advice
from producer.comparison.pooling import pooled
from producer.comparison.reasons import Limits, fits
from producer.comparison.statistics import summarise


class Confidence(StrEnum):
    HIGH = "high"  # nothing speaks against it
    MODERATE = "moderate"  # one or two things do
    LOW = "low"  # more do
    NONE = "cannot tell"


@dataclass(frozen=True, slots=True)
class Advice:
    """For people and as JSON. Sentences have their figures in them."""

    scenario: str
    confidence: Confidence
    because: tuple[str, ...]  # what speaks against more confidence, or why we cannot tell
    compared: tuple[str, ...]  # the contestants it was chosen from
    reasoning: tuple[str, ...]  # to be numbered
    next: tuple[str, ...]  # commands that would make the answer surer
    limits: Limits
    answer: str | None = None  # the contestant's name; None: cannot tell
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
        *reasons.measured(experiment, summary, able),
        *reasons.noted(experiment.notes if conditions else of_advice(experiment)),
        *reasons.limited(able, limits),
    ]
    if choice:
        lines += reasons.chosen(experiment, summary, choice)
    unsure = Advice(
        scenario=experiment.scenario.name,
        confidence=Confidence.NONE,
        because=tuple(doubts.nothing_to_choose(summary, able, rows)),
        compared=tuple(row.name for row in rows),
        reasoning=tuple(lines),
        next=tuple(doubts.next_when_unable(experiment, able)),
        limits=limits,
    )
    if choice is None:
        return unsure
    against = list(doubts.objections(experiment, summary, choice))
    unsure = replace(unsure, next=tuple(doubts.next_commands(experiment, choice)))
    if not choice.certain:
        return replace(unsure, because=(doubts.too_noisy(choice), *against))
    pick = choice.pick.contestant
    return replace(
        unsure,
        answer=choice.pick.name,
        command=command(pick.pool, pick.slots_each, pick.setup),
        confidence=_confidence(len(against)),
        because=tuple(against),
        tied=tuple(row.name for row in choice.tied if row is not choice.pick),
        criterion=choice.criterion,
        runner_up=choice.runner_up.name if choice.runner_up else None,
        runner_up_rate=reasons.runner_up(summary, choice),
        gives_up=tuple(prospects.gives_up(summary, choice, rows)),
        would_change=tuple(prospects.would_change(experiment, summary, choice, rows)),
    )


def _confidence(objections: int) -> Confidence:
    if not objections:
        return Confidence.HIGH
    return Confidence.MODERATE if objections <= 2 else Confidence.LOW
