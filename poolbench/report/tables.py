"""The tables of a report, as cells of text: page and Markdown print them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


def known(table: Table) -> Table:
    """Without the columns of which nothing is known."""
    places = [n for n in range(len(table.columns) - 1) if any(line.cells[n].text != w.NONE for line in table.lines)]
    lines = (replace(line, cells=tuple(line.cells[n] for n in places)) for line in table.lines)
    return replace(table, columns=(table.columns[0], *(table.columns[n + 1] for n in places)), lines=tuple(lines))


# -- the deployments

Titled = Iterator[tuple[str, Cell]]  # a cell, and before it the title of its column


def _of_rows(caption: str, reading: str, summary: Summary, cells: Callable[[DeploymentRow], Titled]) -> Table:
    """Args: cells: makes those of a row; the titles are the same for each."""
    rows = [(row, dict(cells(row))) for row in summary.rows]
    lines = (TableLine(row.name, row.deployment.look, tuple(found.values())) for row, found in rows)
    return Table(caption, reading, ("deployment", *(rows[0][1] if rows else ())), tuple(lines))


def _estimate(found: Estimate | None, words: Callable[[float], str] = w.significant) -> Cell:
    if found is None:
        return Cell()
    low, high = found.ends
    seen = "" if found.interval else "seen: "
    return Cell(words(found.median), "" if found.n < 2 else f"{seen}{words(low)}–{words(high)}")


def _median(found: Estimate | None, words: Callable[[float], str] = w.seconds) -> Cell:
    return Cell(words(found.median)) if found else Cell()


def brief(summary: Summary) -> Table:
    """For a terminal."""
    reading = (
        "Medians of the rounds that count, in brackets the interval of the median. Took: from just before the"
        " submission to the last job's end. CPU and memory (proportional, at the peak) are of all processes of the"
        " workers."
    )

    def cells(row: DeploymentRow) -> Titled:
        yield "rounds", Cell(str(row.measurements))
        yield "jobs/s (95 %)", _estimate(row.jobs_per_second)
        yield "took", _median(row.wall)
        yield "× serial", _median(row.speedup, w.factor)
        yield "CPU/job", _median(row.cpu_per_job)
        yield "memory", Cell(w.size(row.peak))

    return _of_rows("", reading, summary, cells)


def speed(summary: Summary, beside: Sequence[Comparison] = ()) -> Table:
    """Args: beside: a deployment and each of the others; adds its column."""
    ratios = {each.b: (each.ratio, each.verdict) for each in beside if each.ratio}
    reading = (
        "Medians of the rounds that count, with the interval of each (95 %). Latency: from the submission to a job's"
        " end."
    )

    def cells(row: DeploymentRow) -> Titled:
        yield "rounds", Cell(str(row.measurements), f"{len(row.excluded):,} left out" if row.excluded else "")
        took = _estimate(row.wall, w.seconds)
        yield "all jobs took", Cell(took.text, f"{row.jobs:,} of the jobs") if row.partial else took
        if beside:
            ratio, verdict = ratios.get(row.name, (None, ""))
            compared = Cell(w.times(ratio.median), f"{w.between(ratio)}: {verdict}") if ratio else Cell()
            yield f"beside it, {beside[0].a} was", compared
        yield "jobs per second", _estimate(row.jobs_per_second)
        yield "faster than serial", Cell("baseline") if row.deployment.serial else _estimate(row.speedup, w.times)
        yield "latency p50", Cell(w.seconds(row.p50))
        yield "p95", Cell(w.seconds(row.p95))
        yield "p99", Cell(w.seconds(row.p99))

    return _of_rows("How fast", reading, summary, cells)


def cost(summary: Summary) -> Table:
    reading = (
        "All processes of the deployment's workers together. Memory is the proportional set size. Scheduling"
        " latency: how late a thread wakes that wants the interpreter at fixed moments."
    )

    def cells(row: DeploymentRow) -> Titled:
        peak, at_once = row.peak, row.deployment.concurrency
        late = Cell(w.seconds(row.late), f"worst {w.seconds(row.worst)}") if row.late is not None else Cell()
        yield "CPU per job", _estimate(row.cpu_per_job, w.seconds)
        yield "cores used", _estimate(row.cores_used)
        yield "memory, peak", Cell(w.size(peak), f"idle {w.size(row.idle)}") if peak else Cell()
        yield "memory per job at once", Cell(w.size(peak / at_once)) if peak and at_once else Cell()
        yield "scheduling latency p99", late
        yield "ran on", Cell(row.executors or w.NONE)

    return _of_rows("What it cost", reading, summary, cells)


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
