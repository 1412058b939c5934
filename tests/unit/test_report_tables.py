"""The report's figures: what adds up does, and memory per job at once has its process in it."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from poolbench.experiment import Measurement
from poolbench.experiment import PoolKind as Pool
from poolbench.report.tables import Table, cost, known, speed, split
from poolbench.runfiles import read
from poolbench.statistics import summarise
from poolbench.terminal import Page, close
from tests.experiments import MIB, Made, made, remeasured
from tests.experiments import known as there
from tests.worker_process import ROOT

_UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0}


def column(of: Table, deployment: str, name: str) -> str:
    """A cell's text and its note."""
    cell = next(line for line in of.lines if line.name == deployment).cells[of.columns.index(name) - 1]
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * _UNITS[unit]


@pytest.mark.parametrize("deployment", ["serial", "prefork:2", "threads:8", "gevent:8"])
def test_the_parts_of_a_job_s_time_add_up_to_both_sums(deployment: str) -> None:
    of = split(summarise(read(ROOT / "docs" / "runs" / "cpu.json.gz")))

    def sum_of(*names: str) -> float:
        return sum(seconds(column(of, deployment, name)) for name in names)

    way = seconds(column(of, deployment, "its whole way"))
    assert sum_of("until queued", "waited", "ran", "its step") == pytest.approx(way, rel=0.01)
    cost = seconds(column(of, deployment, "of the capacity"))
    assert sum_of("ran", "its step", "overhead") == pytest.approx(cost, rel=0.01)


def test_without_a_step_there_is_no_column_for_it() -> None:
    assert "its step" not in known(split(summarise(made(Made(Pool.THREADS, 4, 0.5))))).columns


def test_memory_per_slot_has_the_processes_in_it_and_says_what_work_adds() -> None:
    """Given four processes of 40 MiB that each need 2 MiB more for work, I expect 42 MiB per job at once, not 2."""
    of = cost(summarise(made(Made(Pool.PREFORK, 4, 0.5, idle=160 * MIB, per_slot=2 * MIB))))

    assert column(of, "prefork:4", "memory, peak") == "168 MiB (idle 160 MiB)"
    assert column(of, "prefork:4", "memory per job at once") == "42.0 MiB (work adds 2.00 MiB)"


def test_of_a_deployment_without_a_turn_that_counts_nothing_is_said() -> None:
    excluded = Made(Pool.GEVENT, 4, 0.5, excluded=dict.fromkeys(range(1, 6), "a swap storm"))
    experiment = made(Made(Pool.THREADS, 4, 0.5), excluded)
    summary = summarise(experiment)

    assert column(speed(summary), "gevent:4", "all jobs took") == "–"
    for of in (split(summary), cost(summary)):
        assert {cell.text for line in of.lines if line.name == "gevent:4" for cell in line.cells} == {"–"}


def test_memory_that_grows_says_so_and_by_how_much() -> None:
    """Given workers that live on and keep 1 MiB of each turn, I expect that, its interval, and the word."""
    of = cost(summarise(made(Made(Pool.THREADS, 4, 0.5, growth=MIB, lives_on=True))))

    assert column(of, "threads:4", "memory, peak").endswith("(grows from round to round)")
    assert column(of, "threads:4", "memory grew per round") == "1.00 MiB (1.00 MiB – 1.00 MiB)"


def test_growth_that_is_not_sure_is_a_figure_all_the_same() -> None:
    """Given turns after which memory is once larger and once smaller, I expect the interval with both signs in it."""
    experiment = made(Made(Pool.THREADS, 4, 0.5, lives_on=True))
    ends = [64, 60, 66, 58, 62, 60]  # MiB, by round

    def ended(of: Measurement) -> Measurement:
        return replace(of, usage=replace(there(of.usage), pss_end=ends[of.round] * MIB))

    of = cost(summarise(remeasured(experiment, ended)))

    assert column(of, "threads:4", "memory, peak").endswith(" (idle 60.0 MiB)")
    assert re.fullmatch(r"1\.00 MiB \(-\d+\.\d MiB – \d+\.\d MiB\)", column(of, "threads:4", "memory grew per round"))


def test_of_few_turns_growth_is_what_was_seen_and_of_one_nothing() -> None:
    def grew(rounds: int) -> str:
        made_of = made(Made(Pool.THREADS, 4, 0.5, growth=MIB, lives_on=True), rounds=rounds)
        return column(cost(summarise(made_of)), "threads:4", "memory grew per round")

    assert [grew(rounds) for rounds in (1, 2, 3)] == ["–", "1.00 MiB", "1.00 MiB (seen: 1.00 MiB – 1.00 MiB)"]


def test_workers_that_are_started_anew_do_not_grow_from_turn_to_turn() -> None:
    """Given turns whose fresh workers each took more than the last, I expect what work added, and no growth."""
    fresh = Made(Pool.THREADS, 4, 0.5, growth=MIB, per_slot=2 * MIB)
    of = cost(summarise(made(fresh)))

    assert column(of, "threads:4", "memory, peak") == "71.0 MiB (idle 63.0 MiB)"
    assert column(of, "threads:4", "memory per job at once") == "17.8 MiB (work adds 2.00 MiB)"
    assert "memory grew per round" not in known(of).columns
    both = cost(summarise(made(fresh, Made(Pool.GEVENT, 4, 0.5, growth=MIB, lives_on=True))))
    assert column(both, "threads:4", "memory grew per round") == "–"
    assert column(both, "gevent:4", "memory grew per round").startswith("1.00 MiB")


def test_of_a_run_that_was_cut_short_in_the_warm_up_the_terminal_has_no_table() -> None:
    said = io.StringIO()
    experiment = made(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2), rounds=0)
    close(Page(Console(file=said, width=80)), replace(experiment, notes=("interrupted in the warm-up",)))

    text = " ".join(said.getvalue().split())
    assert "Nothing was measured yet: only measurements of the warm-up have ended, and they do not count." in text
    assert "Note: interrupted in the warm-up." in text
    assert "0/0" not in text
    assert "jobs/s" not in text


def test_a_sentence_begins_with_a_deployment_s_name_as_it_is() -> None:
    said = io.StringIO()
    close(Page(Console(file=said, width=80)), made(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2)))

    said_last = said.getvalue()
    assert re.search(r"^threads:8 finished the work 2.1 times sooner than gevent:8\.$", said_last, re.MULTILINE)
    assert re.search(r"^gevent:8 +█{50,} 1\.0\d s$", said_last, re.MULTILINE)
    assert "-P threads -Q downloads.threads -n threads@%h -c 8" in said_last
