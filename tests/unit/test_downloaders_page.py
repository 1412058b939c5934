"""docs/downloaders.md is what its outcomes make, and speaks of every row of the table of faults."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.hostile import Outcome, page
from ledger.jobs import Pool
from tests.hostile import CASES, ROWS

DOCS = Path(__file__).parents[2] / "docs"
FOUND = json.loads((DOCS / "downloaders/hostile.json").read_text())
OUTCOMES = [Outcome(**each | {"escaped": tuple(each["escaped"])}) for each in FOUND["outcomes"]]


def test_the_page_is_what_the_outcomes_make() -> None:
    assert (DOCS / "downloaders.md").read_text() == page(FOUND)


def test_everybody_met_every_fault() -> None:
    for who in {outcome.who for outcome in OUTCOMES}:
        assert [outcome.row for outcome in OUTCOMES if outcome.who == who] == list(ROWS), who
    assert {outcome.who for outcome in OUTCOMES} >= {f"Downpour {pool}" for pool in Pool}


def test_of_ours_each_is_as_the_tests_expect_it() -> None:
    works = {case.row: case.works for case in CASES}
    ours = [outcome for outcome in OUTCOMES if outcome.who.startswith("Downpour")]
    left = {row: "right" if works[row] else "nothing" for row in ROWS} | {"/faults/login.bin": "wrong"}  # with a note
    assert [(each.row, each.done, each.left) for each in ours] == [
        (each.row, works[each.row], left[each.row]) for each in ours
    ]
    assert {outcome.row for outcome in ours if not outcome.good} == {"/faults/login.bin"}


def test_what_counts_as_good() -> None:
    def good(done: bool, left: str, *escaped: str) -> bool:
        return Outcome("/faults/x", "curl", "0", done, left, 1, escaped).good

    assert (good(True, "right"), good(False, "nothing"), good(False, "right")) == (True, True, True)
    assert not any(good(True, left) for left in ("nothing", "partial", "empty", "wrong", "large", "inner"))
    assert not any(good(False, left) for left in ("partial", "empty", "wrong", "large", "inner"))
    assert not good(True, "right", "evil.sh")
