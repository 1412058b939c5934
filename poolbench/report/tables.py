"""The tables of a report, as cells of text: page and Markdown print them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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


# -- the deployments: a column's title, and its cells, are at the same place


def _lines(summary: Summary, cells: Callable[[DeploymentRow], Iterable[Cell]]) -> tuple[TableLine, ...]:
    return tuple(TableLine(row.name, row.deployment.look, tuple(cells(row))) for row in summary.rows)


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
    columns = ("deployment", "rounds", "jobs/s (95 %)", "took", "× serial", "CPU/job", "memory")

    def cells(row: DeploymentRow) -> Iterator[Cell]:
        yield Cell(str(row.measurements))
        yield _estimate(row.jobs_per_second)
        yield _median(row.wall)
        yield _median(row.speedup, w.factor)
        yield _median(row.cpu_per_job)
        yield Cell(w.size(row.peak))

    return Table("", reading, columns, _lines(summary, cells))


def speed(summary: Summary, beside: Sequence[Comparison] = ()) -> Table:
    """Args: beside: a deployment and each of the others; adds its column."""
    ratios = {each.b: (each.ratio, each.verdict) for each in beside if each.ratio}
    reading = (
        "Medians of the rounds that count, with the interval of each (95 %). Latency: from the submission to a job's"
        " end."
    )
    compared = [f"beside it, {beside[0].a} was"] if beside else []
    columns = (
        "rounds",
        "all jobs took",
        *compared,
        "jobs per second",
        "faster than serial",
        "latency p50",
        "p95",
        "p99",
    )

    def cells(row: DeploymentRow) -> Iterator[Cell]:
        yield Cell(str(row.measurements), f"{len(row.excluded):,} left out" if row.excluded else "")
        took = _estimate(row.wall, w.seconds)
        yield Cell(took.text, f"{row.jobs:,} of the jobs") if row.partial else took
        if beside:
            ratio, verdict = ratios.get(row.name, (None, ""))
            yield Cell(w.times(ratio.median), f"{w.between(ratio)}: {verdict}") if ratio else Cell()
        yield _estimate(row.jobs_per_second)
        yield Cell("baseline") if row.deployment.serial else _estimate(row.speedup, w.times)
        yield from (Cell(w.seconds(each)) for each in (row.p50, row.p95, row.p99))

    return Table("How fast", reading, ("deployment", *columns), _lines(summary, cells))


def cost(summary: Summary) -> Table:
    reading = (
        "All processes of the deployment's workers together. Memory is the proportional set size. Scheduling"
        " latency: how late a thread wakes that wants the interpreter at fixed moments."
    )
    columns = (
        "CPU per job",
        "cores used",
        "memory, peak",
        "memory per job at once",
        "scheduling latency p99",
        "ran on",
    )

    def cells(row: DeploymentRow) -> Iterator[Cell]:
        yield _estimate(row.cpu_per_job, w.seconds)
        yield _estimate(row.cores_used)
        yield Cell(w.size(row.peak), f"idle {w.size(row.idle)}") if row.peak else Cell()
        at_once = row.deployment.concurrency
        yield Cell(w.size(row.peak / at_once)) if row.peak and at_once else Cell()
        yield Cell(w.seconds(row.late), f"worst {w.seconds(row.worst)}") if row.late is not None else Cell()
        yield Cell(row.executors or w.NONE)

    return Table("What it cost", reading, ("deployment", *columns), _lines(summary, cells))


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
