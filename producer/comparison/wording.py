"""Figures as people read them, the same wherever an experiment is put into words."""

from __future__ import annotations

from producer.comparison.figures import Row
from producer.comparison.intervals import Estimate

_MIB = 2**20


def memory(size: float) -> str:
    """Bytes."""
    return f"{size / _MIB:,.0f} MiB" if abs(size) >= 10 * _MIB else f"{size / _MIB:.2g} MiB"


def seconds(span: float) -> str:
    if abs(span) >= 100:
        return f"{span:,.0f} s"
    return f"{span:.3g} s" if abs(span) >= 0.1 else f"{span * 1000:.3g} ms"


def per_second(rate: float) -> str:
    return f"{_short(rate)} jobs/s"


def ratio(found: Estimate | None) -> str:
    """``0.85 (0.81 to 0.88)``"""
    if found is None:
        return "nothing to compare"
    if found.interval is None:
        return f"{_short(found.median)} (too few rounds: {found.n})"
    low, high = found.interval
    return f"{_short(found.median)} ({_short(low)} to {_short(high)})"


def faster(part: float, other: str) -> str:
    """``up to 12% faster than threads:8``; large shares as a factor."""
    return f"up to {part:.0%} faster than {other}" if part < 1 else f"up to {_short(1 + part)} times as fast as {other}"


def rate_of(row: Row) -> str:
    """``threads:8 139 jobs/s (131 to 144)``"""
    found = row.jobs_per_second
    if found is None:
        return f"{row.name} (no turn counts)"
    between = f" ({_short(found.interval[0])} to {_short(found.interval[1])})" if found.interval else ""
    return f"{row.name} {per_second(found.median)}{between}"


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
