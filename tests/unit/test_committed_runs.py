"""The runs in docs/runs: whole, and what pages say of them, of the matrix and of the chaos is what was found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from poolbench.runfiles import read
from poolbench.statistics import summarise
from producer.cli import run

DOCS = Path(__file__).parents[2] / "docs"
RUNS = sorted((DOCS / "runs").glob("*.json*"))
PICTURES = ("cpu.svg", "slow.svg")  # of the runs of these names
PAGE = (DOCS / "pools.md").read_text(encoding="utf-8")
CELLS = json.loads((DOCS.parent / "tests/matrix/expected.json").read_text(encoding="utf-8"))["cells"]
_ROW = re.compile(
    r'^\|[^|]+\|(?P<words>[^|]+\|[^|]+\|[^|]+)\| `make matrix ARGS="-k (?P<key>[a-z-]+)"` \|$', re.MULTILINE
)


def _name(path: Path) -> str:
    return path.name.partition(".")[0]


def test_there_is_a_run_of_every_scenario() -> None:
    assert {_name(path) for path in RUNS} == {
        *("article", "slow", "small", "large", "cpu", "mixed"),
        *("workers", "prefetch", "events"),
    }


@pytest.mark.parametrize("path", RUNS, ids=_name)
def test_its_books_balance(path: Path) -> None:
    found = read(path)
    assert all(each.checks.passed for each in found.measurements if each.counts)
    assert all(any(found.of(each.name)) for each in found.deployments)


@pytest.mark.parametrize("path", RUNS, ids=_name)
def test_its_page_is_what_report_writes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(path)]) == 0
    assert capsys.readouterr().out == (path.parent / f"{_name(path)}.md").read_text(encoding="utf-8")


def test_there_is_no_other_picture_of_a_run() -> None:
    assert {path.name for path in (DOCS / "pictures").glob("*.svg")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_on_the_page_is_what_report_draws(name: str, tmp_path: Path) -> None:
    (path,) = (path for path in RUNS if _name(path) == name.partition(".")[0])
    assert run(["report", str(path), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes() == (DOCS / "pictures" / name).read_bytes()
    assert f"](pictures/{name})" in PAGE


@pytest.mark.parametrize("path", RUNS, ids=_name)
def test_the_figures_in_pools_md_are_the_run_s(path: Path) -> None:
    """A row ``| `slow` | threads:100 | 104 | 1.54 s | 5.5 ms | 73 MiB |`` of the page, for each deployment."""
    found = read(path)
    rows = re.findall(rf"^\| `{_name(path)}` \| ([\w:+=]+) \| ([\d.]+) \| ([\d.]+) s \| ", PAGE, re.MULTILINE)
    said = {name: (float(rate), float(wall)) for name, rate, wall in rows}
    for row in summarise(found).rows:
        assert row.jobs_per_second is not None
        assert row.wall is not None
        rate, wall = said[row.name]
        assert rate == pytest.approx(row.jobs_per_second.median, rel=0.006)
        assert wall == pytest.approx(row.wall.median, rel=0.006, abs=0.006)


@pytest.mark.parametrize("path", [path for path in RUNS if _name(path) != "article"], ids=_name)
def test_the_advice_in_pools_md_is_what_recommend_says(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["recommend", "--json", str(path)])
    (advice,) = json.loads(capsys.readouterr().out)
    (said,) = re.findall(
        rf"^\| \[{_name(path)}\]\(runs/{_name(path)}\.md\) \|.*\| (\w+:\d+|no answer)[^|]*\|$", PAGE, re.MULTILINE
    )
    assert (said, code) == ((advice["answer"], 0) if advice["answer"] else ("no answer", 1))


def test_each_word_of_pools_md_is_the_one_that_the_matrix_found() -> None:
    rows = list(_ROW.finditer(PAGE))
    assert len(rows) >= 13
    for row in rows:
        said = [word.strip(" *") for word in row["words"].split("|")]
        found = [CELLS[row["key"]][f"Celery {pool}"] for pool in ("prefork", "threads", "gevent")]
        assert [[word] for word in said] == found, row["key"]


def test_each_row_of_the_matrix_that_is_named_exists() -> None:
    assert set(re.findall(r'-k ([a-z-]+)"', PAGE)) <= set(CELLS)


def test_the_numbers_of_the_chaos_in_pools_md_are_those_of_its_page() -> None:
    chaos = (DOCS / "chaos.md").read_text(encoding="utf-8")
    for profile in ("default", "late", "tuned"):
        (row,) = re.findall(
            rf"^\|[^|]+\| (\d+) \| (\d+) \| `python -m chaos stock --profile {profile} ", PAGE, re.MULTILINE
        )
        lost, twice = row
        assert re.search(rf"stock Celery app.*\*\*{lost}\*\*.*\*\*{twice}\*\*", chaos), profile
