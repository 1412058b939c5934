"""Figures as people read them, short enough for a cell, and the same wherever an experiment is put into words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from poolbench.statistics import Comparison, Estimate

NONE = "–"
_UNIT = re.compile(r"(?<=\d) (?=(?:s|ms|µs|%|×|B|[KMGT]iB)(?!\w))")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def significant(value: float, digits: int = 3) -> str:
    """So many digits that mean something, and no exponent: 0.0120, 1.20, 12.0, 123, 1,234."""
    if not value:
        return "0"
    text = f"{value:#.{digits}g}"
    return f"{value:,.0f}" if "e" in text or text.endswith(".") else text


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if abs(value) >= 0.9995 or not value:
        return f"{significant(value)} s"
    if abs(value) >= 0.0009995:
        return f"{significant(value * 1e3)} ms"
    return f"{significant(value * 1e6, 2)} µs"


def size(value: float | None) -> str:
    """Bytes, in the unit that leaves less than 1024 of it."""
    if value is None:
        return NONE
    power = 0
    while abs(value) >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{significant(value)} {_UNITS[power]}"


def times(value: float) -> str:
    return f"{factor(value)} ×"


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


def factor(value: float) -> str:
    """A ratio: ``6.7``, ``1.83``, ``0.98``, ``0.015``"""
    return f"{value:.2f}" if 0.095 <= value < 1.995 else significant(value, 2)


def between(found: Estimate | None) -> str:
    """The ends of a ratio: ``0.98–1.03``; of too few rounds what was seen."""
    if found is None:
        return "nothing to compare"
    return "–".join(factor(end) for end in found.ends[: min(found.n, 2)])


def against(found: Comparison) -> str:
    """``6.7 × (6.3–6.9), faster``"""
    if found.ratio is None:
        return "not comparable"
    seen = f" ({between(found.ratio)})" if found.ratio.n > 1 else ""
    return f"{times(found.ratio.median)}{seen}, {found.verdict}"


def by_ratio(found: Comparison) -> float:
    return found.ratio.median if found.ratio else 0.0


def bars(rows: Sequence[tuple[str, float]], width: int) -> list[str]:
    """Seconds by name as bars of text, none wider than so many columns."""
    if not rows:
        return []
    label, most = min(max(len(name) for name, _ in rows), width // 2), max(value for _, value in rows) or 1.0
    room = max(width - label - 12, 4)
    return [
        f"{name[:label]:{label}}  {'█' * max(round(value / most * room), 1)} {seconds(value)}" for name, value in rows
    ]
