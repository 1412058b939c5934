"""What is read at the end of a comparison: the tutorial's page, or a table of contestants with their spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from producer.comparison.experiment import Experiment
from producer.comparison.figures import Row, Summary, Verdict
from producer.comparison.intervals import Estimate
from producer.comparison.page import Page
from producer.comparison.statistics import summarise
from producer.comparison.timeline import ASCII, UNICODE, render
from producer.comparison.verdict import Shown, books, shown, verdict
from producer.comparison.wording import ratio

_LEGEND = (
    "total: from just before the submission to the last file's finish, by Redis' clock; sum and longest: of the seconds"
    " for which the origin paces the files, so everything else counts as overhead."
)
_COLUMNS = (
    "Medians over the rounds that count, jobs/s with the interval of the median at 95 % (from 3 rounds on). wall: from"
    " just before the submission to the last job's end, by Redis' clock. CPU per job and MiB (proportional, at the"
    " peak): of all processes of the worker."
)


def close(page: Page, experiment: Experiment) -> None:
    page.say()
    if experiment.scenario.name == "article":
        _article(page, experiment)
    else:
        _contestants(page, experiment)


def _article(page: Page, experiment: Experiment) -> None:
    turns = shown(experiment)
    page.table(_totals(page, turns))
    page.paragraph(_LEGEND, "dim")
    for line in render(experiment, width=page.width, glyphs=UNICODE if page.utf8 else ASCII):
        page.say(line)
    page.say()
    told = [each.turn for each in turns]
    page.paragraph(books(told), "" if all(turn.books.balance for turn in told) else "red")
    page.paragraph(verdict(turns), "bold")


def _totals(page: Page, turns: Sequence[Shown]) -> Table:
    table = Table()
    table.add_column("pool")
    for title in ("sum", "longest", "total", page.fit("total ÷ longest")):
        table.add_column(title, justify="right")
    for each in turns:
        numbers = each.totals
        name = f"serial, on {each.contestant.pool}" if each.contestant.serial else each.name
        total = page.fit("–") if numbers.total is None else f"{numbers.total:.2f} s"
        ratio = page.fit("–") if numbers.ratio is None else f"{numbers.ratio:.3f}"
        table.add_row(name, f"{numbers.sum:g} s", f"{numbers.longest:g} s", total, ratio)
    return table


def _contestants(page: Page, experiment: Experiment) -> None:
    summary = summarise(experiment)
    table = Table()
    table.add_column("")
    for title in ("rounds", "jobs/s (95 %)", "wall, s", "× serial", "CPU ms", "MiB"):
        table.add_column(page.fit(title), justify="right")
    for row in summary.rows:
        name, *cells = (page.fit(cell) for cell in _row(row, summary.rounds))
        table.add_row(name.replace("+", "\n+"), *cells)  # an option per line: the figures need the width
    if summary.rounds:
        page.table(table)
        page.paragraph(_COLUMNS, "dim")
    else:
        page.paragraph("Nothing was measured yet: only turns of the warm-up have ended, and they do not count.", "bold")
    for line in _verdicts(summary):
        page.paragraph(line, "bold")
    counted = [turn for turn in experiment.turns if turn.counts]
    if counted:
        page.paragraph(books(counted), "" if all(turn.books.balance for turn in counted) else "red")
    if cores := experiment.cores:
        page.paragraph(f"{cores.effective:.2f} of {cores.nominal} cores were really ours, in the median.", "dim")
    for note in experiment.notes:
        page.paragraph(f"Note: {note}.", "dim")


def _row(row: Row, rounds: int) -> list[str]:
    rate = row.jobs_per_second
    between = "" if rate is None or rate.interval is None else f" ({rate.interval[0]:.3g}–{rate.interval[1]:.3g})"
    return [
        row.name,
        f"{row.turns}/{rounds}",
        "–" if rate is None else f"{rate.median:.3g}{between}",
        _median(row.wall, "{:.2f}"),
        "–" if row.contestant.serial else _median(row.speedup, "{:.2g}"),
        _median(row.cpu_per_job, "{:.1f}", 1000.0),
        "–" if row.memory is None else f"{row.memory.peak / 2**20:.0f}",
    ]


def _median(found: Estimate | None, form: str, factor: float = 1.0) -> str:
    return "–" if found is None else form.format(found.median * factor)


def _verdicts(summary: Summary) -> Iterator[str]:
    """The fastest contestant beside each of the others."""
    rivals = [row for row in summary.rows if row.jobs_per_second and not row.contestant.serial]
    if len(rivals) < 2:
        return
    first = max(rivals, key=lambda row: row.jobs_per_second.median if row.jobs_per_second else 0.0)
    for other in rivals:
        if other is first:
            continue
        found = summary.compare(first.name, other.name)
        if found.verdict is Verdict.CANNOT_TELL:
            sentence = f"Whether {first.name} is faster than {other.name} we cannot tell"
        else:
            sentence = f"{first.name} is {found.verdict} than {other.name}"
        sentence += f": jobs/s are in the ratio {ratio(found.ratio)}."
        yield sentence
