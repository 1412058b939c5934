"""The runs in docs/runs: whole, and what the documents say of them is what the program says of them now."""

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


def _name(path: Path) -> str:
    return path.name.partition(".")[0]


def test_there_is_a_run_of_every_scenario() -> None:
    assert {_name(path) for path in RUNS} == {"article", "slow", "small", "large", "cpu", "mixed"}


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
    rows = re.findall(rf"^\| `{_name(path)}` \| ([\w:]+) \| ([\d.]+) \| ([\d.]+) s \| ", PAGE, re.MULTILINE)
    said = {name: (float(rate), float(wall)) for name, rate, wall in rows}
    for row in summarise(found).rows:
        assert row.jobs_per_second is not None
        assert row.wall is not None
        rate, wall = said[row.name]
        assert rate == pytest.approx(row.jobs_per_second.median, rel=0.006)
        assert wall == pytest.approx(row.wall.median, rel=0.006, abs=0.006)


@pytest.mark.parametrize("path", [path for path in RUNS if _name(path) != "article"], ids=_name)
def test_the_advice_in_pools_md_is_what_recommend_says(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recommend", "--json", str(path)]) == 0
    (advice,) = json.loads(capsys.readouterr().out)
    (said,) = re.findall(
        rf"^\| \[{_name(path)}\]\(runs/{_name(path)}\.md\) \|.*\| (\w+:\d+)[^|]*\|$", PAGE, re.MULTILINE
    )
    assert said == advice["answer"]
