"""The report's figures: memory per job at once has its process in it, and what is not known is left out."""

from __future__ import annotations

import io
import re
from dataclasses import replace

from rich.console import Console

from poolbench.experiment import PoolKind as Pool
from poolbench.report.tables import Table, cost, speed
from poolbench.statistics import summarise
from poolbench.terminal import Page, close
from tests.experiments import MIB, Made, made


def column(of: Table, deployment: str, name: str) -> str:
    """A cell's text and its note."""
    cell = next(line for line in of.lines if line.name == deployment).cells[of.columns.index(name) - 1]
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def test_memory_per_slot_has_the_processes_in_it() -> None:
    """Given four processes of 40 MiB that each need 2 MiB more for work, I expect 42 MiB per job at once, not 2."""
    of = cost(summarise(made(Made(Pool.PREFORK, 4, 0.5, idle=160 * MIB, per_slot=2 * MIB))))

    assert column(of, "prefork:4", "memory, peak") == "168 MiB (idle 160 MiB)"
    assert column(of, "prefork:4", "memory per job at once") == "42.0 MiB"


def test_of_a_deployment_without_a_turn_that_counts_nothing_is_said() -> None:
    excluded = Made(Pool.GEVENT, 4, 0.5, excluded=dict.fromkeys(range(1, 6), "a swap storm"))
    experiment = made(Made(Pool.THREADS, 4, 0.5), excluded)
    summary = summarise(experiment)

    assert column(speed(summary), "gevent:4", "all jobs took") == "–"
    assert {cell.text for line in cost(summary).lines if line.name == "gevent:4" for cell in line.cells} == {"–"}


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
