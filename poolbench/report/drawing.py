"""Drawings as values: marks with attributes, in pixels, and the template that writes them as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from poolbench.figures import tied
from poolbench.report.palette import DASHES, DRAWING, resolved

_MARK = 4.0  # half the width of a mark
_LETTER = 7.0  # pixels, about
_MOST_LETTERS = 48  # of a label: a contestant's name with all of its options


@cache
def templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters["tied"] = tied
    return found


@dataclass(frozen=True, slots=True)
class Mark:
    tag: str
    attributes: Mapping[str, str | float]
    text: str | None = None


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

    def path(self, d: str, look: str, dash: str = "") -> None:
        more = {"stroke-dasharray": dash} if dash else {}
        self.marks.append(Mark("path", {"d": d, "class": look} | more))

    def text(self, x: float, y: float, text: str, look: str = "") -> None:
        self.marks.append(Mark("text", {"x": _r(x), "y": _r(y)} | ({"class": look} if look else {}), text))

    def mark(self, x: float, y: float, look: str) -> None:
        """The pool's own: a square, a disc, a triangle; a diamond for the yardstick."""
        m = _MARK
        corners = {
            "prefork": f"M{_r(x - m)} {_r(y - m)}h{2 * m}v{2 * m}h{-2 * m}z",
            "threads": f"M{_r(x - m)} {_r(y)}a{m} {m} 0 1 0 {2 * m} 0a{m} {m} 0 1 0 {-2 * m} 0z",
            "gevent": f"M{_r(x)} {_r(y - m - 1)}l{m + 1} {2 * m}h{-2 * (m + 1)}z",
            "serial": f"M{_r(x)} {_r(y - m - 1)}l{m + 1} {m + 1}l{-m - 1} {m + 1}l{-m - 1} {-m - 1}z",
        }
        self.path(corners[look], look)

    def hatch(self, x: float, y: float, width: float, height: float, look: str) -> None:
        """Diagonal lines inside of a box."""
        parts = []
        at = x - height
        while at < x + width:
            left, right = max(at, x), min(at + height, x + width)
            if right > left:
                parts.append(f"M{_r(left)} {_r(y + height - (left - at))}L{_r(right)} {_r(y + height - (right - at))}")
            at += 5
        self.path("".join(parts), look)

    def svg(self, *, alone: bool) -> Markup:
        """As an element of a page; alone: as a document with its own style and paper."""
        style = Markup(resolved(DRAWING)) if alone else None  # noqa: S704 - ours
        return Markup(templates().get_template("drawing.svg.j2").render(drawing=self, style=style))  # noqa: S704, RUF100


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        share = (value - low) / (high - low) if high > low else 0.0
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)

    def ticks(self, most: int, *, binary: bool = False) -> Sequence[float]:
        """
        Args:
            binary: round as bytes are, by powers of two.
        """
        if self.log:
            return list(_decades(self.low, self.high, most))
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        least = span / max(most, 1)
        step = _power_of_two(least) if binary else next(step for step in _steps(least) if span / step <= max(most, 1))
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _steps(least: float) -> Iterator[float]:
    power = 10.0 ** math.floor(math.log10(least))
    yield from (power * factor for factor in (1, 2, 5, 10, 20))


def _power_of_two(least: float) -> float:
    return 2.0 ** math.ceil(math.log2(least))


def _decades(low: float, high: float, most: int) -> Iterator[float]:
    factors = (1, 2, 5) if math.log10(high / low) * 3 <= most else (1,)
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (value for f in factors if low * 0.999 <= (value := f * 10.0**power) <= high * 1.001)


def dash(number: int) -> str:
    return DASHES[number % len(DASHES)]


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
