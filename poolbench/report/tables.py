"""What a report says of one experiment, in words and cells; the page and the text print the same sheet.

How fast each deployment was, where a job's time went, what it cost, who was faster; what was left out, whether each job
ran once, under which conditions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from poolbench import figures as w
from poolbench.experiment import Deployment, Experiment, Measurement
from poolbench.report.palette import look
from poolbench.statistics import Comparison, Estimate, Memory, Row, Summary, Tail, Verdict, paced, summarise


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    note: str = ""  # its interval, or what else belongs to it


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    look: str  # "" if it is no deployment
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    caption: str
    reading: str  # how to read it
    columns: tuple[str, ...]  # the first is the deployment
    lines: tuple[Line, ...]


def known(table: Table) -> Table:
    """Without the columns of which nothing is known."""
    places = [n for n in range(len(table.columns) - 1) if any(line.cells[n].text != w.NONE for line in table.lines)]
    lines = tuple(Line(line.name, line.look, tuple(line.cells[n] for n in places)) for line in table.lines)
    return Table(table.caption, table.reading, (table.columns[0], *(table.columns[n + 1] for n in places)), lines)


def _estimated(found: Estimate | None, words: str = "number") -> Cell:
    if found is None:
        return Cell(w.NONE)
    of = {"seconds": w.seconds, "size": w.size, "times": w.times, "percent": w.percent}.get(words, w.significant)
    ends = w.bounds(found)
    note = "" if ends is None or found.n < 2 else f"{of(ends[0])} – {of(ends[1])}"
    if note and found.interval is None:
        note = f"seen: {note}"
    return Cell(of(found.median), note)


def _tail(found: Tail | None) -> tuple[Cell, Cell, Cell]:
    if found is None:
        return Cell(w.NONE), Cell(w.NONE), Cell(w.NONE)
    return Cell(w.seconds(found.p50)), Cell(w.seconds(found.p95)), Cell(w.seconds(found.p99))


def _named(row: Row, *cells: Cell) -> Line:
    return Line(row.name, look(row.deployment), cells)


def speed(experiment: Experiment, summary: Summary) -> Table:
    most = max((jobs_of(experiment, row) for row in summary.rows if row.measurements), default=0)

    def cells(row: Row) -> Iterator[Cell]:
        left_out = w.counted(len(row.excluded), "left out", "left out") if row.excluded else ""
        yield Cell(str(row.measurements), left_out)
        wall, ran = _estimated(row.wall, "seconds"), jobs_of(experiment, row)
        yield Cell(wall.text, f"{ran:,} of the jobs") if 0 < ran < most else wall
        yield _estimated(row.jobs_per_second)
        yield Cell("baseline") if row.deployment.serial else _estimated(row.speedup, "times")
        yield _estimated(row.share_of_ideal, "percent")
        yield from _tail(row.latency)

    return Table(
        "How fast",
        "Each figure is the median of the turns that count, the interval of that median (95 %) below it. A job's"
        " latency runs from the submission to its end. Ideal: the longest job, or the sum over the concurrency.",
        (
            "deployment",
            "turns",
            "all jobs took",
            "jobs per second",
            "faster than serial",
            "of the ideal",
            "latency p50",
            "p95",
            "p99",
        ),
        tuple(_named(row, *cells(row)) for row in summary.rows),
    )


def split(summary: Summary) -> Table:
    def cells(row: Row) -> Iterator[Cell]:
        of = row.split
        if of is None:
            yield from [Cell(w.NONE)] * 7
            return
        yield Cell(w.seconds(of.submit))
        yield Cell(w.seconds(of.wait))
        yield Cell(w.seconds(of.run))
        yield Cell(w.seconds(of.step) if of.step else w.NONE)
        yield Cell(w.seconds(of.submit + of.wait + of.run + of.step))
        yield Cell(w.seconds(of.overhead))
        yield Cell(w.NONE if of.overhead is None else w.seconds(of.run + of.step + of.overhead))

    return Table(
        "Where a job's time goes",
        "Means over all jobs. The first ones add up to a job's way from the submission to its end; its run, its step"
        " and the overhead, in which a slot ran none of our jobs, to what it cost of the slots' time.",
        ("deployment", "until queued", "waited", "ran", "its step", "its whole way", "overhead", "of the slots' time"),
        tuple(_named(row, *cells(row)) for row in summary.rows),
    )


def cost(summary: Summary) -> Table:
    def cells(row: Row) -> Iterator[Cell]:
        memory, late = row.memory, row.scheduling
        yield _estimated(row.cpu_per_job, "seconds")
        yield _estimated(row.cores_used)
        yield from _memory(memory, row.deployment) if memory else [Cell(w.NONE)] * 3
        yield _estimated(row.switches_per_job)
        yield Cell(w.seconds(late.p99), f"worst {w.seconds(late.worst)}") if late else Cell(w.NONE)
        yield Cell(row.executors or w.NONE)

    return Table(
        "What it cost",
        "Of all processes of the deployment's workers together. Memory is the proportional set size (shared pages"
        " are split among their processes); per slot is the peak over the concurrency, of which work added so much"
        " to an idle worker. Workers that live on from turn to turn also have what they grew by, from the end of"
        " one turn to the end of the next; of workers that are started anew for each turn that would mean nothing,"
        " and what work added is all that there is to say. Scheduling latency: how late a thread wakes that wants"
        " the interpreter at fixed moments.",
        (
            "deployment",
            "CPU per job",
            "cores used",
            "memory, peak",
            "memory per slot",
            "memory grew per turn",
            "context switches per job",
            "scheduling latency p99",
            "ran on",
        ),
        tuple(_named(row, *cells(row)) for row in summary.rows),
    )


def _memory(of: Memory, deployment: Deployment) -> Iterator[Cell]:
    concurrency, lives_on = deployment.concurrency, deployment.lives_on
    yield Cell(w.size(of.peak), "grows from turn to turn" if lives_on and of.grows else f"idle {w.size(of.idle)}")
    yield Cell(w.size(of.peak / concurrency), f"work adds {w.size(of.per_slot)}") if concurrency else Cell(w.NONE)
    yield _estimated(of.growth, "size") if lives_on else Cell(w.NONE)


def pairs(summary: Summary) -> Table:
    """Each deployment against the fastest; all pairs would be many."""
    rivals = [row for row in summary.rows if row.wall and not row.deployment.serial]
    best = min(rivals, key=lambda row: row.wall.median if row.wall else 0.0, default=None)
    found = [summary.compare(best.name, row.name) for row in rivals if best and row is not best]
    return Table(
        "Is the fastest really faster?",
        "Turns of the same round are compared, so that what the machine did to both cancels. Where the interval of the"
        " ratio includes 1, the noise is larger than the difference.",
        ("pair", "times as many jobs per second", "verdict"),
        tuple(_pair(each) for each in found),
    )


def _pair(of: Comparison) -> Line:
    said = "cannot tell" if of.verdict is Verdict.CANNOT_TELL else f"{of.a} is {of.verdict}"
    return Line(f"{of.a} against {of.b}", "", (_estimated(of.ratio, "times"), Cell(said)))


# -- the sum of the jobs against the longest of them, between which every schedule lies


@dataclass(frozen=True, slots=True)
class Ends:
    """Seconds."""

    sum: float
    longest: float
    planned: bool  # as the origin paced them; otherwise as they ran


@dataclass(frozen=True, slots=True)
class BarsData:
    rows: tuple[Row, ...]  # of those that ran all jobs
    common: Ends | None  # of all of them
    own: tuple[Ends | None, ...]  # of each, where they differ; empty: they do not
    partial: tuple[Row, ...]  # those that ran some of the jobs

    @property
    def ends(self) -> Sequence[Ends]:
        return [ends for ends in (self.common, *self.own) if ends]


def bars_data(experiment: Experiment, summary: Summary) -> BarsData:
    ran = {row.name: jobs_of(experiment, row) for row in summary.rows if row.wall}
    all_jobs = max(ran.values(), default=0)
    rows = tuple(row for row in summary.rows if row.wall and ran[row.name] == all_jobs)
    partial = tuple(row for row in summary.rows if row.wall and ran[row.name] < all_jobs)
    own = tuple(_planned(experiment, row) for row in rows)
    if len({(round(ends.sum, 3), round(ends.longest, 3)) if ends else None for ends in own}) > 1:
        return BarsData(rows, None, own, partial)
    common = own[0] if own and own[0] else _ran(experiment, (*partial, *rows), all_jobs)
    return BarsData(rows, common, (), partial)


def jobs_of(experiment: Experiment, row: Row) -> int:
    return max((measurement.checks.jobs for measurement in experiment.of(row.name)), default=0)


def _planned(experiment: Experiment, row: Row) -> Ends | None:
    nominal = paced(experiment, row.deployment)
    return Ends(sum(nominal), max(nominal), planned=True) if nominal else None


def _ran(experiment: Experiment, rows: Sequence[Row], jobs: int) -> Ends | None:
    """As they ran on the baseline, or else on the first deployment; of some of the jobs, as many times as they are."""
    for row in sorted(rows, key=lambda row: not row.deployment.serial):
        spans = [measurement.spans.ran for measurement in experiment.of(row.name) if measurement.spans.ran]
        if spans:
            return Ends(median(sum(ran) * jobs / len(ran) for ran in spans), median(map(max, spans)), planned=False)
    return None


# -- all of it


@dataclass(frozen=True, slots=True)
class ReportData:
    experiment: Experiment
    summary: Summary
    title: str
    about: str
    tables: tuple[Table, ...]
    excluded: Table | None
    checks: Table
    conditions: tuple[tuple[str, str], ...]


def report_data(experiment: Experiment) -> ReportData:
    summary = summarise(experiment)
    title = experiment.scenario.title or experiment.scenario.name
    tables = [speed(experiment, summary), split(summary), cost(summary), pairs(summary)]
    return ReportData(
        experiment=experiment,
        summary=summary,
        title=title[:1].upper() + title[1:],
        about=_about(experiment, summary),
        tables=tuple(known(table) for table in tables if table.lines),
        excluded=_excluded(experiment),
        checks=_checks(experiment),
        conditions=tuple(_conditions(experiment, summary)),
    )


def _about(experiment: Experiment, summary: Summary) -> str:
    scenario = experiment.scenario
    parts = [f"{w.counted(scenario.jobs, 'job')} for each of {w.counted(len(experiment.deployments), 'deployment')}"]
    if scenario.bytes:
        parts.append(f"{w.size(scenario.bytes)} in all")
    parts.append(f"{w.counted(summary.rounds, 'round')} after the warm-up, in rotating order")
    if scenario.seed is not None:
        parts.append(f"seed {scenario.seed}")
    return ", ".join(parts) + f"; {moment(experiment.started)}"


def _excluded(experiment: Experiment) -> Table | None:
    looks = {each.name: look(each) for each in experiment.deployments}
    measurements = [
        measurement for measurement in experiment.measurements if measurement.round > 0 and not measurement.counts
    ]
    if not measurements:
        return None
    return Table(
        "Turns that do not count",
        "They were measured, and something disturbed them; no figure above uses them.",
        ("deployment", "round", "why", "took"),
        tuple(
            Line(
                measurement.deployment,
                looks.get(measurement.deployment, ""),
                (
                    Cell(str(measurement.round)),
                    Cell("; ".join(measurement.excluded) or "not every job is done"),
                    Cell(w.seconds(measurement.wall)),
                ),
            )
            for measurement in measurements
        ),
    )


def _checks(experiment: Experiment) -> Table:
    def line(measurements: Sequence[Measurement], name: str, of: str) -> Line:
        sums = [
            sum(getattr(measurement.checks, what) for measurement in measurements)
            for what in ("jobs", "done", "once", "here", "right")
        ]
        faults = "; ".join(dict.fromkeys(fault for measurement in measurements for fault in measurement.checks.faults))
        balance = all(measurement.checks.passed for measurement in measurements)
        verdict = Cell("passed" if balance else "failed", faults)
        return Line(name, of, (*(Cell(f"{value:,}") for value in sums), verdict))

    by_name = {each.name: list(experiment.of(each.name, counted=False)) for each in experiment.deployments}
    return Table(
        "Checks",
        "From the jobs' records alone, over all turns, also the warm-up and the excluded ones: was each job done, by"
        " exactly one attempt, on a worker of the deployment, with the right bytes?",
        ("deployment", "jobs", "done", "by one attempt", "here only", "right bytes", "checks"),
        tuple(line(by_name[each.name], each.name, look(each)) for each in experiment.deployments if by_name[each.name]),
    )


def _conditions(experiment: Experiment, summary: Summary) -> Iterator[tuple[str, str]]:
    yield "Command", experiment.command
    yield "When", f"{moment(experiment.started)} to {moment(experiment.finished)}"
    yield "Machine", ", ".join(f"{name} {_fact(name, value)}" for name, value in experiment.machine.items())
    if cores := experiment.cores:
        probes = ", ".join(f"{probe:.2f}" for probe in cores.probes)
        yield "Cores", f"{cores.nominal} by name, {cores.effective:.2f} really given (probes: {probes})"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in experiment.versions.items())
    if sampling := experiment.sampling:
        had = (experiment.cores.nominal if experiment.cores else 1) * sum(
            t.wall or 0 for t in experiment.measurements if t.counts
        )
        yield (
            "Sampling",
            f"at most every {w.seconds(sampling.every)}; it used {w.seconds(sampling.cpu)} of CPU:"
            f" {w.percent(sampling.share)} of what the deployments used"
            + (f", {w.percent(sampling.cpu / had)} of what the machine had meanwhile" if had else ""),
        )
    for each in experiment.deployments:
        yield each.name, "was running already" if each.lives_on else each.command or ""
    yield "Method", summary.method
    for note in experiment.conditions:
        yield "Note", note


def _fact(name: str, value: str | float) -> str:
    if name == "memory" and isinstance(value, int):
        return w.size(value)
    return str(value)


def moment(seconds: float) -> str:
    if not 0 <= seconds < 1e11:  # no year of ours
        return f"{seconds:g} s since the epoch"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
