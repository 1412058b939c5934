"""The lanes as a still picture: every deployment's lanes below each other, on one axis of time. And a table as one.

All marks of a kind are one path, so that a picture of ten thousand jobs stays one that a viewer can open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from poolbench.experiment import Experiment
from poolbench.figures import counted, seconds, tick_seconds
from poolbench.lanes import Lane, Shown, shown
from poolbench.report.palette import DRAWING, look, resolved
from poolbench.report.tables import Table, known, speed
from poolbench.statistics import Summary

_MARK = 4.0  # half the width of a mark
_LETTER = 7.0  # pixels, about
_MOST_LETTERS = 48  # of a label: a deployment's name with all of its options


@dataclass(frozen=True, slots=True)
class Mark:
    tag: str
    attributes: Mapping[str, str | float]
    text: str | None = None

    def svg(self) -> str:
        attributes = "".join(f' {name}="{escape(str(value))}"' for name, value in self.attributes.items())
        return f"<{self.tag}{attributes}" + ("/>" if self.text is None else f">{escape(self.text)}</{self.tag}>")


@dataclass(slots=True)
class Drawing:
    """A picture of so many pixels, with what it says for who cannot see it."""

    title: str
    says: str
    width: float
    height: float
    marks: list[Mark] = field(default_factory=list)

    def rect(self, x: float, y: float, width: float, height: float, look: str) -> None:
        box: dict[str, str | float] = {
            "x": _r(x),
            "y": _r(y),
            "width": _r(max(width, 0.0)),
            "height": _r(height),
            "class": look,
        }
        self.marks.append(Mark("rect", box))

    def line(self, x1: float, y1: float, x2: float, y2: float, look: str) -> None:
        self.path(f"M{_r(x1)} {_r(y1)}L{_r(x2)} {_r(y2)}", look)

    def path(self, d: str, look: str) -> None:
        self.marks.append(Mark("path", {"d": d, "class": look}))

    def text(self, x: float, y: float, text: str, look: str = "") -> None:
        self.marks.append(Mark("text", {"x": _r(x), "y": _r(y)} | ({"class": look} if look else {}), text))

    def mark(self, x: float, y: float, look: str) -> None:
        """The pool's own: a square, a disc, a triangle; a diamond for the baseline."""
        m = _MARK
        corners = {
            "prefork": f"M{_r(x - m)} {_r(y - m)}h{2 * m}v{2 * m}h{-2 * m}z",
            "threads": f"M{_r(x - m)} {_r(y)}a{m} {m} 0 1 0 {2 * m} 0a{m} {m} 0 1 0 {-2 * m} 0z",
            "gevent": f"M{_r(x)} {_r(y - m - 1)}l{m + 1} {2 * m}h{-2 * (m + 1)}z",
            "serial": f"M{_r(x)} {_r(y - m - 1)}l{m + 1} {m + 1}l{-m - 1} {m + 1}l{-m - 1} {-m - 1}z",
        }
        self.path(corners[look], look)

    def svg(self) -> str:
        """A document with its own style and paper."""
        says = f"<title>{escape(self.title)}</title><desc>{escape(self.says)}</desc>"
        size = f'viewBox="0 0 {_r(self.width)} {_r(self.height)}" width="{_r(self.width)}" height="{_r(self.height)}"'
        name = f'role="img" aria-label="{escape(f"{self.title}. {self.says}")}"'
        paper = '<rect class="paper" width="100%" height="100%"/>'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {name}>'
        style = f"<style>{resolved(DRAWING)}</style>"
        return "\n".join([head, says, style, paper, *(mark.svg() for mark in self.marks), "</svg>", ""])


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)

    def ticks(self, most: int) -> Sequence[float]:
        """Round values, so many at the most."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        step = next(step for step in _steps(span / most) if span / step <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _steps(least: float) -> Iterator[float]:
    power = 10.0 ** math.floor(math.log10(least))
    yield from (power * factor for factor in (1, 2, 5, 10, 20))


def _r(value: float) -> float:
    rounded = round(value, 1)
    return int(rounded) if rounded == int(rounded) else rounded


num = _r


def wide(labels: Sequence[str]) -> float:
    """Pixels of the longest, as far as it is shown."""
    return _LETTER * min(max(map(len, labels), default=0), _MOST_LETTERS)


def fit(text: str, most: int = _MOST_LETTERS) -> str:
    """So many letters of it, at the most."""
    return text if len(text) <= most else text[: most - 1] + "…"


# -- lanes

_ROOM = 320.0  # pixels for a deployment's lanes, if they are many
_TALLEST, _LABELLED = 16.0, 10.0  # pixels of a lane, and from which on it has a label
_LEFT = 128.0


def timeline(experiment: Experiment, width: float = 1000.0) -> Drawing | None:
    """None if no turn's jobs were kept."""
    found = shown(experiment)
    if not found:
        return None
    end = max(each.chart.end for each in found) or 1.0
    scale = Scale(0.0, end, _LEFT, width - 20)
    drawing = Drawing("Who ran when", "; ".join(map(said, found)), width, 0.0)
    y = 24.0
    for each in found:
        y = _deployment(drawing, scale, each, y) + 22
    _axis(drawing, scale, y - 14)
    drawing.height = y + 34
    _legend(drawing, y + 24)
    return drawing


def said(of: Shown) -> str:
    return f"{of.deployment.name}: {in_words(of)}"


def in_words(of: Shown) -> str:
    """The lanes, for who does not see them."""
    lanes = of.chart
    spans = list(lanes.spans)
    if not spans:
        return "nothing ran"
    first = min(span.started for span in spans)
    executors = ", ".join(group.executors for group in lanes.groups)
    kind = (
        ""
        if of.measurement.counts
        else "a turn that does not count: "
        if of.measurement.round
        else "only the warm-up: "
    )
    return (
        f"{kind}{counted(len(spans), 'attempt')} on {executors}; at most {lanes.peak:,} at once;"
        f" the first began after {seconds(first)}, the last ended after"
        f" {seconds(lanes.end)}; the longest wait was {seconds(max(span.waited for span in spans))}"
    )


def _deployment(drawing: Drawing, scale: Scale, of: Shown, y: float) -> float:
    each, lanes = of.deployment, of.chart
    name = look(each)
    height = min(max(_ROOM / max(len(lanes.lanes), 1), 0.4), _TALLEST)
    drawing.mark(9, y - 4, name)
    drawing.text(20, y, fit(each.name, 60), "strong")
    drawing.text(scale.start, y, "; ".join(group.executors for group in lanes.groups), "muted")
    y += 8
    for n, lane in enumerate(lanes.lanes):
        if height >= _LABELLED:
            drawing.text(_LEFT - 8, y + n * height + height / 2 + 4, fit(lane.label, 20), "muted end")
    _spans(drawing, scale, lanes.lanes, (y, height), name)
    return y + len(lanes.lanes) * height


def _spans(drawing: Drawing, scale: Scale, lanes: Sequence[Lane], place: tuple[float, float], name: str) -> None:
    """All of a kind as one path: a picture of ten thousand jobs stays one that a viewer can open."""
    top, height = place
    bar = max(height - (2 if height > 6 else 0.3), 0.4)
    waits, early, runs, steps, failed = [], [], [], [], []
    for n, lane in enumerate(lanes):
        y = top + n * height
        for span in lane.spans:
            begin, end = scale.at(span.started), scale.at(span.finished)
            if begin - scale.at(span.queued) >= 1:
                waits.append(f"M{num(scale.at(span.queued))} {num(y + bar / 2)}H{num(begin)}")
            if span.failed:
                failed.append(_box(begin, y, end - begin, bar))
                continue
            byte = begin if span.first_byte is None else scale.at(span.first_byte)
            early.append(_box(begin, y, byte - begin, bar) if byte - begin >= 1 else "")
            since = byte if byte - begin >= 1 else begin
            gap = 0.6 if end - since > 3 else 0
            runs.append(_box(since, y, max(end - since - gap, 0.4), bar))
            if (step := end - scale.at(span.finished - span.step)) >= 1:
                steps.append(_box(end - step, y + bar * 0.65, step - gap, bar * 0.35))
    found = (("waits", waits), (f"{name} early", early), (name, runs), ("inked", steps), ("hollow", failed))
    for classes, parts in found:
        if any(parts):
            drawing.path("".join(parts), classes)


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{num(x)} {y:.2f}h{max(width, 0.4):.1f}v{height:.2f}h{-max(width, 0.4):.1f}z"


def _axis(drawing: Drawing, scale: Scale, y: float) -> None:
    drawing.line(scale.start, y, scale.stop, y, "axis")
    for tick in scale.ticks(8):
        drawing.line(scale.at(tick), y, scale.at(tick), y + 4, "axis")
        drawing.text(scale.at(tick), y + 17, tick_seconds(tick), "muted mid")


def _legend(drawing: Drawing, y: float) -> None:
    x = _LEFT
    drawing.line(x, y - 4, x + 18, y - 4, "waits")
    drawing.text(x + 24, y, "waits in the queue")
    drawing.rect(x + 150, y - 10, 10, 11, "serial early")
    drawing.rect(x + 160, y - 10, 14, 11, "serial")
    drawing.text(x + 180, y, "runs; pale until its first byte")
    drawing.rect(x + 368, y - 10, 20, 11, "serial")
    drawing.rect(x + 378, y - 3, 10, 4, "inked")
    drawing.text(x + 394, y, "its step")
    drawing.rect(x + 462, y - 10, 20, 11, "hollow")
    drawing.text(x + 488, y, "an attempt that failed")


# -- a table

_TALL, _HEAD, _NAME, _WIDE = 44.0, 40.0, 190.0, 112.0


def table(experiment: Experiment, summary: Summary) -> Drawing:
    """How fast each deployment was."""
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
