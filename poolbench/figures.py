"""Figures as people read them, short enough for a cell, and the same wherever an experiment is put into words."""

from __future__ import annotations

import re

from poolbench.statistics import Estimate, Row

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
    scaled, unit = _scaled(value)
    return f"{tick(round(scaled, 1))} {unit}"


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
    scaled, unit = _scaled(value)
    return f"{significant(scaled)} {unit}"


def _scaled(value: float) -> tuple[float, str]:
    """Bytes, in the unit that leaves less than 1024 of it."""
    power = 0
    while abs(value) >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return value, _UNITS[power]


def percent(share: float) -> str:
    return f"{significant(100 * share)} %"


def times(value: float) -> str:
    return f"{significant(value)} ×"


def tied(text: str) -> str:
    """Without a line's end between a figure and its unit."""
    return _UNIT.sub("\u00a0", text)


def printable(text: str) -> str:
    """Text that others wrote, e.g. a server's reason: nothing in it may steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def counted(count: int, one: str) -> str:
    plural = one + ("es" if one.endswith("s") else "s")
    return f"{count:,} {one if count == 1 else plural}"


# -- in sentences


def ratio(found: Estimate | None) -> str:
    """``0.850 (0.810 to 0.880)``"""
    if found is None:
        return "nothing to compare"
    if found.interval is None:
        return f"{significant(found.median)} (too few rounds: {found.n})"
    return f"{significant(found.median)} ({_between(found.interval)})"


def faster(part: float, other: str) -> str:
    """``up to 12% faster than threads:8``; large shares as a factor."""
    return (
        f"up to {part:.0%} faster than {other}"
        if part < 1
        else f"up to {significant(1 + part)} times as fast as {other}"
    )


def rate_of(row: Row) -> str:
    """``threads:8 139 jobs/s (131 to 144)``"""
    found = row.jobs_per_second
    if found is None:
        return f"{row.name} (no turn counts)"
    between = f" ({_between(found.interval)})" if found.interval else ""
    return f"{row.name} {significant(found.median)} jobs/s{between}"


def _between(interval: tuple[float, float]) -> str:
    return f"{significant(interval[0])} to {significant(interval[1])}"
