"""Figures as people read them, short enough for a cell, and the same wherever an experiment is put into words."""

from __future__ import annotations

import re

from poolbench.statistics import DeploymentRow, Estimate

NONE = "–"
_UNIT = re.compile(r"(?<=\d) (?=(?:s|ms|µs|%|×|B|[KMGT]iB)(?!\w))")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def significant(value: float, digits: int = 3) -> str:
    """So many digits that mean something, and no exponent: 0.0120, 1.20, 12.0, 123, 1,234."""
    if not value:
        return "0"
    text = f"{value:#.{digits}g}"
    return f"{value:,.0f}" if "e" in text or text.endswith(".") else text


def tick_seconds(value: float) -> str:
    """A round number without zeros that say nothing."""
    scale, unit = (1, "s") if abs(value) >= 1 or not value else (1e3, "ms") if abs(value) >= 0.001 else (1e6, "µs")
    return f"{round(value * scale, 6):,.10g} {unit}"


def tick_size(value: float) -> str:
    scaled, unit = _scaled(value)
    return f"{round(scaled, 1):,.10g} {unit}"


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


def counted(count: int, one: str) -> str:
    plural = one + ("es" if one.endswith("s") else "s")
    return f"{count:,} {one if count == 1 else plural}"


def tied(text: str) -> str:
    """Without a line's end between a figure and its unit."""
    return _UNIT.sub("\u00a0", text)


def printable(text: str) -> str:
    """Text that others wrote, e.g. a server's reason: nothing in it may steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


# -- in sentences


def ratio(found: Estimate | None) -> str:
    """``0.850 (0.810 to 0.880)``"""
    if found is None:
        return "nothing to compare"
    return significant(found.median) + (_between(found) or f" (too few rounds: {found.n})")


def faster(part: float, other: str) -> str:
    """``up to 12% faster than threads:8``; large shares as a factor."""
    if part < 1:
        return f"up to {part:.0%} faster than {other}"
    return f"up to {significant(1 + part)} times as fast as {other}"


def rate_of(row: DeploymentRow) -> str:
    """``threads:8 139 jobs/s (131 to 144)``"""
    found = row.jobs_per_second
    return (
        f"{row.name} {significant(found.median)} jobs/s{_between(found)}" if found else f"{row.name} (no turn counts)"
    )


def _between(found: Estimate) -> str:
    """Nothing if there are too few rounds."""
    return f" ({significant(found.interval[0])} to {significant(found.interval[1])})" if found.interval else ""
