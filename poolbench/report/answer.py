"""The advice as the first thing that a reader sees: one sentence, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

from poolbench import figures as w
from poolbench.advice import Advice, Confidence
from poolbench.choice import WITHIN_NOISE
from poolbench.statistics import Summary

_SURE = {
    Confidence.HIGH: "nothing that was measured speaks against it",
    Confidence.MODERATE: "something speaks against more",
    Confidence.LOW: "much speaks against more",
    Confidence.NONE: "so no pool is recommended",
}


@dataclass(frozen=True, slots=True)
class Answer:
    sentence: str
    confidence: str  # "high", ..., "cannot tell"
    means: str
    advice: Advice

    @property
    def lists(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What else there is to say, by its heading."""
        of = self.advice
        found = (
            ("What speaks against more confidence" if of.answer else "Why not", of.because),
            ("The runner-up", (f"{of.runner_up}, {of.runner_up_rate}",) if of.runner_up else ()),
            ("What it gives up", of.gives_up),
            ("What would change the answer", of.would_change),
            ("What would make it surer", of.next),
            ("How it was found", of.reasoning),
        )
        return tuple((heading, lines) for heading, lines in found if lines)


def answer(advice: Advice, summary: Summary) -> Answer:
    return Answer(_sentence(advice, summary), advice.confidence.value, _SURE[advice.confidence], advice)


def _sentence(advice: Advice, summary: Summary) -> str:
    if advice.answer is None:
        return "These measurements cannot tell which contestant is best."
    rate = summary.row(advice.answer).jobs_per_second
    did = f" did {w.significant(rate.median)} jobs per second" if rate else " is the one to take"
    if advice.tied:
        others = _and(advice.tied)
        decided = advice.criterion if advice.criterion != WITHIN_NOISE else None
        return f"{advice.answer}{did}, no slower than {others}" + (f" and with {decided}." if decided else ".")
    found = summary.compare(advice.answer, advice.runner_up).ratio if advice.runner_up else None
    if found is None:
        return f"{advice.answer}{did}."
    if found.median < 1:
        return f"{advice.answer}{did}: {w.percent(found.median)} of {advice.runner_up}, for fewer slots."
    return f"{advice.answer}{did}, {w.times(found.median)} as many as {advice.runner_up}."


def _and(names: tuple[str, ...]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
