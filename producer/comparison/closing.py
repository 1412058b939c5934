"""What is read at the end of a comparison: the tutorial's page, or a table of contestants with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table

from producer.comparison.experiment import Contestant, Experiment, Turn
from producer.comparison.page import Page
from producer.comparison.timeline import ASCII, UNICODE, render
from producer.comparison.verdict import Shown, books, shown, verdict

_LEGEND = (
    "total: from just before the submission to the last file's finish, by Redis' clock; sum and longest: of the seconds"
    " for which the origin paces the files, so everything else counts as overhead."
)
_COLUMNS = (
    "wall: from just before the submission to the last job's end, by Redis' clock; medians over the rounds that count,"
    " with the lowest and the highest. CPU and memory (proportional, at the peak): of all processes of the worker."
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
    _timeline(page, turns)
    told = [each.turn for each in turns]
    page.paragraph(books(told), "" if all(turn.books.balance for turn in told) else "red")
    page.paragraph(verdict(turns), "bold")


def _timeline(page: Page, turns: Sequence[Shown]) -> None:
    for line in render([each.turn for each in turns], width=page.width, glyphs=UNICODE if page.utf8 else ASCII):
        page.say(line)
    page.say()


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
    serial = next((each.name for each in experiment.contestants if each.serial), None)
    table = Table()
    table.add_column("")
    for title in ("rounds", "wall, s", "jobs/s", "× serial", "CPU ms/job", "memory, MB"):
        table.add_column(page.fit(title), justify="right")
    for each in experiment.contestants:
        table.add_row(*(page.fit(cell) for cell in _row(experiment, each, serial)))
    page.table(table)
    page.paragraph(_COLUMNS, "dim")
    counted = [turn for turn in experiment.turns if turn.counts]
    if counted:
        page.paragraph(books(counted), "" if all(turn.books.balance for turn in counted) else "red")
    if experiment.cores:
        cores = experiment.cores
        page.paragraph(f"{cores.effective:.2f} of {cores.nominal} cores were really ours, in the median.", "dim")
    for note in experiment.notes:
        page.paragraph(f"Note: {note}.", "dim")


def _row(experiment: Experiment, contestant: Contestant, serial: str | None) -> list[str]:
    turns = list(experiment.of(contestant.name))
    usages = [turn.usage for turn in turns if turn.usage]
    rounds = len({turn.round for turn in experiment.turns if turn.round})
    ratios = [_rate(turn) / rate for turn in turns if (rate := _rate_of(experiment, serial, turn.round))]
    return [
        contestant.name,
        f"{len(turns)}/{rounds}",
        _spread([turn.wall for turn in turns if turn.wall is not None], "{:.2f}"),
        f"{statistics.median(map(_rate, turns)):.1f}" if turns else "–",
        "–" if contestant.serial or not ratios else f"{statistics.median(ratios):.1f}",
        "–" if not usages else f"{_cpu_per_job(turns) * 1000:.1f}",
        "–" if not usages else f"{statistics.median(each.pss_peak for each in usages) / 2**20:.0f}",
    ]


def _spread(values: Sequence[float], form: str) -> str:
    """The median, with the lowest and the highest if there are several."""
    if not values:
        return "–"
    middle = form.format(statistics.median(values))
    spread = "" if len(values) == 1 else f" ({form.format(min(values))}–{form.format(max(values))})"
    return f"{middle}{spread}"


def _rate(turn: Turn) -> float:
    return turn.books.done / turn.wall if turn.wall else 0.0


def _rate_of(experiment: Experiment, name: str | None, number: int) -> float | None:
    return next((_rate(turn) for turn in experiment.of(name or "") if turn.round == number), None)


def _cpu_per_job(turns: Sequence[Turn]) -> float:
    return statistics.median(turn.usage.cpu / max(turn.books.done, 1) for turn in turns if turn.usage)
