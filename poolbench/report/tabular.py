"""A table as a picture, for slides and messages."""

from __future__ import annotations

from poolbench.experiment import Experiment
from poolbench.report.drawing import Drawing, fit, wide
from poolbench.report.tables import Table, known, speed
from poolbench.statistics import Summary

_TALL, _HEAD, _NAME, _WIDE = 44.0, 40.0, 190.0, 112.0


def table(experiment: Experiment, summary: Summary) -> Drawing:
    """How fast each contestant was."""
    of = known(speed(experiment, summary))
    says = "; ".join(f"{line.name}: {', '.join(cell.text for cell in line.cells)}" for line in of.lines)
    name = max(_NAME, 36 + wide([line.name for line in of.lines]))
    drawing = Drawing(of.caption, says, name + _WIDE * (len(of.columns) - 1) + 12, _HEAD + _TALL * len(of.lines) + 8)
    _head(drawing, of, name)
    for n, line in enumerate(of.lines):
        y = _HEAD + n * _TALL
        if line.look:
            drawing.mark(15, y + 15, line.look)
        drawing.text(28, y + 19, fit(line.name), "strong")
        for place, cell in enumerate(line.cells, 1):
            drawing.text(name + _WIDE * place, y + 19, cell.text, "end")
            drawing.text(name + _WIDE * place, y + 35, cell.note, "muted end")
        drawing.line(6, y + _TALL, drawing.width - 6, y + _TALL, "rule")
    return drawing


def _head(drawing: Drawing, of: Table, name: float) -> None:
    for place, column in enumerate(of.columns):
        if place:
            drawing.text(name + _WIDE * place, 24, fit(column, 18), "muted end")
        else:
            drawing.text(6, 24, column, "muted")
    drawing.line(6, _HEAD - 4, drawing.width - 6, _HEAD - 4, "axis")
