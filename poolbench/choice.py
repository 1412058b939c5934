"""Which deployment to take, from a summary alone: the saturation point of each curve, then these.

A *curve* has the deployments of one pool that are set up alike, by their concurrency: options are never mixed in one.

Three shares say what a difference is worth; all are of jobs per second:

    MARGIN  a deployment is *behind* another only if that is certain (``figures.Verdict``) and the difference this large
    TIE     two are *tied* if neither is behind, and it is certain that taking the wrong one costs no more than this
    REGRET  an answer is given only if it is certain that nothing measured is faster than it by more than this

What is neither behind nor tied is *open*: the noise is too large to say.

The *saturation point* of a curve is the lowest concurrency that is tied with the curve's fastest. Among those points
that are tied with the fastest, the one to take has less memory at its peak, then a shorter p99 of latency, then a lower
concurrency, then fewer options: in that order, and a criterion decides only where it differs by more than ``ALIKE``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from poolbench.experiment import PoolKind
from poolbench.statistics import LEAST, DeploymentRow, Summary, Verdict

MARGIN = 0.03
TIE = 0.15
REGRET = 0.20
ALIKE = 0.05
WITHIN_NOISE = "the higher median of jobs per second, within the noise"  # where no criterion decides a tie


class Standing(StrEnum):
    """Of a deployment beside one with more jobs per second."""

    TIED = "tied"
    BEHIND = "behind"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Curve:
    """Deployments of one pool and one setup by their concurrency."""

    rows: tuple[DeploymentRow, ...]
    best: DeploymentRow
    saturation: DeploymentRow

    @property
    def pool(self) -> PoolKind:
        return self.best.deployment.pool

    @property
    def name(self) -> str:
        """``threads``, ``threads+prefetch=4``"""
        return f"{self.pool}{self.best.deployment.setup}"

    @property
    def reached(self) -> bool:
        """Whether a concurrency above the saturation point was measured."""
        return self.saturation is not self.rows[-1]

    @property
    def memory_per_job_at_once(self) -> float | None:
        """Bytes that each further job at once adds to the peak, over the whole curve; None: it takes two points."""
        least, most = self.rows[0], self.rows[-1]
        more = (most.deployment.concurrency or 0) - (least.deployment.concurrency or 0)
        return (most.peak - least.peak) / more if more and most.peak and least.peak else None


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take, and what it was chosen from."""

    pick: DeploymentRow
    best: DeploymentRow  # the fastest of the saturation points
    curves: tuple[Curve, ...]
    tied: tuple[DeploymentRow, ...]  # saturation points that are tied with the fastest, itself included
    criterion: str | None  # what decided among them; None: nothing had to
    regret: float  # share by which something measured may be faster than the pick; infinite: not known
    rival: DeploymentRow | None  # ... and what that is
    runner_up: DeploymentRow | None  # the fastest other saturation point; of one curve alone, of its deployments

    @property
    def certain(self) -> bool:
        return self.regret <= REGRET

    @property
    def curve(self) -> Curve:
        """The pick's."""
        return next(curve for curve in self.curves if self.pick in curve.rows)


def comparable(summary: Summary) -> list[DeploymentRow]:
    """Deployments with enough measurements."""
    return [row for row in summary.rivals if row.measurements >= LEAST]


def decide(summary: Summary, rows: Sequence[DeploymentRow]) -> Choice | None:
    """None if there is nothing to choose from."""
    if not rows:
        return None
    kinds = dict.fromkeys(row.deployment.kind for row in rows)
    in_order = sorted(kinds, key=lambda kind: list(PoolKind).index(kind[0]))
    curves = tuple(_curve(summary, [row for row in rows if row.deployment.kind == kind]) for kind in in_order)
    saturated = [curve.saturation for curve in curves]
    best = max(saturated, key=lambda row: row.rate)
    tied = tuple(row for row in saturated if row is best or standing(summary, row, best) is Standing.TIED)
    pick, criterion = _preferred(tied)
    others = [row for row in rows if row is not pick]
    rival = max(others, key=lambda row: may_gain(summary, row, pick), default=None)
    rest = [row for row in saturated if row is not pick] or others
    return Choice(
        pick=pick,
        best=best,
        curves=curves,
        tied=tied,
        criterion=criterion,
        regret=max(may_gain(summary, rival, pick), 0.0) if rival else 0.0,
        rival=rival,
        runner_up=max(rest, key=lambda row: row.rate, default=None),
    )


def standing(summary: Summary, row: DeploymentRow, best: DeploymentRow) -> Standing:
    found = summary.compare(best.name, row.name)
    if found.ratio is None or found.ratio.interval is None:
        return Standing.OPEN
    if found.verdict is Verdict.FASTER and found.ratio.median >= 1 + MARGIN:
        return Standing.BEHIND
    return Standing.TIED if found.ratio.interval[1] <= 1 + TIE else Standing.OPEN


def may_gain(summary: Summary, row: DeploymentRow, pick: DeploymentRow) -> float:
    """The share by which a deployment may be faster than the pick; negative if it is certainly slower."""
    ratio = summary.compare(row.name, pick.name).ratio
    return ratio.interval[1] - 1 if ratio and ratio.interval else math.inf


def _curve(summary: Summary, rows: Sequence[DeploymentRow]) -> Curve:
    ordered = tuple(sorted(rows, key=lambda row: (row.deployment.concurrency or 0, row.name)))
    best = max(ordered, key=lambda row: row.rate)
    saturation = next(row for row in ordered if row is best or standing(summary, row, best) is Standing.TIED)
    return Curve(ordered, best, saturation)


def _preferred(tied: Sequence[DeploymentRow]) -> tuple[DeploymentRow, str | None]:
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
    return max(left, key=lambda row: row.rate), criterion or (WITHIN_NOISE if len(tied) > 1 else None)


_CRITERIA: tuple[tuple[str, Callable[[DeploymentRow], float | None]], ...] = (
    ("less memory", lambda row: row.peak),
    ("a shorter p99 of latency", lambda row: row.p99),
    ("a lower concurrency", lambda row: row.deployment.concurrency),
    ("fewer options", lambda row: row.deployment.setup.options),
)
