"""Parts of a report as pictures: SVG, and PNG where resvg is installed (``requirements/local.txt``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from poolbench.experiment import Experiment
from poolbench.report import bars, curves, race, still, tabular
from poolbench.report.drawing import Drawing
from poolbench.statistics import Summary, summarise

Part = Callable[[Experiment, Summary], Drawing | None]
_WIDE = 1000.0  # pixels

PARTS: Mapping[str, Part] = {
    "timeline": lambda experiment, _: still.timeline(experiment, _WIDE),
    "table": tabular.table,
    "bars": lambda experiment, summary: race.drawn(race.race(experiment, summary), _WIDE),
    "split": lambda _, summary: bars.split(summary, _WIDE),
    "latency": lambda experiment, summary: curves.distribution(experiment, summary, "latency"),
    "run": lambda experiment, summary: curves.distribution(experiment, summary, "run"),
    "throughput": lambda _, summary: curves.against_slots(summary, "throughput"),
    "memory": lambda _, summary: curves.against_slots(summary, "memory"),
}
_FAMILIES = (
    "DejaVu Sans", "Liberation Sans", "Noto Sans", "Arial", "Helvetica", "Roboto", "Ubuntu", "Cantarell", "FreeSans",
    "Open Sans", "DejaVu Serif", "Liberation Serif", "Times New Roman",
)  # fmt: skip
_PROBE = (
    "<svg xmlns='http://www.w3.org/2000/svg' width='20' height='20'>"
    "<text y='15' font-family='sans-serif'>{}</text></svg>"
)


class PictureError(Exception):
    """What was expected, and what there is."""


def svg(experiment: Experiment, part: str) -> str:
    """
    Raises:
        PictureError: the experiment has nothing to show in this part.
    """
    drawing = PARTS[part](experiment, summarise(experiment))
    if drawing is None:
        missing = {"timeline": "no turn's jobs were kept", "latency": "no turn counts", "run": "no turn counts"}
        why = missing.get(part, "no pool was measured with several numbers of slots")
        raise PictureError(f"expected something to draw for {part}, got none: {why}")
    return drawing.svg(alone=True)


def png(experiment: Experiment, part: str) -> bytes:
    """Twice as many pixels as the drawing has, for screens and paper.

    Raises:
        PictureError: nothing to draw, resvg is not installed, or there is no font to write with.
    """
    try:
        from resvg_py import svg_to_bytes  # noqa: PLC0415 - not in the image, and only PNG needs it
    except ImportError as error:
        raise PictureError(
            "expected resvg-py, which draws PNG, got none: install requirements/local.txt, or write SVG"
        ) from error
    picture = svg(experiment, part)
    return bytes(svg_to_bytes(svg_string=picture, zoom=2, sans_serif_family=_family()))


@cache
def _family() -> str:
    """A family that writes: resvg leaves text out if it finds none of those that it is asked for."""
    from resvg_py import svg_to_bytes  # noqa: PLC0415 - as above

    empty = svg_to_bytes(svg_string=_PROBE.format(""))
    for family in _FAMILIES:
        if svg_to_bytes(svg_string=_PROBE.format("Ax"), sans_serif_family=family) != empty:
            return family
    raise PictureError(f"expected a font such as {_FAMILIES[0]}, found none: install one, or write SVG")
