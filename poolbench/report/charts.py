"""Charts by Altair: the bars, and what a higher concurrency brings.

A chart becomes SVG by vl-convert, without a script. Colours are those of the palette; in a page they follow its scheme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from poolbench.figures import seconds, significant
from poolbench.report.palette import FONT, LIGHT
from poolbench.runfiles import ReportError
from poolbench.statistics import Summary

WIDE, NARROW = 1000.0, 346.0  # pixels of a chart of bars, on a desk and on a phone
HALF = 460.0  # of a chart of curves
MISSING = "install requirements/local.txt, or poolbench[report]"
_BAR = 14  # pixels
_BELOW = "\u00a0"  # a row below the others, for words
_ALL = "all jobs, one by one"
_CUT = 4  # the sum is cut if it is longer than so many times the longest that matters
_DASHES = [[1, 0], [7, 3], [2, 3], [9, 3, 2, 3], [1, 2], [12, 4]]  # of the lines of a chart, in their order
_SECONDS = (
    "datum.value >= 1 || datum.value == 0 ? format(datum.value, ',~r') + ' s' :"
    " datum.value >= 0.001 ? format(datum.value * 1e3, '~r') + ' ms' : format(datum.value * 1e6, '~r') + ' µs'"
)

Data = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture, how to read it, and the same in words."""

    title: str
    reading: str
    says: str
    spec: dict[str, Any]  # Vega-Lite

    def svg(self, *, alone: bool = True) -> str:
        """A document with paper of its own, or an element of a page that has the palette as variables."""
        version = _library("altair").SCHEMA_VERSION.lstrip("v").rpartition(".")[0]
        text: str = _library("vl_convert").vegalite_to_svg(self.spec, vl_version=version)
        title, says = escape(self.title), escape(self.says)
        text = text.replace("<svg ", f'<svg role="img" aria-label="{title}. {says}" ', 1)
        if alone:
            paper = f'<rect width="100%" height="100%" fill="{LIGHT["paper"]}"/>'
            return text.replace(">", f"><title>{title}</title><desc>{says}</desc>{paper}", 1)
        for colour, hexadecimal in LIGHT.items():
            text = text.replace(f'"{hexadecimal}"', f'"var(--{colour})"')
        return text


def drawable() -> bool:
    """Whether charts can be drawn here; the image has no Altair."""
    return bool(find_spec("altair") and find_spec("vl_convert"))


def png(svg: str) -> bytes:
    """Any drawing, with twice as many pixels as it has."""
    return bytes(_library("vl_convert").svg_to_png(svg, scale=2))


def _library(name: str) -> Any:
    try:
        return import_module(name)  # large: only where something is drawn
    except ImportError as error:
        raise ReportError(f"expected {name}, got none: {MISSING}") from error


def _on(data: Data) -> Any:
    alt = _library("altair")
    return alt.Chart(alt.InlineData(values=list(data)))


def _as_it_is(field: str) -> Any:
    """A channel whose values are colours."""
    return {"field": field, "scale": None, "type": "nominal"}


_MUTED, _INK = LIGHT["muted"], LIGHT["ink"]
_CONFIG = {
    "font": FONT,
    "background": "transparent",
    "aria": False,
    "view": {"stroke": None},
    "axis": {"labelColor": _MUTED, "domainColor": _MUTED, "tickColor": _MUTED, "gridColor": LIGHT["rule"]}
    | {"labelFontSize": 12, "labelLimit": 0},
    "legend": {"labelColor": _INK, "labelFontSize": 12, "labelLimit": 0, "orient": "bottom", "title": None},
    "text": {"color": _INK, "fontSize": 12},
}


def _spec(*layers: Any, width: float, height: Any) -> dict[str, Any]:
    alt = _library("altair")
    size = {"width": width, "height": height, "autosize": alt.AutoSizeParams(type="fit-x", contains="padding")}
    return {**alt.layer(*layers).properties(**size).to_dict(validate=False), "config": _CONFIG}


# -- bars


def _axes(names: Sequence[str], most: float, width: float, pitch: int) -> dict[str, Any]:
    """Of horizontal bars in seconds, named on their left, or above them where room is scarce."""
    alt, narrow = _library("altair"), width < WIDE
    place = {"labelAlign": "left", "labelOffset": -(pitch / 2 + 5), "labelFontWeight": 600} if narrow else {}
    axis = alt.Axis(title=None, ticks=False, domain=False, labelColor=_INK, labelPadding=0 if narrow else 8, **place)
    y = alt.Y("name:N", sort=list(names), axis=axis, scale=alt.Scale(paddingInner=0.1, paddingOuter=0.1))
    ticks = alt.Axis(title=None, labelExpr=_SECONDS, tickCount=4 if narrow else 8)
    return {"x": alt.X("from:Q", axis=ticks).scale(domain=[0, most], nice=False), "y": y}


def bars(summary: Summary, width: float = WIDE) -> Chart:
    """What each deployment took, between the longest of the jobs and their sum."""
    ends, names, pitch = summary.ends, [row.name for row in summary.whole], 24 if width == WIDE else 44
    took: list[dict[str, Any]] = [
        {"name": row.name, "from": 0, "to": wall.median, "low": wall.ends[0], "high": wall.ends[1]}
        | {"text": seconds(wall.median), "fill": LIGHT[row.deployment.look], "stroke": LIGHT[row.deployment.look]}
        for row in summary.whole
        if (wall := row.wall)
    ]
    says = "; ".join(f"{bar['name']} took {bar['text']}" for bar in took)
    most = max([ends.longest if ends else 0.0, *(bar["high"] for bar in took)]) or 1.0
    reading = "Whiskers: the interval of the median." if any(row.measurements > 1 for row in summary.whole) else ""
    if ends:
        cut = ends.sum > _CUT * most
        to, text = (most, f"{seconds(ends.sum)}, cut off") if cut else (ends.sum, seconds(ends.sum))
        took.insert(0, {"name": _ALL, "from": 0, "to": to, "low": to, "high": to, "text": text}
                    | {"fill": LIGHT["faint"], "stroke": _MUTED})  # fmt: skip
        reading += " Outlined: all jobs one by one; upright: the longest of them."
    reading += "".join(
        f" {row.name} ran {row.jobs:,} of the jobs and is not drawn." for row in summary.rows if row.partial
    )
    room = max([most, *(bar["to"] for bar in took)]) * (1.3 if width < WIDE else 1.12)
    axes = _axes([_ALL, *names, _BELOW] if ends else names, room, width, pitch)
    on = _on(took).encode(**axes)
    layers = [
        on.mark_bar(size=_BAR).encode(x2="to:Q", fill=_as_it_is("fill"), stroke=_as_it_is("stroke")),
        on.mark_rule(color=_INK).encode(x="low:Q", x2="high:Q"),
        on.mark_text(align="left", dx=6).encode(x="high:Q", text="text:N"),
    ]
    if ends:
        side = {"align": "right", "dx": -5} if ends.longest > room / 2 else {"align": "left", "dx": 5}
        upright = _on([{"name": name, "at": ends.longest} for name in (*names, _BELOW)])
        below = _on([{"name": _BELOW, "at": ends.longest, "text": f"longest job {seconds(ends.longest)}"}])
        layers += [
            upright.mark_tick(size=22, thickness=1.5, color=_INK).encode(x="at:Q", y=axes["y"]),
            below.mark_text(dy=-4, fontWeight=600, **side).encode(x="at:Q", y=axes["y"], text="text:N"),
        ]
    spec = _spec(*layers, width=width, height=_library("altair").Step(pitch))
    return Chart("How long all jobs took", reading, says, spec)


# -- a curve per pool


def throughput(summary: Summary) -> Chart | None:
    """A line per pool and setup; None if none was measured at several concurrencies."""
    points: list[dict[str, Any]] = [
        {"name": each.kind, "concurrency": each.concurrency, "colour": LIGHT[each.look]}
        | {"value": rate.median, "low": rate.ends[0], "high": rate.ends[1]}
        for row in sorted(summary.rivals, key=lambda row: row.deployment.concurrency or 0)
        if (each := row.deployment).concurrency and (rate := row.jobs_per_second)
    ]
    colours = {point["name"]: point["colour"] for point in points}
    if len(colours) == len(points):
        return None
    says = "; ".join(
        f"{name}: "
        + ", ".join(f"{significant(of['value'])} with {of['concurrency']}" for of in points if of["name"] == name)
        for name in colours
    )
    steps, high = sorted({point["concurrency"] for point in points}), max(point["high"] for point in points) or 1.0
    alt, names = _library("altair"), list(colours)
    x = alt.X("concurrency:Q", axis=alt.Axis(title=None, values=steps, format=",d", grid=False, labelOverlap=True))
    on = _on(points).encode(
        x=x.scale(type="log" if steps[-1] > 8 * steps[0] else "linear", domain=[steps[0], steps[-1]], padding=12),
        y=alt.Y("value:Q", axis=alt.Axis(title=None, tickCount=5, format=",~r")).scale(
            domain=[0, 1.05 * high], nice=False
        ),
    )
    columns = max(1, int(HALF // (60 + 7 * max(map(len, names)))))
    legend = alt.Legend(columns=columns, symbolType="stroke", symbolSize=500, symbolStrokeWidth=2)
    paints = alt.Scale(domain=names, range=list(colours.values()))
    dashes = alt.Scale(domain=names, range=_DASHES[: len(names)])
    line = on.mark_line(strokeWidth=2).encode(
        color=alt.Color("name:N", scale=paints, legend=legend, sort=names),
        strokeDash=alt.StrokeDash("name:N", scale=dashes, legend=legend, sort=names),
    )
    spread = on.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q", color=_as_it_is("colour"))
    marks = on.mark_point(filled=True, size=55, opacity=1).encode(color=_as_it_is("colour"))
    how = "Where a line turns flat is its saturation point: a higher concurrency brings nothing more."
    spec = _spec(spread, line, marks, width=HALF, height=226)
    return Chart("Jobs per second against concurrency", how, says, spec)
