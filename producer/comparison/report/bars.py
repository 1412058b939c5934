"""Bars: how long the jobs took against their sum and the longest of them, and where the time of a job goes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from producer.comparison.experiment import Experiment
from producer.comparison.figures import Row, Split, Summary
from producer.comparison.report.drawing import Drawing, Scale
from producer.comparison.report.palette import look
from producer.comparison.report.wording import bounds, seconds

NARROW = 560  # pixels; below, labels stand above their bars
_GAP = 4  # a bar is cut if it is longer than so many times the longest that matters
_BAR = 14


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """The two ends between which every schedule lies, seconds."""

    sum: float
    longest: float
    planned: bool  # as the origin paced them; otherwise as they ran one at a time, or else on the contestant


def yardsticks(experiment: Experiment) -> Yardsticks | None:
    nominal = experiment.scenario.nominal
    if nominal:
        return Yardsticks(sum(nominal), max(nominal), planned=True)
    order = sorted(experiment.contestants, key=lambda contestant: not contestant.serial)
    for contestant in order:
        ran = [turn.spans.ran for turn in experiment.of(contestant.name) if turn.spans.ran]
        if ran:
            return Yardsticks(median(map(sum, ran)), median(map(max, ran)), planned=False)
    return None


def sum_against_longest(experiment: Experiment, summary: Summary, width: float) -> Drawing:
    found = yardsticks(experiment)
    rows = [row for row in summary.rows if row.wall]
    ends = [end for row in rows if (end := bounds(row.wall))]
    most = max([high for _, high in ends] + ([found.longest] if found else [0.0]), default=1.0)
    cut = bool(found and found.sum > _GAP * most)
    if found and not cut:
        most = max(most, found.sum)
    plan = _Plan(width, len(rows) + (1 if found else 0), most, room=72)
    says = "; ".join(f"{row.name} took {seconds(row.wall.median)}" for row in rows if row.wall)
    drawing = Drawing("The sum of the jobs against the longest of them", says, width, plan.height + 34)
    plan.zero(drawing)
    if found:
        y = plan.row(drawing, 0, "all jobs, one by one", "")
        _sum_bar(drawing, plan, y, found.sum, cut=cut)
    for n, row in enumerate(rows, 1 if found else 0):
        _wall_bar(drawing, plan, plan.row(drawing, n, row.name, look(row.contestant)), row)
    if found:
        x = plan.scale.at(found.longest)
        drawing.path("".join(f"M{x:.1f} {y - 4}v{_BAR + 8}" for y in plan.bars), "limit")
        drawing.line(x, plan.height - 4, x, plan.height + 8, "limit")
        text = f"longest job {seconds(found.longest)}"
        right = x < width / 2
        drawing.text(x + (5 if right else -5), plan.height + 26, text, "strong" if right else "strong end")
    return drawing


def _sum_bar(drawing: Drawing, plan: _Plan, y: float, value: float, *, cut: bool) -> None:
    end = plan.scale.stop if cut else plan.scale.at(value)
    drawing.rect(plan.scale.start, y, end - plan.scale.start, _BAR, "hollow")
    drawing.hatch(plan.scale.start, y, end - plan.scale.start, _BAR, "rule")
    if cut:
        middle = (plan.scale.start + end) / 2
        drawing.path(f"M{middle - 5} {y - 3}l6 7l-6 6l6 7h7l-6 -7l6 -6l-6 -7z", "paper")
        drawing.path(f"M{middle - 5} {y - 3}l6 7l-6 6l6 7M{middle + 2} {y - 3}l6 7l-6 6l6 7", "axis")
    drawing.text(end + 6, y + 11, seconds(value))


def _wall_bar(drawing: Drawing, plan: _Plan, y: float, row: Row) -> None:
    if row.wall is None:
        return
    end = plan.scale.at(row.wall.median)
    drawing.rect(plan.scale.start, y, max(end - plan.scale.start, 1), _BAR, look(row.contestant))
    low, high = map(plan.scale.at, bounds(row.wall) or (row.wall.low, row.wall.high))
    middle = y + _BAR / 2
    drawing.path(f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8", "ink")
    drawing.text(max(end, high) + 6, y + 11, seconds(row.wall.median))


PHASES = ("wait", "run", "step", "overhead")


def split(summary: Summary, width: float) -> Drawing:
    """Per contestant two bars on one axis: a job's way to its end, and what it cost of the slots."""
    rows = [(row, row.split) for row in summary.rows if row.split]
    most = max((max(_way(of), _cost(of)) for _, of in rows), default=1.0)
    plan = _Plan(width, len(rows), most, room=72, bars=2)
    says = "; ".join(
        f"{row.name}: waits {seconds(of.submit + of.wait)}, runs {seconds(of.run)}, step {seconds(of.step)},"
        f" overhead {seconds(of.overhead)}"
        for row, of in rows
    )
    drawing = Drawing("Where the time of a job goes", says, width, plan.height + 8)
    plan.zero(drawing)
    for n, (row, of) in enumerate(rows):
        name = look(row.contestant)
        y = plan.row(drawing, n, row.name, name)
        x = _phase(drawing, plan, (plan.scale.start, y), of.submit + of.wait, phase="wait", name=name)
        x = _phase(drawing, plan, (x, y), of.run, phase="run", name=name)
        x = _phase(drawing, plan, (x, y), of.step, phase="step", name=name)
        drawing.text(x + 6, y + 11, seconds(_way(of)))
        if of.overhead is not None:
            y += _BAR + 3
            x = _phase(drawing, plan, (plan.scale.start, y), of.run + of.step, phase="run", name=name)
            x = _phase(drawing, plan, (x, y), of.overhead, phase="overhead", name=name)
            drawing.text(x + 6, y + 11, seconds(_cost(of)), "muted")
    return drawing


def _way(of: Split) -> float:
    return of.submit + of.wait + of.run + of.step


def _cost(of: Split) -> float:
    return of.run + of.step + max(of.overhead or 0.0, 0.0)


def _phase(drawing: Drawing, plan: _Plan, place: tuple[float, float], value: float, *, phase: str, name: str) -> float:
    """Each phase has its shape: waiting is thin, running full, the step hatched, overhead hollow."""
    x, y = place
    width = plan.scale.at(max(value, 0.0)) - plan.scale.start
    if width <= 0:
        return x
    if phase == "wait":
        drawing.rect(x, y + _BAR / 2 - 2, width, 4, "wait")
    elif phase == "overhead":
        drawing.rect(x + 0.5, y + 1, width, _BAR - 2, "hollow")
    else:
        drawing.rect(x, y, width, _BAR, name)
    if phase == "step":
        drawing.hatch(x, y, width, _BAR, "on")
    return x + width


class _Plan:
    """Rows of bars: labels on the left, or above where there is little room; the figures stand at their ends."""

    def __init__(self, width: float, rows: int, most: float, *, room: float, bars: int = 1) -> None:
        narrow = width < NARROW
        self.left = 4.0 if narrow else 168.0
        self.top = 8.0
        self._above = 17.0 if narrow else 0.0
        self._pitch = self._above + bars * (_BAR + 3) + 10
        self.height = self.top + rows * self._pitch + 4
        self.bars: list[float] = []  # where each row's first one is
        self.scale = Scale(0.0, most or 1.0, self.left, width - room)

    def zero(self, drawing: Drawing) -> None:
        drawing.line(self.left - 0.5, self.top - 4, self.left - 0.5, self.height, "axis")

    def row(self, drawing: Drawing, n: int, label: str, mark: str) -> float:
        """Where the row's first bar is."""
        y = self.top + n * self._pitch
        if mark:
            drawing.mark(9, y + 7, mark)
        drawing.text(20 if mark else 4, y + 11, fit(label, 22))
        self.bars.append(y + self._above)
        return y + self._above


def fit(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
