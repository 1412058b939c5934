"""What a report says of one experiment, in words and cells: the page and the text print the same sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from poolbench import figures as w
from poolbench.experiment import Experiment, Turn
from poolbench.report.palette import look
from poolbench.report.tables import Cell, Line, Table, cost, known, pairs, speed, split
from poolbench.statistics import Summary, summarise


@dataclass(frozen=True, slots=True)
class Sheet:
    experiment: Experiment
    summary: Summary
    title: str
    about: str
    tables: tuple[Table, ...]
    excluded: Table | None
    books: Table
    conditions: tuple[tuple[str, str], ...]


def sheet(experiment: Experiment) -> Sheet:
    summary = summarise(experiment)
    title = experiment.scenario.title or experiment.scenario.name
    tables = [speed(experiment, summary), split(summary), cost(summary), pairs(summary)]
    return Sheet(
        experiment=experiment,
        summary=summary,
        title=title[:1].upper() + title[1:],
        about=_about(experiment, summary),
        tables=tuple(known(table) for table in tables if table.lines),
        excluded=_excluded(experiment),
        books=_books(experiment),
        conditions=tuple(_conditions(experiment, summary)),
    )


def _about(experiment: Experiment, summary: Summary) -> str:
    scenario = experiment.scenario
    parts = [f"{w.counted(scenario.jobs, 'job')} for each of {w.counted(len(experiment.contestants), 'contestant')}"]
    if scenario.bytes:
        parts.append(f"{w.size(scenario.bytes)} in all")
    parts.append(f"{w.counted(summary.rounds, 'round')} after the warm-up, in rotating order")
    if scenario.seed is not None:
        parts.append(f"seed {scenario.seed}")
    return ", ".join(parts) + f"; {moment(experiment.started)}"


def _excluded(experiment: Experiment) -> Table | None:
    looks = {each.name: look(each) for each in experiment.contestants}
    turns = [turn for turn in experiment.turns if turn.round > 0 and not turn.counts]
    if not turns:
        return None
    return Table(
        "Turns that do not count",
        "They were measured, and something spoiled them; no figure above uses them.",
        ("contestant", "round", "why", "took"),
        tuple(
            Line(
                turn.contestant,
                looks.get(turn.contestant, ""),
                (
                    Cell(str(turn.round)),
                    Cell("; ".join(turn.excluded) or "not every job is done"),
                    Cell(w.seconds(turn.wall)),
                ),
            )
            for turn in turns
        ),
    )


def _books(experiment: Experiment) -> Table:
    def line(turns: Sequence[Turn], name: str, of: str) -> Line:
        sums = [sum(getattr(turn.books, what) for turn in turns) for what in ("jobs", "done", "once", "here", "right")]
        faults = "; ".join(dict.fromkeys(fault for turn in turns for fault in turn.books.faults))
        balance = all(turn.books.balance for turn in turns)
        verdict = Cell("balance" if balance else "do not balance", faults)
        return Line(name, of, (*(Cell(f"{value:,}") for value in sums), verdict))

    by_name = {each.name: list(experiment.of(each.name, counted=False)) for each in experiment.contestants}
    return Table(
        "The books",
        "From the jobs' records alone, over all turns, the warm-up and the spoiled ones included: was each job done, by"
        " exactly one attempt, on a worker of the contestant, with the right bytes?",
        ("contestant", "jobs", "done", "by one attempt", "here only", "right bytes", "the books"),
        tuple(line(by_name[each.name], each.name, look(each)) for each in experiment.contestants if by_name[each.name]),
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
            t.wall or 0 for t in experiment.turns if t.counts
        )
        yield (
            "Sampling",
            f"at most every {w.seconds(sampling.every)}; it used {w.seconds(sampling.cpu)} of CPU:"
            f" {w.percent(sampling.share)} of what the contestants used"
            + (f", {w.percent(sampling.cpu / had)} of what the machine had meanwhile" if had else ""),
        )
    for each in experiment.contestants:
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
