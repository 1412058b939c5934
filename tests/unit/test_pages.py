"""What the pages tell people to type, open or change exists, and what they say of settings and kinds is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import page as benchmarks_page
from benchmarks.hostile import Outcome
from benchmarks.hostile import page as downloaders_page
from download.errors import transient
from ledger.jobs import FailureKind, Pool
from ledger.settings import Settings
from poolbench.doctor.diagnosis import CHECKS
from producer.cli import cli
from tests import settings_page
from tests.doctor import page as doctor_page
from tests.hostile import CASES, ROWS

ROOT = Path(__file__).parents[2]
PAGES = {path.relative_to(ROOT): path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
FOLDERS = "ledger|download|worker|producer|poolbench|origin|stack|deploy|chaos|benchmarks|tests|docs|requirements"


def found(pattern: str) -> list[tuple[Path, str]]:
    """Each match of the pages, once."""
    return sorted({(path, match) for path, text in PAGES.items() for match in re.findall(pattern, text)})


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("path", "target"), found(r"`?make ([a-z-]+)\b(?= +#|\n|`| ARGS)"))
def test_each_make_target_exists(path: Path, target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), path


@pytest.mark.parametrize(("path", "command"), found(r"(?:(?<=`)|(?<=\n)|run --rm (?:-T )?|-m )producer ([a-z-]+)"))
def test_each_producer_command_exists(path: Path, command: str) -> None:
    assert command in cli.commands, path


@pytest.mark.parametrize(("path", "name"), found(r"DOWNPOUR_(?!GOLDEN)([A-Z_]*[A-Z])"))
def test_each_setting_exists(path: Path, name: str) -> None:
    assert name.lower() in Settings.model_fields, path


def test_the_page_of_settings_is_what_the_class_makes() -> None:
    assert PAGES[Path("docs/settings.md")] == settings_page.page()


def test_the_page_of_benchmarks_is_what_its_figures_make() -> None:
    assert PAGES[Path("docs/benchmarks.md")] == benchmarks_page.page((ROOT / "docs/benchmarks").glob("*.json"))


def test_the_page_of_the_producer_explains_each_kind_as_transient_or_permanent() -> None:
    tables = PAGES[Path("docs/producer.md")].partition("| transient kind |")[2].partition("| permanent kind |")[::2]
    kinds = [sorted(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) for table in tables]
    assert kinds == [sorted(kind for kind in FailureKind if transient(kind) is wanted) for wanted in (True, False)]


# Not after `--out` and the like: such a file is written by the command.
@pytest.mark.parametrize(("path", "name"), found(rf"(?<![\w/.:>-])(?<!--out )((?:{FOLDERS})/[\w./*-]*[\w*/])"))
def test_each_file_that_is_named_exists(path: Path, name: str) -> None:
    assert any(ROOT.glob(name.removesuffix("/"))), path


@pytest.mark.parametrize(("path", "link"), found(r"\]\(([^):]+)\)"))
def test_each_link_leads_somewhere(path: Path, link: str) -> None:
    name, _, anchor = link.partition("#")
    target = (ROOT / path.parent / name) if name else ROOT / path
    assert target.exists()
    assert not anchor or anchor in anchors(target.read_text())


def test_github_runs_what_ci_runs() -> None:
    steps = re.findall(r"^(?:tests )?make ([a-z-]+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert len(steps) >= 7
    assert [step for step in steps if not re.search(rf"(?:make |[\[ ]){step}\b", workflow)] == []


def test_the_figures_of_the_readme_are_those_of_the_page_on_pools() -> None:
    readme, pools = PAGES[Path("README.md")], PAGES[Path("docs/pools.md")]
    totals = re.findall(r"^\| (\w+) \|[^|]+\|[^|]+\| ([\d.]+ s) \| [\d.]+ \|$", readme, re.MULTILINE)
    assert len(totals) == 3
    assert [
        pool for pool, total in totals if not re.search(rf"`article` \| {pool}:2 \| [\d.]+ \| {total} ", pools)
    ] == []
    rates = re.findall(r"^\| (\w+), (\d+) and (\d+) \| \**([\d.]+)\** \| \**([\d.]+)\** \|$", readme, re.MULTILINE)
    assert len(rates) == 3
    for pool, waiting, computing, files, pages in rates:
        assert f"| `slow` | {pool}:{waiting} | {files} |" in pools
        assert f"| `cpu` | {pool}:{computing} | {pages} |" in pools


def test_the_three_programs_of_the_tutorial_take_as_long_as_their_longest_download(tmp_path: Path) -> None:
    running = []
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", PAGES[Path("docs/tutorial.md")], re.DOTALL)):
        (file := tmp_path / f"{number}.py").write_text(program)
        running.append(subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True))
    assert len(running) == 3
    said = [each.communicate(timeout=60)[0].splitlines() for each in running]
    assert [each.returncode for each in running] == [0, 0, 0]
    for first, second, total in said:
        names = [re.fullmatch(r"(\S+): (\d) s in ((?:process|thread) \d+|Task-\d)", line) for line in (first, second)]
        assert [match[1] for match in names if match] == ["guide.pdf", "video.mp4"]
        assert len({match[3] for match in names if match}) == 2
        assert 3 <= float(total.split()[1]) < 5


# -- the page of the doctor, and the evidence of each check


TESTS = {"test": "tests/service/test_doctor.py", "pools": "tests/pools/test_doctor_evidence.py"}
# What the matrix must say, so that the words of a check are true: row, columns, outcome.
MATRIX = {
    "P01": ("soft-time-limit", "threads gevent", "ignored"),
    "P02": ("hard-time-limit", "threads", "ignored"),
    "P03": ("max-tasks-per-child", "threads gevent", "ignored"),
    "P07": ("autoscale", "threads", "crashes the worker"),
    "P08": ("heartbeat", "gevent", "silent"),
    "P09": ("async-def-ignore-result", "prefork threads gevent", "never runs"),
    "R01": ("worker-killed-acks-late-tuned", "gevent", "not in time"),
    "R02": ("longer-than-visibility", "prefork threads", "runs twice"),
    "R03": ("worker-killed", "prefork threads gevent", "lost"),
    "R04": ("poison", "prefork", "repeats for ever"),
    "R05": ("redis-restarts", "prefork threads", "crashes the worker"),
    "R09": ("worker-killed-acks-late", "prefork threads", "not in time"),
    "D01": ("docker-stop", "prefork threads gevent", "lost"),
}


def test_the_page_of_the_doctor_is_what_the_checks_make() -> None:
    assert PAGES[Path("docs/doctor.md")] == doctor_page.page()


@pytest.mark.parametrize("code", CHECKS)
def test_the_command_of_the_evidence_selects_a_test(code: str) -> None:
    found = re.fullmatch(r'make (test|pools|matrix) ARGS="-k ([\w-]+)"', CHECKS[code].again)
    assert found, CHECKS[code].again
    target, key = found.groups()
    if target == "matrix":
        assert MATRIX[code][0] == key
    else:
        names = re.findall(r"^def (test_\w+)\(", (ROOT / TESTS[target]).read_text(), re.MULTILINE)
        assert any(key in name for name in names), names


@pytest.mark.parametrize("code", MATRIX)
def test_the_matrix_says_what_the_check_says(code: str) -> None:
    row, columns, outcome = MATRIX[code]
    cells = json.loads((ROOT / "tests/matrix/expected.json").read_text())["cells"][row]
    assert {pool: cells[f"Celery {pool}"] for pool in columns.split()} == {pool: [outcome] for pool in columns.split()}
    assert CHECKS[code].again == f'make matrix ARGS="-k {row}"'


# -- the page of downloaders


FOUND = json.loads((ROOT / "docs/downloaders/hostile.json").read_text())
OUTCOMES = [Outcome(**each | {"escaped": tuple(each["escaped"])}) for each in FOUND["outcomes"]]


def test_the_page_of_downloaders_is_what_the_outcomes_make() -> None:
    assert PAGES[Path("docs/downloaders.md")] == downloaders_page(FOUND)


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
