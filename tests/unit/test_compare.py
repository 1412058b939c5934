"""What a comparison says must follow from its numbers: totals, verdict, books, plan and page, with known answers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ledger.jobs import FailureKind
from poolbench.advice import DemoFinding, find, verdict
from poolbench.checks import executors, said
from poolbench.experiment import MeasuredState as State
from poolbench.experiment import PoolKind as Pool
from poolbench.experiment import from_json, to_json
from poolbench.lanes import Shown
from poolbench.terminal import Page, close
from poolbench.workload import Running
from producer import cli
from producer.scenarios import ARTICLE_FILES, Options, article
from tests.measured import attempt, experiment, gevent, job, prefork, serial, shown, threads, two, who
from tests.reported import varied

ALL = (prefork(), threads(), gevent(), serial())


def failed() -> Shown:
    """One of the two files was refused after two tries."""
    slot = who(Pool.THREADS, 200, 201)
    return shown(
        Pool.THREADS,
        [
            job(Pool.THREADS, "good.bin", 5, attempt(slot, 0.0, 5.1)),
            job(
                Pool.THREADS,
                "bad.bin",
                6,
                attempt(slot, 0.0, 1.0, FailureKind.RESET),
                attempt(slot, 1.5, 2.0, FailureKind.DIGEST),
                state=State.FAILED,
            ),
        ],
    )


def took(total: float) -> Shown:
    """Files of 7 and 5 s, and a chosen total."""
    jobs = [
        job(Pool.GEVENT, "a", 7, attempt(who(Pool.GEVENT, 1, 1, 1), 0.0, total)),
        job(Pool.GEVENT, "b", 5, attempt(who(Pool.GEVENT, 1, 1, 2), 0.0, 5.0)),
    ]
    return shown(Pool.GEVENT, jobs)


# -- numbers


@pytest.mark.parametrize(
    ("total", "finding"),
    [
        (7.0, DemoFinding.LONGEST),
        (7.34, DemoFinding.LONGEST),
        (7.4, DemoFinding.NEITHER),
        (11.3, DemoFinding.NEITHER),
        (11.5, DemoFinding.SUM),
        (12.5, DemoFinding.SUM),
        (13.0, DemoFinding.NEITHER),
    ],
)
def test_the_finding_follows_from_the_total(total: float, finding: DemoFinding) -> None:
    assert find(took(total)) is finding


# -- the sentence


ALIKE = (prefork(), took(7.05), two(Pool.THREADS, who(Pool.THREADS, 200, 201), who(Pool.THREADS, 200, 202)))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            [*ALIKE, serial()],
            "In prefork, gevent and threads the total is the longest file, not the sum: 7.10 s, 7.05 s and 7.10 s"
            " (longest 7 s, sum 12 s); one at a time the total is the sum, not the longest file: 12.20 s (longest 7 s,"
            " sum 12 s).",
        ),
        (
            [prefork(), took(11.0)],
            "In prefork the total is the longest file, not the sum: 7.10 s (longest 7 s, sum 12 s); in gevent the total"
            " is neither the longest file nor the sum: 11.00 s (longest 7 s, sum 12 s).",
        ),
        (
            [prefork(), failed()],
            "In prefork the total is the longest file, not the sum: 7.10 s (longest 7 s, sum 12 s); in threads the"
            " total is not known: bad.bin failed (longest 6 s, sum 11 s).",
        ),
    ],
    ids=["alike", "unlike", "failed"],
)
def test_the_sentence_claims_what_was_found(found: list[Shown], sentence: str) -> None:
    assert verdict(found) == sentence


def test_the_report_of_a_demonstration_says_what_it_shows_and_advises_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    file.write_text(to_json(experiment(*ALIKE)))
    headline = "In prefork, gevent and threads the total is the longest file, not the sum: 7.10 s, 7.05 s and 7.10 s"
    assert cli.run(["report", str(file), "-o", str(tmp_path / "run.html"), "-o", str(tmp_path / "run.md")]) == 0
    for name in ("run.html", "run.md"):
        said = (tmp_path / name).read_text().replace("\u00a0", " ")
        assert headline in said
        assert "cannot tell" not in said
        assert "faster?" not in said
    assert cli.run(["recommend", str(file)]) == 1
    assert "a demonstration shows the models" in capsys.readouterr().out


# -- the checks


def test_the_books_balance_when_every_job_ran_once_on_its_pool() -> None:
    assert said(experiment(*ALL)).startswith("Checks passed: 8 jobs, each ran once, on the pool under test,")


def test_the_books_name_what_does_not_balance() -> None:
    stranger = shown(Pool.GEVENT, prefork().measurement.jobs)
    slot = attempt(who(Pool.THREADS, 1, 2), 0, 1)
    other_bytes = shown(Pool.THREADS, [replace(job(Pool.THREADS, "x", 1, slot), right=False)], name="threads:1")

    assert said(experiment(stranger, failed(), other_bytes)) == (
        "Checks failed: gevent: Guide.pdf ran on prefork@host; gevent: Demo_Video.mp4 ran on prefork@host; threads:"
        " bad.bin is failed; threads: bad.bin ran 2 times; threads:1: x has another sha256 than the origin's."
    )


def test_executors_are_counted_not_assumed() -> None:
    one = who(Pool.THREADS, 200, 201)
    jobs = [job(Pool.THREADS, name, 1, attempt(one, 0, 1)) for name in ("a", "b")]

    assert executors(Pool.THREADS, jobs) == "1 thread of 1 process"


# -- the plan


def seconds_of(seed: int) -> list[list[float | None]]:
    return [[job.seconds for job in article(Options(seed), pool)] for pool in Pool]


def test_a_seed_is_a_plan_whatever_is_looked_at() -> None:
    """Given one seed, I expect the same seconds again; over many seeds, every whole number from 5 to 10."""
    assert seconds_of(42) == seconds_of(42)
    assert {seconds for seed in range(50) for pair in seconds_of(seed) for seconds in pair} == set(range(5, 11))


def test_this_seed_gave_these_seconds_when_it_was_written() -> None:
    """The same in all pools, so that nobody reads a draw as a difference between them."""
    assert seconds_of(42) == [[10, 5]] * 3


def test_the_article_is_the_tutorials_files_on_their_pools() -> None:
    for pool in Pool:
        plan = article(Options(seed=1, size=7), pool)
        assert tuple(job.filename for job in plan) == ARTICLE_FILES[pool]
        assert plan[1].path == f"/paced/{plan[1].seconds:g}/{ARTICLE_FILES[pool][1]}?size=7"


# -- the report and the page


def test_an_experiment_is_read_back_as_it_was_written() -> None:
    for written in (experiment(*ALL, failed()), varied()):
        assert from_json(to_json(written)) == written


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_page_fits_80_columns_and_the_terminals_encoding(encoding: str) -> None:
    """Given a file name that ASCII lacks and a terminal without UTF-8, I expect a page all the same."""
    slot = who(Pool.GEVENT, 1, 1, 2)
    odd = shown(Pool.GEVENT, [job(Pool.GEVENT, "Müller…pdf", 5, attempt(slot, 0, 5.1))], name="gevent:9")
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)

    close(Page(Console(file=file, width=80)), experiment(prefork(), gevent(), serial(), failed(), odd))
    file.flush()
    text = raw.getvalue().decode(encoding)

    assert max(map(len, text.splitlines())) <= 80
    assert ("total ÷ longest" in text) == (encoding == "utf-8")
    assert "1.014" in text  # 7.1 / 7
    assert "the total is not known: bad.bin failed" in text.replace("\n", " ")


def test_the_table_of_deployments_with_options_fits_80_columns_and_says_each_option() -> None:
    file = io.StringIO()

    close(Page(Console(file=file, width=80)), varied())

    lines = file.getvalue().splitlines()
    assert max(len(line) for line in lines if not line.startswith("for n in")) <= 80  # a command is to be copied
    for option in ("│ +prefetch=1000 ", "│ +workers=16 ", "│ +events=off "):
        assert any(line.startswith(option) for line in lines)


def test_a_terminal_has_one_live_line_and_a_pipe_has_lines_now_and_then() -> None:
    """Given a look every half second for five seconds, I expect a live line, and in a pipe a line every two."""
    running = Running("f.bin", State.RUNNING, 0.25)
    now = [0.0]
    terminal, pipe = io.StringIO(), io.StringIO()

    for file in (terminal, pipe):
        now[0] = 0.0
        page = Page(Console(file=file, width=80, force_terminal=file is terminal), clock=lambda: now[0])
        with page.watching():
            while now[0] < 5:
                now[0] += 0.5
                page.progress(now[0], 0, 1, [running])

    assert "f.bin 25 %" in terminal.getvalue()
    assert "\x1b[2K" in terminal.getvalue()  # the live line is erased, not repeated
    assert pipe.getvalue().splitlines() == ["   2.0 s · f.bin 25 %", "   4.0 s · f.bin 25 %"]


# -- the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pools", "asyncio"], "prefork, threads, gevent"),
        (["--pools", "threads,threads"], "each pool once"),
        (["--pools", "threads:0"], "1 to 1000"),
        (["--pools", "threads:8,gevent"], "for every pool"),
        (["--pools", "threads+events=off"], "'--pools': expected prefork, threads, gevent alone"),
        (["small", "--scenario", "large"], "one scenario"),
        (["article", "--jobs", "7"], "two jobs per pool"),
        (["--repeat", "0"], "--repeat"),
        (["--scenario", "nonsense"], "article"),
        (["--json", "/nowhere/at/all.json"], "No such file or directory"),
    ],
)
def test_wrong_usage_ends_with_2_before_anything_runs(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["compare", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
