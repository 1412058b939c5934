"""What whoever measured says that a reader must know: which of it bears on the advice, and which is a condition.

A run keeps its notes as sentences. They are told apart by how they begin, or by the words below, with which the ones
that bear on the advice are written.
"""

from __future__ import annotations

from collections.abc import Sequence

from producer.comparison.experiment import Experiment

CUT = "what was measured is here"
POOLED = "runs were pooled"
SHARED = "the stack was running already, and may have been shared"
UNSEEN = "their CPU and memory are not measured"
AGAIN = "run it again when the machine is quiet"
_WORDS = (CUT, POOLED, SHARED, UNSEEN, AGAIN)


def of_advice(experiment: Experiment) -> Sequence[str]:
    """Notes about a contestant's figures, or about how much was measured at all."""
    return [note for note in experiment.notes if _bears(experiment, note)]


def of_conditions(experiment: Experiment) -> Sequence[str]:
    """The others: under what circumstances all of it was measured."""
    return [note for note in experiment.notes if not _bears(experiment, note)]


def _bears(experiment: Experiment, note: str) -> bool:
    first = note.partition(" ")[0].removesuffix(":")
    return first in {each.name for each in experiment.contestants} or any(words in note for words in _WORDS)
