"""Figures in words, short enough for a cell."""

from __future__ import annotations

import re

from producer.comparison.intervals import Estimate

NONE = "–"
_UNIT = re.compile(r"(?<=\d) (?=(?:s|ms|µs|%|×|B|[KMGT]iB)(?!\w))")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def significant(value: float, digits: int = 3) -> str:
    """So many digits that mean something, and no exponent: 0.0120, 1.20, 12.0, 123, 1,234."""
    if not value:
        return "0"
    text = f"{value:#.{digits}g}"
    return f"{value:,.0f}" if "e" in text or text.endswith(".") else text


def tick(value: float) -> str:
    """A round number without zeros that say nothing."""
    return f"{value:,.10g}"


def tick_seconds(value: float) -> str:
    if abs(value) >= 1 or not value:
        return f"{tick(round(value, 6))} s"
    return f"{tick(round(value * 1e3, 6))} ms" if abs(value) >= 0.001 else f"{tick(round(value * 1e6, 3))} µs"


def tick_size(value: float) -> str:
    power = 0
    while abs(value) >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{tick(round(value, 1))} {_UNITS[power]}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if abs(value) >= 0.9995 or not value:
        return f"{significant(value)} s"
    if abs(value) >= 0.0009995:
        return f"{significant(value * 1e3)} ms"
    return f"{significant(value * 1e6, 2)} µs"


def size(value: float | None) -> str:
    if value is None:
        return NONE
    power = 0
    while abs(value) >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{significant(value)} {_UNITS[power]}"


def percent(share: float) -> str:
    return f"{significant(100 * share)} %"


def times(value: float) -> str:
    return f"{significant(value)} ×"


def number(value: float) -> str:
    return significant(value)


def middle(found: Estimate | None) -> float | None:
    return found.median if found else None


def bounds(found: Estimate | None) -> tuple[float, float] | None:
    """The interval of the median; without one the range."""
    return (found.interval or (found.low, found.high)) if found else None


def tied(text: str) -> str:
    """Without a line's end between a figure and its unit."""
    return _UNIT.sub("\u00a0", text)


def counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
