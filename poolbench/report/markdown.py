"""The report as Markdown: what the page says, without its pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from poolbench.advice import recommend
from poolbench.experiment import Experiment
from poolbench.lanes import render, shown
from poolbench.report.answer import Answer, answer
from poolbench.report.sheet import Sheet, sheet
from poolbench.report.still import said
from poolbench.report.tables import Cell, Table
from poolbench.runfiles import agreeing, pooled

_WIDTH = 100  # columns of the timeline
_SPECIAL = re.compile(r"([\\`*_\[\]<>|&#~])")


def text(experiments: Sequence[Experiment]) -> str:
    lines: list[str] = []
    for group in agreeing(experiments):
        experiment = pooled(group)
        told = sheet(experiment)
        lines += [*_section(told, answer(recommend(group, conditions=False), told.summary)), ""]
    return "\n".join(lines)


def _section(told: Sheet, answered: Answer) -> Iterator[str]:
    advice = answered.advice
    yield f"# {plain(answered.sentence)}"
    yield ""
    yield f"**{'Confidence: ' if advice.answer else ''}{answered.confidence}** ({answered.means})"
    if advice.command:
        yield from ("", *_code([advice.command]))
    yield from ("", f"**{plain(told.title)}** {plain(told.about)}.")
    for heading, lines in answered.lists:
        yield from ("", f"**{heading}**", "", *(f"- {plain(line)}" for line in lines))
    yield from ("", "## The figures")
    for table in told.tables:
        yield from ("", *_table(table))
    yield from ("", "## Who ran when", "", *(f"- {plain(said(each))}" for each in shown(told.experiment)))
    yield from ("", *_code(render(told.experiment, width=_WIDTH)))
    yield from ("", "## Can it be trusted?", "")
    if told.excluded:
        yield from _table(told.excluded)
    else:
        yield "Every turn counts; none was left out but the warm-up."
    yield from ("", *_table(told.books), "", "## Conditions", "")
    yield from (f"- {plain(term)}: {plain(said)}" for term, said in told.conditions)


def _table(table: Table) -> Iterator[str]:
    yield f"**{table.caption}** {table.reading}"
    yield ""
    yield _row(table.columns)
    yield _row(["---", *["---:"] * (len(table.columns) - 1)])
    for line in table.lines:
        yield _row([plain(line.name), *(_cell(cell) for cell in line.cells)])


def _cell(cell: Cell) -> str:
    return plain(cell.text) + (f" ({plain(cell.note)})" if cell.note else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    """A block whose lines cannot end it."""
    found = [_printable(line) for line in lines]
    fence = "`" * max([3, *(len(run) + 1 for line in found for run in re.findall("`+", line))])
    yield from (fence, *found, fence)


def plain(said: str) -> str:
    """Text that others wrote, as text: nothing in it is markup, or steers a terminal."""
    return _SPECIAL.sub(r"\\\1", _printable(said))


def _printable(said: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in said)
