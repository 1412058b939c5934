"""The tables of a report, as cells of text: page, Markdown, terminal and picture print them.

A table of deployments is a list of columns: each has its title, and makes a cell of a deployment's row of figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from poolbench import figures as w
from poolbench.experiment import Deployment, Experiment, Measurement
from poolbench.statistics import Comparison, DeploymentRow, Estimate, Summary, Verdict


@dataclass(frozen=True, slots=True)
class Cell:
    text: str = w.NONE
    note: str = ""  # its interval, or what else belongs to it


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
    between = f"{words(low)} – {words(high)}"
    seen = "" if found.interval else "seen: "
    return Cell(words(found.median), "" if found.n < 2 else seen + between)


def _if(value: float | None, words: Callable[[float], str] = w.seconds) -> Cell:
    return Cell() if value is None else Cell(words(value))


# -- the deployments


def speed(summary: Summary) -> Table:
    most = max((row.jobs for row in summary.rows), default=0)

    def counted(row: DeploymentRow) -> Cell:
        return Cell(str(row.measurements), f"{len(row.excluded):,} left out" if row.excluded else "")

    def wall(row: DeploymentRow) -> Cell:
        found = _estimate(row.wall, w.seconds)
        return Cell(found.text, f"{row.jobs:,} of the jobs") if 0 < row.jobs < most else found

    def speedup(row: DeploymentRow) -> Cell:
        return Cell("baseline") if row.deployment.serial else _estimate(row.speedup, w.times)

    return _of_rows(
        "How fast",
        "Each figure is the median of the turns that count, the interval of that median (95 %) below it. A job's"
        " latency runs from the submission to its end. Ideal: the longest job, or the sum over the concurrency.",
        summary,
        [
            ("turns", counted),
            ("all jobs took", wall),
            ("jobs per second", lambda row: _estimate(row.jobs_per_second)),
            ("faster than serial", speedup),
            ("of the ideal", lambda row: _estimate(row.share_of_ideal, w.percent)),
            ("latency p50", lambda row: _if(row.latency.p50 if row.latency else None)),
            ("p95", lambda row: _if(row.latency.p95 if row.latency else None)),
            ("p99", lambda row: _if(row.p99)),
        ],
    )


def split(summary: Summary) -> Table:
    return _of_rows(
        "Where a job's time goes",
        "Means over all jobs. The first ones add up to a job's way from the submission to its end; its run, its step"
        " and the overhead, in which none of our jobs ran, to what it cost of the capacity: concurrency times time.",
        summary,
        [
            ("until queued", lambda row: _if(row.split.submit if row.split else None)),
            ("waited", lambda row: _if(row.split.wait if row.split else None)),
            ("ran", lambda row: _if(row.split.run if row.split else None)),
            ("its step", lambda row: _if((row.split.step or None) if row.split else None)),
            ("its whole way", lambda row: _if(row.split.way if row.split else None)),
            ("overhead", lambda row: _if(row.split.overhead if row.split else None)),
            ("of the capacity", lambda row: _if(row.split.cost if row.split else None)),
        ],
    )


def cost(summary: Summary) -> Table:
    def peak(row: DeploymentRow) -> Cell:
        if row.memory is None:
            return Cell()
        grows = row.deployment.lives_on and row.memory.grows
        return Cell(w.size(row.memory.peak), "grows from turn to turn" if grows else f"idle {w.size(row.memory.idle)}")

    def per_job_at_once(row: DeploymentRow) -> Cell:
        memory, concurrency = row.memory, row.deployment.concurrency
        if not memory or not concurrency:
            return Cell()
        return Cell(w.size(memory.peak / concurrency), f"work adds {w.size(memory.per_job_at_once)}")

    def growth(row: DeploymentRow) -> Cell:
        return _estimate(row.memory.growth if row.memory and row.deployment.lives_on else None, w.size)

    def late(row: DeploymentRow) -> Cell:
        found = row.scheduling
        return Cell(w.seconds(found.p99), f"worst {w.seconds(found.worst)}") if found else Cell()

    return _of_rows(
        "What it cost",
        "Of all processes of the deployment's workers together. Memory is the proportional set size (shared pages"
        " are split among their processes); per job at once it is the peak over the concurrency, of which work added so"
        " much to an idle worker. Workers that live on from turn to turn also have what they grew by, from the end of"
        " one turn to the end of the next; of workers that are started anew for each turn that would mean nothing,"
        " and what work added is all that there is to say. Scheduling latency: how late a thread wakes that wants"
        " the interpreter at fixed moments.",
        summary,
        [
            ("CPU per job", lambda row: _estimate(row.cpu_per_job, w.seconds)),
            ("cores used", lambda row: _estimate(row.cores_used)),
            ("memory, peak", peak),
            ("memory per job at once", per_job_at_once),
            ("memory grew per turn", growth),
            ("context switches per job", lambda row: _estimate(row.switches_per_job)),
            ("scheduling latency p99", late),
            ("ran on", lambda row: Cell(row.executors or w.NONE)),
        ],
    )


def pairs(summary: Summary) -> Table:
    """Each deployment against the fastest; all pairs would be many."""

    def line(of: Comparison) -> TableLine:
        verdict = "cannot tell" if of.verdict is Verdict.CANNOT_TELL else f"{of.a} is {of.verdict}"
        return TableLine(f"{of.a} against {of.b}", "", (_estimate(of.ratio, w.times), Cell(verdict)))

    return Table(
        "Is the fastest really faster?",
        "Turns of the same round are compared, so that what the machine did to both cancels. Where the interval of the"
        " ratio includes 1, the noise is larger than the difference.",
        ("pair", "times as many jobs per second", "verdict"),
        tuple(map(line, summary.against_fastest)),
    )


# -- the measurements


def excluded(experiment: Experiment) -> Table:
    looks = {each.name: each.look for each in experiment.deployments}
    found = (each for each in experiment.measurements if each.round > 0 and not each.counts)
    return Table(
        "Turns that do not count",
        "They were measured, and something disturbed them; no figure above uses them.",
        ("deployment", "round", "why", "took"),
        tuple(
            TableLine(
                each.deployment,
                looks.get(each.deployment, ""),
                (Cell(str(each.round)), Cell(each.why), Cell(w.seconds(each.wall))),
            )
            for each in found
        ),
    )


def checks(experiment: Experiment) -> Table:
    def line(deployment: Deployment, measurements: Sequence[Measurement]) -> TableLine:
        found = [each.checks for each in measurements]
        sums = [sum(counts) for counts in zip(*(each.counts for each in found), strict=True)]
        faults = "; ".join(dict.fromkeys(fault for each in found for fault in each.faults))
        verdict = Cell("passed" if all(each.passed for each in found) else "failed", faults)
        return TableLine(deployment.name, deployment.look, (*(Cell(f"{value:,}") for value in sums), verdict))

    by_deployment = [(each, list(experiment.of(each.name, counted=False))) for each in experiment.deployments]
    return Table(
        "Checks",
        "From the jobs' records alone, over all turns, also the warm-up and the excluded ones: was each job done, by"
        " exactly one attempt, on a worker of the deployment, with the right bytes?",
        ("deployment", "jobs", "done", "by one attempt", "here only", "right bytes", "checks"),
        tuple(line(deployment, found) for deployment, found in by_deployment if found),
    )


# -- the sum of the jobs against the longest of them, between which every schedule lies


@dataclass(frozen=True, slots=True)
class Ends:
    """Seconds."""

    sum: float
    longest: float
    planned: bool  # as the origin paced them; otherwise as they ran


@dataclass(frozen=True, slots=True)
class BarsData:
    rows: tuple[DeploymentRow, ...]  # of those that ran all jobs
    common: Ends | None  # of all of them
    own: tuple[Ends | None, ...]  # of each, where they differ; empty: they do not
    partial: tuple[DeploymentRow, ...]  # those that ran some of the jobs

    @property
    def ends(self) -> list[Ends]:
        return [ends for ends in (self.common, *self.own) if ends]


def bars_data(summary: Summary) -> BarsData:
    measured = [row for row in summary.rows if row.wall]
    jobs = max((row.jobs for row in measured), default=0)
    rows = tuple(row for row in measured if row.jobs == jobs)
    partial = tuple(row for row in measured if row.jobs < jobs)
    own = tuple(Ends(sum(row.paced), max(row.paced), planned=True) if row.paced else None for row in rows)
    if len({(round(ends.sum, 3), round(ends.longest, 3)) if ends else None for ends in own}) > 1:
        return BarsData(rows, None, own, partial)
    return BarsData(rows, own[0] if own and own[0] else _ran((*partial, *rows), jobs), (), partial)


def _ran(rows: Iterable[DeploymentRow], jobs: int) -> Ends | None:
    """As they ran on the baseline, or else on the first deployment; a part of the jobs stands for all."""
    for row in sorted(rows, key=lambda row: not row.deployment.serial):
        if row.ran:
            return Ends(row.ran[0] * jobs / row.jobs, row.ran[1], planned=False)
    return None
