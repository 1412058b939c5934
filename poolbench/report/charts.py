"""Charts by Altair: bars, where the time of a job goes, how latencies are spread, what concurrency brings and costs.

A chart becomes SVG by vl-convert, without a script. Colours are those of the palette; in a page they follow its scheme.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from poolbench.experiment import Experiment, Measurement, Pool, Setup
from poolbench.figures import bounds, seconds, significant, size
from poolbench.report.palette import FONT, LIGHT, look
from poolbench.report.tables import BarsData, bars_data
from poolbench.runfiles import ReportError
from poolbench.statistics import Row, Summary, latencies_of, percentile

WIDE, NARROW = 1000.0, 346.0  # pixels of a chart of bars, on a desk and on a phone
HALF = 460.0  # of a chart of curves
MOST_CURVES = 6  # in one picture; of more deployments the fastest of each pool are shown
_POINTS = 200  # of a curve
_SPREAD = 20  # the longest over the shortest, from which on a logarithmic axis shows more
_BAR = 14
_BELOW = "\u00a0"  # a row below the others, for words
_CUT = 4  # the sum is cut if it is longer than so many times the longest that matters
_SHAPES = {"prefork": "square", "threads": "circle", "gevent": "triangle-up", "serial": "diamond"}
_DASHES = ([1, 0], [7, 3], [2, 3], [9, 3, 2, 3], [1, 2], [12, 4])  # of the deployments of one look, in their order
_SECONDS = (
    "datum.value >= 1 || datum.value == 0 ? format(datum.value, ',~r') + ' s' :"
    " datum.value >= 0.001 ? format(datum.value * 1e3, '~r') + ' ms' : format(datum.value * 1e6, '~r') + ' µs'"
)
MISSING = "install requirements/local.txt, or poolbench[report]"


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture, with what it says for those who cannot see it."""

    title: str
    says: str
    spec: dict[str, Any]  # Vega-Lite

    def svg(self, *, alone: bool = True) -> str:
        """A document with paper of its own, or an element of a page that has the palette as variables."""
        return _svg(self, alone=alone)


def drawable() -> bool:
    """Whether charts can be drawn here; the image has neither."""
    return bool(find_spec("altair") and find_spec("vl_convert"))


def _altair() -> Any:
    try:
        return import_module("altair")  # large: only where something is drawn
    except ImportError as error:
        raise ReportError(f"expected Altair, got none: {MISSING}") from error


def _vl_convert() -> Any:
    try:
        return import_module("vl_convert")
    except ImportError as error:
        raise ReportError(f"expected vl-convert, got none: {MISSING}") from error


def png(svg: str) -> bytes:
    """Any drawing, with twice as many pixels as it has."""
    return bytes(_vl_convert().svg_to_png(svg, scale=2))


def _svg(chart: Chart, *, alone: bool) -> str:
    version = _altair().SCHEMA_VERSION.lstrip("v").rpartition(".")[0]
    text: str = _vl_convert().vegalite_to_svg(chart.spec, vl_version=version)
    title, says = escape(chart.title), escape(chart.says)
    name = f'role="img" aria-label="{title}. {says}" '
    if not alone:
        for colour, hexadecimal in LIGHT.items():
            text = text.replace(f'"{hexadecimal}"', f'"var(--{colour})"')
        return text.replace("<svg ", f"<svg {name}", 1)
    head, _, rest = text.partition(">")
    paper = f'<rect width="100%" height="100%" fill="{LIGHT["paper"]}"/>'
    return f"{head.replace('<svg ', f'<svg {name}', 1)}><title>{title}</title><desc>{says}</desc>{paper}{rest}"


class _Plot:
    """A chart in the making. Its data have names: Altair copies whatever stands in a chart again and again."""

    def __init__(self, width: float) -> None:
        self.alt = _altair()
        self.width = width
        self._data: dict[str, Sequence[Mapping[str, Any]]] = {}

    def of(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        name = f"rows-{len(self._data)}"
        self._data[name] = rows
        return self.alt.Chart(self.alt.NamedData(name=name))

    def spec(self, *layers: Any, **properties: Any) -> dict[str, Any]:
        size = self.alt.AutoSizeParams(type="fit-x", contains="padding")
        muted = LIGHT["muted"]
        chart = (
            self.alt.layer(*layers)
            .properties(width=self.width, autosize=size, **properties)
            .configure(font=FONT, background="transparent", aria=False)
            .configure_view(stroke=None)
            .configure_axis(
                labelColor=muted,
                domainColor=muted,
                tickColor=muted,
                gridColor=LIGHT["rule"],
                labelFontSize=12,
                labelLimit=0,
            )
            .configure_legend(labelColor=LIGHT["ink"], labelFontSize=12, labelLimit=0, orient="bottom", title=None)
            .configure_text(color=LIGHT["ink"], fontSize=12)
        )
        return {**chart.to_dict(validate=False), "datasets": self._data}


# -- bars


def _bars(plot: _Plot, names: Sequence[str], most: float, *, pitch: int) -> tuple[Any, Any, Any]:
    """The axes of horizontal bars, and the layer that names them: left of the bars, or above where room is scarce."""
    alt, narrow = plot.alt, plot.width < WIDE / 2
    axis = None if narrow else alt.Axis(title=None, ticks=False, domain=False, labelColor=LIGHT["ink"], labelPadding=8)
    y = alt.Y("name:N", sort=list(names), axis=axis, scale=alt.Scale(paddingInner=0.1, paddingOuter=0.1))
    x = alt.X("from:Q", axis=alt.Axis(title=None, labelExpr=_SECONDS, tickCount=4 if narrow else 8)).scale(
        domain=[0, most], nice=False
    )
    labels = plot.of([{"name": name, "from": 0} for name in names]).encode(x=x, y=y)
    if narrow:
        labels = labels.mark_text(align="left", dy=-(pitch / 2 + 4), fontWeight=600).encode(text="name:N")
    else:
        labels = labels.mark_rule(opacity=0)
    return x, y, labels.properties(height=alt.Step(pitch + (20 if narrow else 0)))


def bars(experiment: Experiment, summary: Summary, width: float = WIDE) -> Chart:
    """The sum of the jobs against the longest of them, and what each deployment took."""
    of = bars_data(experiment, summary)
    says = "; ".join(f"{row.name} took {seconds(row.wall.median)}" for row in of.rows if row.wall)
    return Chart("The sum against the longest", says, _race(of, width))


def _race(of: BarsData, width: float) -> dict[str, Any]:
    plot = _Plot(width)
    one_by_one = "all jobs, one by one"
    names = [*([one_by_one] if of.common else []), *(row.name for row in of.rows), *([_BELOW] if of.common else [])]
    highs = [ends[1] for row in of.rows if (ends := bounds(row.wall))] + [ends.longest for ends in of.ends]
    most = max(highs, default=1.0)
    cut = bool(of.common and of.common.sum > _CUT * most)
    most = most if cut else max([most, *(ends.sum for ends in of.ends)])
    room = most * (1.3 if width < WIDE / 2 else 1.12)
    x, y, labels = _bars(plot, names, room, pitch=24)
    sums, took, limits = [], [], []
    if of.common:
        sums.append({"name": one_by_one, "from": 0, "to": min(of.common.sum, most), "text": seconds(of.common.sum)})
        limits = [{"name": name, "at": of.common.longest} for name in names[1:]]
    for n, row in enumerate(of.rows):
        own = of.own[n] if of.own else None
        low, high = bounds(row.wall) or (0.0, 0.0)
        text, end = seconds(row.wall.median if row.wall else None), high
        if own:
            sums.append({"name": row.name, "from": 0, "to": own.sum, "text": ""})
            limits.append({"name": row.name, "at": own.longest})
            text, end = f"{text} of {seconds(own.sum)}", max(high, own.sum)
        value = row.wall.median if row.wall else 0.0
        took.append(
            {"name": row.name, "from": 0, "to": value, "low": low, "high": high, "end": end, "text": text}
            | {"look": look(row.deployment)}
        )
    layers = [labels]
    hollow = {"fill": LIGHT["faint"], "stroke": LIGHT["muted"], "strokeDash": [4, 3]}
    on_sums = plot.of(sums).encode(x=x, y=y)
    on_took = plot.of(took).encode(x=x, y=y)
    layers.append(on_sums.mark_bar(size=_BAR, **hollow).encode(x2="to:Q"))
    layers.append(on_sums.mark_text(align="left", dx=6).encode(x="to:Q", text="text:N"))
    if cut:
        gap = [{"name": one_by_one, "from": most / 2}]
        on_gap = plot.of(gap).encode(x=x, y=y)
        layers.append(on_gap.mark_text(text="//", fontSize=18, fontWeight=600, color=LIGHT["muted"]))
    layers.append(on_took.mark_bar(size=_BAR - (6 if of.own else 0)).encode(x2="to:Q", color=_coloured(plot.alt)))
    layers.append(on_took.mark_rule(color=LIGHT["ink"]).encode(x="low:Q", x2="high:Q"))
    layers.append(on_took.mark_tick(color=LIGHT["ink"], size=8).encode(x="low:Q"))
    layers.append(on_took.mark_tick(color=LIGHT["ink"], size=8).encode(x="high:Q"))
    layers.append(on_took.mark_text(align="left", dx=6).encode(x="end:Q", text="text:N"))
    on_limits = plot.of(limits).encode(x="at:Q", y=y)
    layers.append(on_limits.mark_tick(color=LIGHT["ink"], size=22, thickness=1.5))
    if of.common:
        last = [{"name": _BELOW, "at": of.common.longest, "text": f"longest job {seconds(of.common.longest)}"}]
        beyond = of.common.longest > room / 2
        label = plot.of(last).mark_text(
            align="right" if beyond else "left", dx=-5 if beyond else 5, dy=-4, fontWeight=600
        )
        layers.append(label.encode(x="at:Q", y=y, text="text:N"))
    return plot.spec(*layers)


def _coloured(alt: Any) -> Any:
    looks = list(_SHAPES)
    scale = alt.Scale(domain=looks, range=[LIGHT[name] for name in looks])
    return alt.Color("look:N", scale=scale, legend=None)


def split(_experiment: Experiment, summary: Summary, width: float = WIDE) -> Chart:
    """Per deployment two bars on one axis: a job's way to its end, and what it cost of the slots."""
    rows = [(row, row.split) for row in summary.rows if row.split]
    says = "; ".join(
        f"{row.name}: waits {seconds(of.submit + of.wait)}, runs {seconds(of.run)}, step {seconds(of.step)},"
        f" overhead {seconds(of.overhead)}"
        for row, of in rows
    )
    parts: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for row, of in rows:
        way = (("wait", of.submit + of.wait), ("run", of.run), ("step", of.step))
        cost = (("run", of.run), ("step", of.step), ("overhead", max(of.overhead or 0.0, 0.0)))
        for line, phases in (("way", way), *([("cost", cost)] if of.overhead is not None else [])):
            at = 0.0
            for phase, value in phases:
                part = {"name": row.name, "line": line, "phase": phase, "from": at, "to": at + value}
                parts.append(part | {"look": look(row.deployment)})
                at += value
            text = (
                seconds(of.run + of.step + of.overhead) if line == "cost" and of.overhead is not None else seconds(at)
            )
            ends.append({"name": row.name, "line": line, "from": at, "text": text})
    return Chart("A job's way, and what it costs", says, _phases([row.name for row, _ in rows], parts, ends, width))


def _phases(names: Sequence[str], parts: Sequence[Any], ends: Sequence[Any], width: float) -> Any:
    """Each phase has its shape: waiting is thin, running full, the step has a dark foot, overhead is hollow."""
    plot = _Plot(width)
    most = max((each["from"] for each in ends), default=1.0) or 1.0
    x, y, labels = _bars(plot, names, most * (1.25 if width < WIDE / 2 else 1.1), pitch=40)
    layers = [labels]
    for line, offset in (("way", -9), ("cost", 9)):

        def of(phase: str, line: str = line) -> Any:
            values = [each for each in parts if each["line"] == line and each["phase"] == phase]
            return plot.of([each for each in values if each["to"] > each["from"]]).encode(x=x, y=y, x2="to:Q")

        full = {"size": _BAR, "yOffset": offset}
        layers.append(of("wait").mark_bar(size=4, yOffset=offset, color=LIGHT["wait"]))
        layers.append(of("run").mark_bar(**full).encode(color=_coloured(plot.alt)))
        layers.append(of("step").mark_bar(**full).encode(color=_coloured(plot.alt)))
        layers.append(of("step").mark_bar(size=5, yOffset=offset + 4.5, color=LIGHT["ink"]))
        hollow = {"fill": LIGHT["paper"], "stroke": LIGHT["muted"], "size": _BAR - 1, "yOffset": offset}
        layers.append(of("overhead").mark_bar(**hollow))
        on_ends = plot.of([each for each in ends if each["line"] == line]).encode(x=x, y=y)
        layers.append(on_ends.mark_text(align="left", dx=6, dy=offset).encode(text="text:N"))
    return plot.spec(*layers)


# -- curves

Spans = Callable[[Measurement], Sequence[float]]
KINDS: Mapping[str, tuple[str, Spans]] = {
    "latency": ("From the submission to a job's end", latencies_of),
    "run": ("From a job's claim to its end", lambda measurement: measurement.spans.ran),
}


def drawn(summary: Summary) -> list[Row]:
    """The deployments whose curves are drawn: all, or the fastest of each pool and the baseline."""
    rows = [row for row in summary.rows if row.latency]
    if len(rows) <= MOST_CURVES:
        return rows
    fastest: dict[tuple[Pool, bool], Row] = {}
    for row in sorted(rows, key=lambda row: row.wall.median if row.wall else 0.0, reverse=True):
        fastest[row.deployment.pool, row.deployment.serial] = row
    return [row for row in rows if row in fastest.values()]


def _told_apart(plot: _Plot, looks: Mapping[str, str]) -> dict[str, Any]:
    """Lines by name: colour by look, dashes by their order within it; both in the legend."""
    alt, names = plot.alt, list(looks)
    seen: Counter[str] = Counter()
    dashes = []
    for each in looks.values():
        dashes.append(list(_DASHES[seen[each] % len(_DASHES)]))
        seen[each] += 1
    columns = max(1, int(HALF // (60 + 7 * max(map(len, names)))))
    legend = alt.Legend(columns=columns, symbolType="stroke", symbolSize=500, symbolStrokeWidth=2)
    colours = alt.Scale(domain=names, range=[LIGHT[each] for each in looks.values()])
    return {
        "color": alt.Color("name:N", scale=colours, legend=legend, sort=names),
        "strokeDash": alt.StrokeDash("name:N", scale=alt.Scale(domain=names, range=dashes), legend=legend, sort=names),
    }


def _marked(look: str) -> dict[str, str]:
    """Of a point: not in the legend, which has lines."""
    return {"colour": LIGHT[look], "mark": _SHAPES[look]}


def _marks(plot: _Plot, on: Any) -> Any:
    alt = plot.alt
    return on.mark_point(filled=True, size=55, opacity=1).encode(
        color=alt.Color("colour:N", scale=None), shape=alt.Shape("mark:N", scale=None)
    )


def distribution(experiment: Experiment, summary: Summary, kind: str) -> Chart | None:
    """The share of jobs that took no longer than so many seconds."""
    title, of = KINDS[kind]
    values = {
        row.name: sorted(span for measurement in experiment.of(row.name) for span in of(measurement))
        for row in drawn(summary)
    }
    rows = [row for row in drawn(summary) if values[row.name]]
    if not rows:
        return None
    tails = ((row, row.latency if kind == "latency" else row.run) for row in rows)
    says = "; ".join(f"{row.name}: half within {seconds(t.p50)}, 95 % within {seconds(t.p95)}" for row, t in tails if t)
    ends = [end for row in rows for end in (values[row.name][0], values[row.name][-1])]
    positive, high = min((end for end in ends if end > 0), default=1.0), max(ends) or 1.0
    log = high > _SPREAD * positive
    low = max(positive, high / 1e4) if log else 0.98 * min(ends) if min(ends) > high / 2 else 0.0
    plot = _Plot(HALF)
    alt = plot.alt
    x = alt.X(
        "seconds:Q",
        axis=alt.Axis(
            title=None, labelExpr=_SECONDS, grid=False, **({"values": _decades(low, high)} if log else {"tickCount": 5})
        ),
    ).scale(type="log" if log else "linear", domain=[low, high], nice=False, clamp=True)
    y = alt.Y("share:Q", axis=alt.Axis(title=None, format="~%", tickCount=5)).scale(domain=[0, 1])
    points = [
        {"name": row.name, "seconds": at, "share": share} for row in rows for at, share in _steps(values[row.name])
    ]
    marks = [
        {"seconds": percentile(values[row.name], share), "share": share, **_marked(look(row.deployment))}
        for row in rows
        for share in (0.5, 0.95)
    ]
    line = plot.of(points).mark_line(interpolate="step-after", strokeWidth=2)
    looks = {row.name: look(row.deployment) for row in rows}
    layers = line.encode(x=x, y=y, **_told_apart(plot, looks)), _marks(plot, plot.of(marks).encode(x=x, y=y))
    return Chart(title, says, plot.spec(*layers, height=226))


def _decades(low: float, high: float) -> list[float]:
    """Round values between two ends, for a logarithmic axis: by 1, 2 and 5, or by tens where those are many."""
    factors = (1, 2, 5) if high < 1000 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [value for power in powers for factor in factors if low <= (value := factor * 10.0**power) <= high]


def _steps(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """A step up at each value; of many values, at some."""
    count = len(ordered)
    places = range(1, count + 1) if count <= _POINTS else [round(n * count / _POINTS) for n in range(1, _POINTS + 1)]
    return [(ordered[0], 0.0), *((ordered[place - 1], place / count) for place in places)]


_Ends = Callable[[Row], tuple[float, float, float] | None]
_Words = Callable[[float], str]


def _memory(row: Row) -> tuple[float, float, float] | None:
    return (row.memory.peak, row.memory.peak, row.memory.peak) if row.memory else None


def _rate(row: Row) -> tuple[float, float, float] | None:
    rate, ends = row.jobs_per_second, bounds(row.jobs_per_second)
    return (rate.median, *ends) if rate and ends else None


# By kind: title, figure of a row with its ends, the figure in words.
CONCURRENCY_KINDS: Mapping[str, tuple[str, _Ends, _Words]] = {
    "throughput": ("Jobs per second against concurrency", _rate, significant),
    "memory": ("Memory at the peak against concurrency", _memory, size),
}


def against_concurrency(summary: Summary, kind: str) -> Chart | None:
    """A line per pool and setup; None if none was measured at several concurrencies."""
    title, of, words = CONCURRENCY_KINDS[kind]
    found: dict[tuple[Pool, Setup], list[dict[str, Any]]] = {}
    for row in summary.rows:
        each, value = row.deployment, of(row)
        if value and each.concurrency and not each.serial:
            point = {**dict(zip(("value", "low", "high"), value, strict=True)), **_marked(each.pool.value)}
            name = f"{each.pool}{each.setup}"
            found.setdefault((each.pool, each.setup), []).append({"name": name, "slots": each.concurrency, **point})
    for points in found.values():
        points.sort(key=lambda point: point["slots"])
    if not any(len({point["slots"] for point in points}) > 1 for points in found.values()):
        return None
    says = "; ".join(
        f"{points[0]['name']}: " + ", ".join(f"{words(each['value'])} with {each['slots']}" for each in points)
        for points in found.values()
    )
    looks = {f"{pool}{setup}": pool.value for pool, setup in found}
    return Chart(title, says, _lines(looks, [point for points in found.values() for point in points], kind))


def _lines(looks: Mapping[str, str], points: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    plot = _Plot(HALF)
    alt = plot.alt
    slots = sorted({point["slots"] for point in points})
    high = max(point["high"] for point in points) or 1.0
    x = alt.X("slots:Q", axis=alt.Axis(title=None, values=slots, format=",d", grid=False, labelOverlap=True)).scale(
        type="log" if slots[-1] > 8 * slots[0] else "linear", domain=[slots[0], slots[-1]], nice=False, padding=12
    )
    axis: dict[str, Any] = {"title": None, "tickCount": 5, "format": ",~r"}
    if kind == "memory":  # round as bytes are, by powers of two
        step = 2.0 ** (int(high / 5).bit_length())
        axis = {"title": None, "values": [n * step for n in range(int(high / step) + 1)]}
        axis["labelExpr"] = "datum.value ? format(datum.value / 1048576, ',~r') + ' MiB' : '0'"
    y = alt.Y("value:Q", axis=alt.Axis(**axis)).scale(domain=[0, 1.05 * high], nice=False)
    base = plot.of(points).encode(x=x, y=y)
    spread = base.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q", color=alt.Color("colour:N", scale=None))
    line = base.mark_line(strokeWidth=2).encode(**_told_apart(plot, looks))
    return plot.spec(spread, line, _marks(plot, base), height=226)
