"""The static timeline: every deployment's lanes below each other, on one axis of time, as SVG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from poolbench.experiment import Experiment
from poolbench.figures import counted, seconds, tick_seconds
from poolbench.lanes import Lane, Shown, shown, ticks
from poolbench.report.palette import DRAWING, MARKS, resolved
from poolbench.runfiles import ReportError

_WIDTH, _LEFT = 1000.0, 128.0  # pixels
_ROOM = 400.0  # pixels for a deployment's lanes, if they are many
_TALLEST, _LABELLED = 16.0, 10.0  # pixels of a lane, and from which on it has a label
_LEGEND = (  # pixels from the left, and what is drawn there
    '<path d="M0 -4h18" class="waits"/><text x="24">waits in the queue</text>'
    '<rect x="150" y="-10" width="10" height="11" class="serial early"/>'
    '<rect x="160" y="-10" width="14" height="11" class="serial"/>'
    '<text x="180">runs; pale until its first byte</text>'
    '<rect x="368" y="-10" width="20" height="11" class="serial"/>'
    '<rect x="378" y="-3" width="10" height="4" class="inked"/><text x="394">its step</text>'
    '<rect x="462" y="-10" width="20" height="11" class="hollow"/><text x="488">an attempt that failed</text>'
)


def timeline(experiment: Experiment) -> str:
    """A document with its own style and paper.

    Raises:
        ReportError: no measurement's jobs were kept.
    """
    if not (found := shown(experiment)):
        raise ReportError("expected something to draw for timeline, got none: no measurement's jobs were kept")
    end = max(each.chart.end for each in found) or 1.0
    marks, y = list[str](), 24.0
    for each in found:
        marks.append(f'<path d="{MARKS[each.deployment.look]}" transform="translate(3,{y - 10:.1f})"{_look(each)}/>')
        marks.append(_text(20, y, _fit(each.deployment.name, 60), "strong"))
        marks.append(_text(_LEFT, y, "; ".join(group.executors for group in each.chart.groups), "muted"))
        lanes = each.chart.lanes
        height = min(max(_ROOM / max(len(lanes), 1), 0.4), _TALLEST)
        if height >= _LABELLED:
            middles = (y + 8 + (n + 0.5) * height + 4 for n in range(len(lanes)))
            marks += [
                _text(_LEFT - 8, at, _fit(of.label, 20), "muted end") for at, of in zip(middles, lanes, strict=True)
            ]
        marks += _spans(lanes, end, y + 8, height, each.deployment.look)
        y += 30 + len(lanes) * height
    marks += _axis(end, y - 14)
    marks.append(f'<g transform="translate({_LEFT:g},{y + 24:.1f})">{_LEGEND}</g>')
    says = escape("; ".join(f"{each.deployment.name}: {in_words(each)}" for each in found))
    size = f'viewBox="0 0 {_WIDTH:g} {y + 34:.1f}" width="{_WIDTH:g}" height="{y + 34:.1f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Who ran when. {says}">'
    style = f"<title>Who ran when</title><desc>{says}</desc><style>{resolved(DRAWING)}</style>"
    return "\n".join([head, style, '<rect class="paper" width="100%" height="100%"/>', *marks, "</svg>", ""])


def in_words(of: Shown) -> str:
    """The lanes, for a reader who does not see them."""
    lanes, spans = of.chart, list(of.chart.spans)
    if not spans:
        return "nothing ran"
    executors = ", ".join(group.executors for group in lanes.groups)
    found = of.measurement
    kind = "" if found.counts else "a measurement that does not count: " if found.round else "only the warm-up: "
    return (
        f"{kind}{counted(len(spans), 'attempt')} on {executors}; at most {lanes.peak:,} at once;"
        f" the first began after {seconds(min(span.started for span in spans))}, the last ended after"
        f" {seconds(lanes.end)}; the longest wait was {seconds(max(span.waited for span in spans))}"
    )


def _look(of: Shown) -> str:
    return f' class="{of.deployment.look}"'


def _text(x: float, y: float, text: str, look: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{look}">{escape(text)}</text>'


def _fit(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _x(moment: float, end: float) -> float:
    return _LEFT + min(max(moment / end, 0.0), 1.0) * (_WIDTH - 20 - _LEFT)


def _spans(lanes: Sequence[Lane], end: float, top: float, height: float, look: str) -> list[str]:
    """All of a kind as one path, so that a viewer can open a picture of ten thousand jobs."""
    bar = max(height - (2 if height > 6 else 0.3), 0.4)
    paths: dict[str, list[str]] = defaultdict(list)
    for n, lane in enumerate(lanes):
        y = top + n * height
        for span in lane.spans:
            begin, stop = _x(span.started, end), _x(span.finished, end)
            if begin - (queued := _x(span.queued, end)) >= 1:
                paths["waits"].append(f"M{queued:.1f} {y + bar / 2:.1f}H{begin:.1f}")
            if span.failed:
                paths["hollow"].append(_box(begin, y, stop - begin, bar))
                continue
            byte = begin if span.first_byte is None else _x(span.first_byte, end)
            if byte - begin >= 1:
                paths[f"{look} early"].append(_box(begin, y, byte - begin, bar))
            since = byte if byte - begin >= 1 else begin
            gap = 0.6 if stop - since > 3 else 0
            paths[look].append(_box(since, y, stop - since - gap, bar))
            if (step := stop - _x(span.finished - span.step, end)) >= 1:
                paths["inked"].append(_box(stop - step, y + bar * 0.65, step - gap, bar * 0.35))
    kinds = ("waits", f"{look} early", look, "inked", "hollow")
    return [f'<path d="{"".join(paths[kind])}" class="{kind}"/>' for kind in kinds if kind in paths]


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.1f} {y:.2f}h{max(width, 0.4):.1f}v{height:.2f}h{-max(width, 0.4):.1f}z"


def _axis(end: float, y: float) -> list[str]:
    marks = [f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - 20:.1f}" class="axis"/>']
    for tick in ticks(end, 8):
        x = _x(tick, end)
        marks.append(f'<path d="M{x:.1f} {y:.1f}v4" class="axis"/>')
        marks.append(_text(x, y + 17, tick_seconds(tick), "muted mid"))
    return marks
