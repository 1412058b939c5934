"""Bars, and where the time of a job goes."""

from __future__ import annotations

from collections.abc import Sequence

from poolbench.figures import seconds
from poolbench.report.drawing import Drawing, Scale, fit, wide
from poolbench.report.palette import look
from poolbench.statistics import Split, Summary

NARROW = 560  # pixels; below, labels stand above their bars
BAR = 14.0


def split(summary: Summary, width: float) -> Drawing:
    """Per contestant two bars on one axis: a job's way to its end, and what it cost of the slots."""
    rows = [(row, row.split) for row in summary.rows if row.split]
    most = max((max(_way(of), _cost(of)) for _, of in rows), default=1.0)
    plan = Plan(width, [row.name for row, _ in rows], most, room=72, bars=2)
    says = "; ".join(
        f"{row.name}: waits {seconds(of.submit + of.wait)}, runs {seconds(of.run)}, step {seconds(of.step)},"
        f" overhead {seconds(of.overhead)}"
        for row, of in rows
    )
    drawing = Drawing("A job's way, and what it costs", says, width, plan.height + 8)
    plan.zero(drawing)
    for n, (row, of) in enumerate(rows):
        name = look(row.contestant)
        y = plan.row(drawing, n, row.name, name)
        x = _phase(drawing, plan, (plan.scale.start, y), of.submit + of.wait, phase="wait", name=name)
        x = _phase(drawing, plan, (x, y), of.run, phase="run", name=name)
        x = _phase(drawing, plan, (x, y), of.step, phase="step", name=name)
        drawing.text(x + 6, y + 11, seconds(_way(of)))
        if of.overhead is not None:
            y += BAR + 3
            x = _phase(drawing, plan, (plan.scale.start, y), of.run + of.step, phase="run", name=name)
            x = _phase(drawing, plan, (x, y), of.overhead, phase="overhead", name=name)
            drawing.text(x + 6, y + 11, seconds(_cost(of)), "muted")
    return drawing


def _way(of: Split) -> float:
    return of.submit + of.wait + of.run + of.step


def _cost(of: Split) -> float:
    return of.run + of.step + max(of.overhead or 0.0, 0.0)


def _phase(drawing: Drawing, plan: Plan, place: tuple[float, float], value: float, *, phase: str, name: str) -> float:
    """Each phase has its shape: waiting is thin, running full, the step hatched, overhead hollow."""
    x, y = place
    width = plan.scale.at(max(value, 0.0)) - plan.scale.start
    if width <= 0:
        return x
    if phase == "wait":
        drawing.rect(x, y + BAR / 2 - 2, width, 4, "wait")
    elif phase == "overhead":
        drawing.rect(x + 0.5, y + 1, width, BAR - 2, "hollow")
    else:
        drawing.rect(x, y, width, BAR, name)
    if phase == "step":
        drawing.hatch(x, y, width, BAR, "on")
    return x + width


class Plan:
    """Rows of bars: labels on the left, or above where there is little room; the figures stand at their ends."""

    def __init__(self, width: float, labels: Sequence[str], most: float, *, room: float, bars: int = 1) -> None:
        narrow = width < NARROW
        self.left = 4.0 if narrow else max(168.0, 28 + wide(labels))
        self.top = 8.0
        self._above = 17.0 if narrow else 0.0
        self._pitch = self._above + bars * (BAR + 3) + 10
        self.height = self.top + len(labels) * self._pitch + 4
        self.bars: list[float] = []  # where each row's first one is
        self.scale = Scale(0.0, most or 1.0, self.left, width - room)

    def zero(self, drawing: Drawing) -> None:
        drawing.line(self.left - 0.5, self.top - 4, self.left - 0.5, self.height, "axis")

    def row(self, drawing: Drawing, n: int, label: str, mark: str) -> float:
        """Where the row's first bar is."""
        y = self.top + n * self._pitch
        if mark:
            drawing.mark(9, y + 7, mark)
        drawing.text(20 if mark else 4, y + 11, fit(label))
        self.bars.append(y + self._above)
        return y + self._above
