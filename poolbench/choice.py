"""Which deployment to take, from a summary alone: the saturation point of each curve, then these.

A *curve* has the deployments of one pool that are set up alike, by their concurrency: options are never mixed in one.
Which of some is the fastest follows from their ratios, pair by pair (``statistics.Comparison``), never from figures of
each alone: so the answer and the ratio beside it say the same. Two are *tied* if the ratio's verdict is "equally fast".

The *saturation point* of a curve is the lowest concurrency that is tied with the curve's fastest. Among those points
that are tied with the fastest, the one to take has less memory at its peak, then a shorter p99 of latency, then a lower
concurrency, then fewer options: in that order, and a criterion decides only where it differs by more than ``ALIKE``.
An answer is given only if it is certain that nothing measured is faster than it by more than ``REGRET``. Of fewer than
three rounds hardly anything is certain: if the answer is certainly faster than something, what was seen beside the
others is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poolbench.experiment import PoolKind
from poolbench.statistics import LEAST, DeploymentRow, Summary, Verdict

REGRET = 0.20  # share of jobs per second
ALIKE = 0.05  # share of memory, or of a p99


@dataclass(frozen=True, slots=True)
class Curve:
    """Deployments of one pool and one setup by their concurrency."""

    rows: tuple[DeploymentRow, ...]
    best: DeploymentRow
    saturation: DeploymentRow

    @property
    def name(self) -> str:
        return self.best.deployment.kind

    @property
    def reached(self) -> bool:
        """Whether a concurrency above the saturation point was measured."""
        return self.saturation is not self.rows[-1]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take, and what it was chosen from."""

    pick: DeploymentRow
    curves: tuple[Curve, ...]
    tied: tuple[DeploymentRow, ...]  # saturation points that are tied with the fastest, itself included
    criterion: str | None  # what decided among them; None: nothing had to, or nothing does
    regret: float  # share by which something measured may be faster than the pick; infinite: not known
    rival: DeploymentRow | None  # ... and what that is
    others: tuple[DeploymentRow, ...]  # the other saturation points; of one curve alone, its other deployments

    @property
    def certain(self) -> bool:
        return self.regret <= REGRET

    @property
    def curve(self) -> Curve:
        """The pick's."""
        return next(curve for curve in self.curves if self.pick in curve.rows)


def comparable(summary: Summary) -> list[DeploymentRow]:
    """Deployments with enough measurements; if hardly any has, all of which something is known."""
    enough = [row for row in summary.rivals if row.measurements >= LEAST]
    return enough if len(enough) > 1 else summary.rivals


def decide(summary: Summary, rows: Sequence[DeploymentRow]) -> Choice | None:
    """None if there is nothing to choose from."""
    if not rows:
        return None
    by_pool = sorted(rows, key=lambda row: list(PoolKind).index(row.deployment.pool))
    kinds = dict.fromkeys(row.deployment.kind for row in by_pool)
    curves = tuple(_curve(summary, [row for row in rows if row.deployment.kind == kind]) for kind in kinds)
    saturated = [curve.saturation for curve in curves]
    best = fastest(summary, saturated)
    tied = tuple(row for row in saturated if row is best or _tied(summary, row, best))
    pick, criterion = _preferred(summary, tied)
    others = [row for row in rows if row is not pick]
    gains = {row.name: may_gain(summary, row, pick) for row in others}
    rival = max(others, key=lambda row: gains[row.name], default=None)
    return Choice(
        pick=pick,
        curves=curves,
        tied=tied,
        criterion=criterion,
        regret=max([0.0, *gains.values()]),
        rival=rival,
        others=tuple([row for row in saturated if row is not pick] or others),
    )


def fastest(summary: Summary, rows: Sequence[DeploymentRow]) -> DeploymentRow:
    """By the ratio to each of the others."""

    def lead(row: DeploymentRow) -> tuple[float, float]:
        ratios = (summary.compare(row.name, other.name).ratio for other in rows if other is not row)
        return sum(math.log(ratio.median) for ratio in ratios if ratio), row.rate

    return max(rows, key=lead)


def _tied(summary: Summary, row: DeploymentRow, best: DeploymentRow) -> bool:
    return summary.compare(row.name, best.name).verdict is Verdict.EQUAL


def may_gain(summary: Summary, row: DeploymentRow, pick: DeploymentRow) -> float:
    """The share by which a deployment may be faster than the pick; negative if it is certainly slower."""
    ratio = summary.compare(row.name, pick.name).ratio
    if ratio is None:
        return math.inf
    beside = (summary.compare(pick.name, other.name) for other in summary.rivals if other is not pick)
    beats = pick.measurements < LEAST and any(each.verdict is Verdict.FASTER for each in beside)
    return (ratio.high if beats else ratio.bounds[1]) - 1


def _curve(summary: Summary, rows: Sequence[DeploymentRow]) -> Curve:
    ordered = tuple(sorted(rows, key=lambda row: (row.deployment.concurrency or 0, row.name)))
    best = fastest(summary, ordered)
    return Curve(ordered, best, next(row for row in ordered if row is best or _tied(summary, row, best)))


def _preferred(summary: Summary, tied: Sequence[DeploymentRow]) -> tuple[DeploymentRow, str | None]:
    """One of them, and the criterion that left it alone."""
    left = list(tied)
    criterion = None
    for name, value in _CRITERIA:
        known = [found for row in left if (found := value(row)) is not None]
        if len(left) == 1 or len(known) < len(left):
            continue
        least = [row for row, found in zip(left, known, strict=True) if found <= min(known) * (1 + ALIKE)]
        if len(least) < len(left):
            left, criterion = least, name
    return fastest(summary, left), criterion


_CRITERIA: tuple[tuple[str, Callable[[DeploymentRow], float | None]], ...] = (
    ("less memory", lambda row: row.peak),
    ("a shorter p99 of latency", lambda row: row.p99),
    ("a lower concurrency", lambda row: row.deployment.concurrency),
    ("fewer options", lambda row: row.deployment.setup.options),
)
