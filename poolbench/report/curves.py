"""Curves: how latencies are spread, and what more slots bring and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from poolbench.experiment import Experiment, Pool, Setup, Turn
from poolbench.figures import bounds, seconds, significant, size, tick, tick_seconds, tick_size
from poolbench.report.drawing import Drawing, Scale, dash, fit, num, wide
from poolbench.report.palette import look
from poolbench.statistics import Row, Summary, percentile, turn_latencies

WIDTH, HEIGHT = 460.0, 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 16.0, 14.0, 30.0  # "256 MiB" fits to the left
MOST_CURVES = 6  # in one picture; of more contestants the fastest of each pool are shown
_POINTS = 200
_SPREAD = 20  # the longest over the shortest, from which on a logarithmic axis shows more

Spans = Callable[[Turn], Sequence[float]]
KINDS: dict[str, tuple[str, Spans]] = {
    "latency": ("From the submission to a job's end", turn_latencies),
    "run": ("From a job's claim to its end", lambda turn: turn.spans.ran),
}


def drawn(summary: Summary) -> list[Row]:
    """The contestants whose curves are drawn: all, or the fastest of each pool and the yardstick."""
    rows = [row for row in summary.rows if row.latency]
    if len(rows) <= MOST_CURVES:
        return rows
    fastest: dict[tuple[Pool, bool], Row] = {}
    for row in sorted(rows, key=lambda row: row.wall.median if row.wall else 0.0, reverse=True):
        fastest[row.contestant.pool, row.contestant.serial] = row
    return [row for row in rows if row in fastest.values()]


def dashes(summary: Summary) -> dict[str, str]:
    """A contestant's dashes: the first of each look is solid."""
    seen: dict[str, int] = {}
    found = {}
    for row in summary.rows:
        name = look(row.contestant)
        found[row.name] = dash(seen.get(name, 0))
        seen[name] = seen.get(name, 0) + 1
    return found


def distribution(experiment: Experiment, summary: Summary, kind: str) -> Drawing | None:
    """The share of jobs that took no longer than so many seconds."""
    title, of = KINDS[kind]
    rows = drawn(summary)
    values = {row.name: sorted(span for turn in experiment.of(row.name) for span in of(turn)) for row in rows}
    rows = [row for row in rows if values[row.name]]
    if not rows:
        return None
    ends = [end for row in rows for end in (values[row.name][0], values[row.name][-1])]
    high = max(ends) or 1.0
    positive = [end for end in ends if end > 0] or [high]
    log = high > _SPREAD * min(positive)
    near = 0.98 * min(ends) if min(ends) > high / 2 else 0.0
    x = Scale(max(min(positive), high / 1e4) if log else near, high, _LEFT, WIDTH - _RIGHT, log)
    y = Scale(0.0, 1.0, HEIGHT - _BOTTOM, _TOP)
    tails = ((row, row.latency if kind == "latency" else row.run) for row in rows)
    says = "; ".join(f"{row.name}: half within {seconds(t.p50)}, 95 % within {seconds(t.p95)}" for row, t in tails if t)
    drawing = Drawing(title, says, WIDTH, HEIGHT)
    _axes(drawing, x, y, tick_seconds, lambda share: f"{100 * share:.0f} %")
    styles = dashes(summary)
    _key(drawing, [(row.name, look(row.contestant), styles[row.name]) for row in rows])
    for row in rows:
        ordered, name = values[row.name], look(row.contestant)
        drawing.path(_steps(ordered, x, y), f"{name}-line", styles[row.name])
        for share in (0.5, 0.95):
            drawing.mark(x.at(percentile(ordered, share)), y.at(share), name)
    return drawing


def _steps(ordered: Sequence[float], x: Scale, y: Scale) -> str:
    """A step up at each value; of many values, at some."""
    count = len(ordered)
    places = range(1, count + 1) if count <= _POINTS else [round(n * count / _POINTS) for n in range(1, _POINTS + 1)]
    parts = [f"M{num(x.at(ordered[0]))} {num(y.at(0))}"]
    parts += [f"H{num(x.at(ordered[place - 1]))}V{num(y.at(place / count))}" for place in places]
    return "".join(parts)


_Ends = Callable[[Row], tuple[float, float, float] | None]
_Words = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class _Point:
    slots: int
    value: float
    low: float
    high: float


def _memory(row: Row) -> tuple[float, float, float] | None:
    return (row.memory.peak, row.memory.peak, row.memory.peak) if row.memory else None


def _rate(row: Row) -> tuple[float, float, float] | None:
    rate, ends = row.jobs_per_second, bounds(row.jobs_per_second)
    return (rate.median, *ends) if rate and ends else None


# By kind: title, figure of a row with its ends, the figure in words, and at a tick of the axis.
SLOT_KINDS: dict[str, tuple[str, _Ends, _Words, _Words]] = {
    "throughput": ("Jobs per second against slots", _rate, significant, tick),
    "memory": ("Memory at the peak against slots", _memory, size, tick_size),
}


@dataclass(frozen=True, slots=True)
class _Line:
    """Of the contestants of one pool that are set up alike."""

    label: str
    look: str
    dashed: str
    points: Sequence[_Point]


def _lines(summary: Summary, of: _Ends) -> list[_Line]:
    found: dict[tuple[Pool, Setup], list[_Point]] = {}
    for row in summary.rows:
        each, value = row.contestant, of(row)
        if value and each.slots and not each.serial:
            found.setdefault((each.pool, each.setup), []).append(_Point(each.slots, *value))
    seen: Counter[Pool] = Counter()
    lines = []
    for (pool, setup), points in found.items():
        ordered = sorted(points, key=lambda point: point.slots)
        lines.append(_Line(f"{pool}{setup}", pool.value, dash(seen[pool]), ordered))
        seen[pool] += 1
    return lines


def against_slots(summary: Summary, kind: str) -> Drawing | None:
    """A line per pool and setup; None if none was measured with several numbers of slots."""
    title, of, words, axis = SLOT_KINDS[kind]
    lines = _lines(summary, of)
    points = [point for line in lines for point in line.points]
    if not any(len({point.slots for point in line.points}) > 1 for line in lines):
        return None
    low, high = min(point.slots for point in points), max(point.slots for point in points)
    x = Scale(low, high, _LEFT + 12, WIDTH - _RIGHT - 12, log=high > 8 * low)
    y = Scale(0.0, max(point.high for point in points) or 1.0, HEIGHT - _BOTTOM, _TOP + 6)
    says = "; ".join(
        f"{line.label}: " + ", ".join(f"{words(point.value)} with {point.slots}" for point in line.points)
        for line in lines
    )
    drawing = Drawing(title, says, WIDTH, HEIGHT)
    _axes(drawing, x, y, None, axis, binary=kind == "memory")
    _key(drawing, [(line.label, line.look, line.dashed) for line in lines])
    _slot_ticks(drawing, x, sorted({point.slots for point in points}))
    for line in lines:
        _draw(drawing, x, y, line)
    return drawing


def _draw(drawing: Drawing, x: Scale, y: Scale, line: _Line) -> None:
    places = [(num(x.at(point.slots)), num(y.at(point.value))) for point in line.points]
    for (x1, y1), (x2, y2) in pairwise(places):
        drawing.path(f"M{x1} {y1}L{x2} {y2}", f"{line.look}-line", line.dashed)
    for point, (px, py) in zip(line.points, places, strict=True):
        if point.high > point.low:
            drawing.line(px, y.at(point.low), px, y.at(point.high), f"{line.look}-line")
        drawing.mark(px, py, line.look)


def _slot_ticks(drawing: Drawing, x: Scale, slots: Sequence[int]) -> None:
    last = -100.0
    for each in slots:
        at = x.at(each)
        drawing.line(at, HEIGHT - _BOTTOM, at, HEIGHT - _BOTTOM + 4, "axis")
        if at - last > 30:
            drawing.text(at, HEIGHT - _BOTTOM + 18, f"{each:,}", "muted mid")
            last = at


def _key(drawing: Drawing, entries: Sequence[tuple[str, str, str]]) -> None:
    """Line, mark and name of each, below the axis, in as many rows as it takes."""
    x, y = _LEFT, HEIGHT + 8
    for label, name, dashed in entries:
        text, taken = fit(label), 42 + wide([label])
        if x + taken > WIDTH and x > _LEFT:
            x, y = _LEFT, y + 18
        drawing.path(f"M{x} {y - 4}h24", f"{name}-line", dashed)
        drawing.mark(x + 12, y - 4, name)
        drawing.text(x + 30, y, text)
        x += taken
    drawing.height = y + 8


def _axes(
    drawing: Drawing,
    x: Scale,
    y: Scale,
    of_x: Callable[[float], str] | None,
    of_y: Callable[[float], str],
    *,
    binary: bool = False,
) -> None:
    floor = HEIGHT - _BOTTOM
    for value in y.ticks(5, binary=binary):
        drawing.line(_LEFT, y.at(value), WIDTH - _RIGHT, y.at(value), "rule")
        drawing.text(_LEFT - 6, y.at(value) + 4, of_y(value), "muted end")
    drawing.line(_LEFT, floor, WIDTH - _RIGHT, floor, "axis")
    if of_x is None:
        return
    for value in x.ticks(6):
        at = x.at(value)
        drawing.line(at, floor, at, floor + 4, "axis")
        drawing.text(min(at, WIDTH - 24), floor + 18, of_x(value), "muted mid")
