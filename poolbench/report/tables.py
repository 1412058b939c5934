"""The tables of a report, as cells of text: page and Markdown print them.

A table of deployments is a list of columns: each has its title, and makes a cell of a deployment's row of figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from poolbench import figures as w
from poolbench.experiment import BEHIND, Experiment
from poolbench.statistics import Comparison, DeploymentRow, Estimate, Summary
from poolbench.tasks import open_loop


@dataclass(frozen=True, slots=True)
class Cell:
    text: str = w.NONE
    note: str = ""  # its interval, or what else belongs to it

    def __str__(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True, slots=True)
class TableLine:
    name: str
    look: str  # "" if it is no deployment
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    caption: str
    reading: str  # how to read it
    columns: tuple[str, ...]  # the first is the deployment
    lines: tuple[TableLine, ...]


Column = tuple[str, Callable[[DeploymentRow], Cell]]


def _of_rows(caption: str, reading: str, summary: Summary, columns: Sequence[Column]) -> Table:
    lines = (TableLine(row.name, row.deployment.look, tuple(cell(row) for _, cell in columns)) for row in summary.rows)
    return Table(caption, reading, ("deployment", *(title for title, _ in columns)), tuple(lines))


def known(table: Table) -> Table:
    """Without the columns of which nothing is known."""
    places = [n for n in range(len(table.columns) - 1) if any(line.cells[n].text != w.NONE for line in table.lines)]
    lines = (replace(line, cells=tuple(line.cells[n] for n in places)) for line in table.lines)
    return replace(table, columns=(table.columns[0], *(table.columns[n + 1] for n in places)), lines=tuple(lines))


def _estimate(found: Estimate | None, words: Callable[[float], str] = w.significant) -> Cell:
    if found is None:
        return Cell()
    low, high = found.ends
    between = f"{words(low)}–{words(high)}"
    seen = "" if found.interval else "seen: "
    return Cell(words(found.median), "" if found.n < 2 else seen + between)


def _if(value: float | None, words: Callable[[float], str] = w.seconds) -> Cell:
    return Cell() if value is None else Cell(words(value))


def _median(found: Estimate | None, words: Callable[[float], str] = w.seconds) -> Cell:
    return _if(found.median if found else None, words)


# -- the deployments


def brief(summary: Summary) -> Table:
    """For a terminal."""
    return _of_rows(
        "",
        "Medians of the rounds that count, in brackets the interval of the median. Took: from just before the"
        " submission to the last job's end. CPU and memory (proportional, at the peak) are of all processes of the"
        " workers.",
        summary,
        [
            ("rounds", lambda row: Cell(str(row.measurements))),
            ("jobs/s (95 %)", lambda row: _estimate(row.jobs_per_second)),
            ("took", lambda row: _median(row.wall)),
            ("× serial", lambda row: _median(row.speedup, w.factor)),
            ("CPU/job", lambda row: _median(row.cpu_per_job)),
            ("memory", lambda row: _if(row.peak, w.size)),
        ],
    )


def speed(summary: Summary, beside: Sequence[Comparison] = ()) -> Table:
    """Args: beside: a deployment and each of the others; adds its column."""
    by_name = {each.b: each for each in beside}

    def counted(row: DeploymentRow) -> Cell:
        return Cell(str(row.measurements), f"{len(row.excluded):,} left out" if row.excluded else "")

    def wall(row: DeploymentRow) -> Cell:
        found = _estimate(row.wall, w.seconds)
        return Cell(found.text, f"{row.jobs:,} of the jobs") if row.partial else found

    def speedup(row: DeploymentRow) -> Cell:
        return Cell("baseline") if row.deployment.serial else _estimate(row.speedup, w.times)

    def sooner(row: DeploymentRow) -> Cell:
        ratio = by_name[row.name].ratio if row.name in by_name else None
        return Cell(w.times(ratio.median), f"{w.between(ratio)}: {by_name[row.name].verdict}") if ratio else Cell()

    compared: list[Column] = [(f"beside it, {beside[0].a} was", sooner)] if beside else []
    return _of_rows(
        "How fast",
        "Medians of the rounds that count, with the interval of each (95 %). Latency: from the submission to a job's"
        " end.",
        summary,
        [
            ("rounds", counted),
            ("all jobs took", wall),
            *compared,
            ("jobs per second", lambda row: _estimate(row.jobs_per_second)),
            ("faster than serial", speedup),
            ("latency p50", lambda row: _if(row.latency.p50 if row.latency else None)),
            ("p95", lambda row: _if(row.latency.p95 if row.latency else None)),
            ("p99", lambda row: _if(row.p99)),
        ],
    )


def cost(summary: Summary) -> Table:
    def peak(row: DeploymentRow) -> Cell:
        return Cell(w.size(row.peak), f"idle {w.size(row.idle)}") if row.peak else Cell()

    def each(row: DeploymentRow) -> Cell:
        concurrency = row.deployment.concurrency
        return Cell(w.size(row.peak / concurrency)) if row.peak and concurrency else Cell()

    def late(row: DeploymentRow) -> Cell:
        return Cell(w.seconds(row.late), f"worst {w.seconds(row.worst)}") if row.late is not None else Cell()

    return _of_rows(
        "What it cost",
        "All processes of the deployment's workers together. Memory is the proportional set size. Scheduling"
        " latency: how late a thread wakes that wants the interpreter at fixed moments.",
        summary,
        [
            ("CPU per job", lambda row: _estimate(row.cpu_per_job, w.seconds)),
            ("cores used", lambda row: _estimate(row.cores_used)),
            ("memory, peak", peak),
            ("memory per job at once", each),
            ("scheduling latency p99", late),
            ("ran on", lambda row: Cell(row.executors or w.NONE)),
        ],
    )


def arrivals(experiment: Experiment) -> Table:
    looks = {each.name: each.look for each in experiment.deployments}
    rows = list(open_loop.cells(experiment.open_loop))
    return Table(
        "At a rate of arrival",
        "Jobs sent at moments that do not depend on what has ended. Latency: from the moment at which a job was to be"
        " sent to its end. A deployment falls behind, and is asked for no higher rate, if jobs do not end or more than"
        f" {BEHIND:.0%} of them (in brackets: how many) had not begun when the last one was due.",
        ("deployment", "arrivals", "jobs", "latency p50", "p95", "p99", "keeps up"),
        tuple(TableLine(name, looks.get(name, ""), tuple(map(Cell, cells))) for name, *cells in rows),
    )
