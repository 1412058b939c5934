"""The timeline as a still picture: every contestant's lanes below each other, on one axis of time."""

from __future__ import annotations

from collections.abc import Sequence

from poolbench.experiment import Experiment
from poolbench.figures import counted, seconds, tick_seconds
from poolbench.lanes import Lane, Shown, shown
from poolbench.report.drawing import Drawing, Scale, fit, num
from poolbench.report.palette import look

_ROOM = 320.0  # pixels for a contestant's lanes, if they are many
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
        y = _contestant(drawing, scale, each, y) + 22
    _axis(drawing, scale, y - 14)
    drawing.height = y + 34
    _legend(drawing, y + 24)
    return drawing


def said(of: Shown) -> str:
    return f"{of.contestant.name}: {in_words(of)}"


def in_words(of: Shown) -> str:
    """The lanes, for who does not see them."""
    lanes = of.chart
    strips = list(lanes.strips)
    if not strips:
        return "nothing ran"
    first = min(strip.started for strip in strips)
    executors = ", ".join(group.executors for group in lanes.groups)
    kind = "" if of.turn.counts else "a turn that does not count: " if of.turn.round else "only the warm-up: "
    return (
        f"{kind}{counted(len(strips), 'attempt')} on {executors}; at most {lanes.peak:,} at once;"
        f" the first began after {seconds(first)}, the last ended after"
        f" {seconds(lanes.end)}; the longest wait was {seconds(max(strip.waited for strip in strips))}"
    )


def _contestant(drawing: Drawing, scale: Scale, of: Shown, y: float) -> float:
    each, lanes = of.contestant, of.chart
    name = look(each)
    height = min(max(_ROOM / max(len(lanes.lanes), 1), 0.4), _TALLEST)
    drawing.mark(9, y - 4, name)
    drawing.text(20, y, fit(each.name, 60), "strong")
    drawing.text(scale.start, y, "; ".join(group.executors for group in lanes.groups), "muted")
    y += 8
    for n, lane in enumerate(lanes.lanes):
        if height >= _LABELLED:
            drawing.text(_LEFT - 8, y + n * height + height / 2 + 4, fit(lane.label, 20), "muted end")
    _strips(drawing, scale, lanes.lanes, (y, height), name)
    return y + len(lanes.lanes) * height


def _strips(drawing: Drawing, scale: Scale, lanes: Sequence[Lane], place: tuple[float, float], name: str) -> None:
    """All of a kind as one path: a picture of ten thousand jobs stays one that a viewer can open."""
    top, height = place
    bar = max(height - (2 if height > 6 else 0.3), 0.4)
    waits, early, runs, steps, failed = [], [], [], [], []
    for n, lane in enumerate(lanes):
        y = top + n * height
        for strip in lane.strips:
            begin, end = scale.at(strip.started), scale.at(strip.finished)
            if begin - scale.at(strip.queued) >= 1:
                waits.append(f"M{num(scale.at(strip.queued))} {num(y + bar / 2)}H{num(begin)}")
            if strip.failed:
                failed.append(_box(begin, y, end - begin, bar))
                continue
            byte = begin if strip.first_byte is None else scale.at(strip.first_byte)
            early.append(_box(begin, y, byte - begin, bar) if byte - begin >= 1 else "")
            since = byte if byte - begin >= 1 else begin
            gap = 0.6 if end - since > 3 else 0
            runs.append(_box(since, y, max(end - since - gap, 0.4), bar))
            if (step := end - scale.at(strip.finished - strip.step)) >= 1:
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
