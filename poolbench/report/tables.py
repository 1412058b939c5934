"""A report's tables of figures: how fast each contestant was, where a job's time went, what it cost, who was faster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from poolbench import figures as w
from poolbench.experiment import Contestant, Experiment
from poolbench.report.palette import look
from poolbench.report.race import jobs_of
from poolbench.statistics import Comparison, Estimate, Memory, Row, Summary, Tail, Verdict


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    note: str = ""  # its interval, or what else belongs to it


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    look: str  # "" if it is no contestant
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    caption: str
    reading: str  # how to read it
    columns: tuple[str, ...]  # the first is the contestant
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
    return Line(row.name, look(row.contestant), cells)


def speed(experiment: Experiment, summary: Summary) -> Table:
    most = max((jobs_of(experiment, row) for row in summary.rows if row.turns), default=0)

    def cells(row: Row) -> Iterator[Cell]:
        left_out = w.counted(len(row.excluded), "left out", "left out") if row.excluded else ""
        yield Cell(str(row.turns), left_out)
        wall, ran = _estimated(row.wall, "seconds"), jobs_of(experiment, row)
        yield Cell(wall.text, f"{ran:,} of the jobs") if 0 < ran < most else wall
        yield _estimated(row.jobs_per_second)
        yield Cell("yardstick") if row.contestant.serial else _estimated(row.speedup, "times")
        yield _estimated(row.share_of_ideal, "percent")
        yield from _tail(row.latency)

    return Table(
        "How fast",
        "Each figure is the median of the turns that count, the interval of that median (95 %) below it. A job's"
        " latency runs from the submission to its end. Ideal: the longest job, or the sum over the slots.",
        (
            "contestant",
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
        ("contestant", "until queued", "waited", "ran", "its step", "its whole way", "overhead", "of the slots' time"),
        tuple(_named(row, *cells(row)) for row in summary.rows),
    )


def cost(summary: Summary) -> Table:
    def cells(row: Row) -> Iterator[Cell]:
        memory, late = row.memory, row.lateness
        yield _estimated(row.cpu_per_job, "seconds")
        yield _estimated(row.cores_used)
        yield from _memory(memory, row.contestant) if memory else [Cell(w.NONE)] * 3
        yield _estimated(row.switches_per_job)
        yield Cell(w.seconds(late.p99), f"worst {w.seconds(late.worst)}") if late else Cell(w.NONE)
        yield Cell(row.executors or w.NONE)

    return Table(
        "What it cost",
        "Of all processes of the contestant's workers together. Memory is the proportional set size (shared pages are"
        " split among their processes); per slot is the peak over the slots, of which work added so much to an idle"
        " worker. Workers that live on from turn to turn also have what they grew by, from the end of one turn to the"
        " end of the next; of workers that are started anew for each turn that would mean nothing, and what work added"
        " is all that there is to say. Lateness: how late a thread wakes that wants the interpreter at fixed moments.",
        (
            "contestant",
            "CPU per job",
            "cores used",
            "memory, peak",
            "memory per slot",
            "memory grew per turn",
            "context switches per job",
            "lateness p99",
            "ran on",
        ),
        tuple(_named(row, *cells(row)) for row in summary.rows),
    )


def _memory(of: Memory, contestant: Contestant) -> Iterator[Cell]:
    slots, lives_on = contestant.slots, contestant.lives_on
    yield Cell(w.size(of.peak), "grows from turn to turn" if lives_on and of.grows else f"idle {w.size(of.idle)}")
    yield Cell(w.size(of.peak / slots), f"work adds {w.size(of.per_slot)}") if slots else Cell(w.NONE)
    yield _estimated(of.growth, "size") if lives_on else Cell(w.NONE)


def pairs(summary: Summary) -> Table:
    """Everybody against the fastest; all pairs would be many."""
    rivals = [row for row in summary.rows if row.wall and not row.contestant.serial]
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
