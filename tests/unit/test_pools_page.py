"""docs/pools.md says what was measured, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pools.md").read_text(encoding="utf-8")
CELLS = json.loads((ROOT / "tests" / "matrix" / "expected.json").read_text(encoding="utf-8"))["cells"]
_ROW = re.compile(
    r'^\|[^|]+\|(?P<words>[^|]+\|[^|]+\|[^|]+)\| `make matrix ARGS="-k (?P<key>[a-z-]+)"` \|$', re.MULTILINE
)


def test_each_word_is_the_one_that_the_matrix_found() -> None:
    rows = list(_ROW.finditer(PAGE))
    assert len(rows) >= 13
    for row in rows:
        said = [word.strip(" *") for word in row["words"].split("|")]
        found = [CELLS[row["key"]][f"Celery {pool}"] for pool in ("prefork", "threads", "gevent")]
        assert [[word] for word in said] == found, row["key"]


def test_each_row_of_the_matrix_that_is_named_exists() -> None:
    assert set(re.findall(r'-k ([a-z-]+)"', PAGE)) <= set(CELLS)


def test_the_numbers_of_the_chaos_are_those_of_its_page() -> None:
    chaos = (ROOT / "docs" / "chaos.md").read_text(encoding="utf-8")
    for profile in ("default", "late", "tuned"):
        (row,) = re.findall(
            rf"^\|[^|]+\| (\d+) \| (\d+) \| `python -m chaos stock --profile {profile} ", PAGE, re.MULTILINE
        )
        lost, twice = row
        assert re.search(rf"stock Celery app.*\*\*{lost}\*\*.*\*\*{twice}\*\*", chaos), profile
