"""What whoever measured noted stands once on a page: with the advice if it bears on it, among the conditions if not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from poolbench.experiment import Experiment
from poolbench.experiment import PoolKind as Pool
from poolbench.report.page import page, text
from tests.experiments import Made, made

BEARING = (
    "the stack was running already, and may have been shared: its workers were not started for this",
    "workers run elsewhere (another machine or container): their CPU and memory are not measured",
    "serial ran 12 of the 160 jobs, chosen evenly from the lightest to the heaviest",
    "threads:8: 0 of 3 rounds count; nothing is said of it",
    "run it again when the machine is quiet, or with --noise 1 to count every turn that ran well",
    "interrupted in round 1 of 3: what was measured is here",
    "2 runs were pooled",
)
OTHERS = (
    "a stack of its own: for each turn the deployment's workers are started anew, alone, and warmed up",
    "workers run on north (its clock is 0.2 s ahead of Redis'): only when they received a job is told by their clocks",
    "a turn is excluded when strangers use much of the CPU",
    "a note that nobody has thought of",
)


@pytest.fixture(scope="module")
def noted() -> Experiment:
    deployments = (Made(Pool.PREFORK, 2, 0.5, serial=True), Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2))
    return replace(made(*deployments), notes=(*BEARING, *OTHERS), caveats=BEARING)


def parts(whole: str, *headings: str) -> Sequence[str]:
    """What stands before the first heading, and below each of them."""
    found = []
    for heading in headings:
        before, found_it, whole = whole.partition(heading)
        assert found_it, heading
        found.append(before)
    return [*found, whole]


def as_page(experiments: Sequence[Experiment]) -> str:
    return page(experiments).replace("\u00a0", " ").replace("&#39;", "'")


@pytest.mark.parametrize(
    ("write", "headings"),
    [
        (text, ("## How it was found", "## Can it be trusted", "## Conditions")),
        (as_page, ("<h3>How it was found</h3>", "<h2>Can it be trusted", "<h3>Conditions")),
    ],
    ids=["text", "page"],
)
def test_each_note_stands_once_and_where_a_reader_looks_for_it(
    noted: Experiment, write: Callable[[Sequence[Experiment]], str], headings: Sequence[str]
) -> None:
    whole = write([noted])
    _, advice, _, conditions = parts(whole, *headings)

    for note in BEARING:
        assert whole.count(note) == 1, note
        assert note in advice, note
    for note in OTHERS:
        assert whole.count(note) == 1, note
        assert note in conditions, note
