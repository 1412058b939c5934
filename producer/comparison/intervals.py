"""How sure a median of few values is.

The interval of a median, meant to hold the true one in 95 of 100 experiments (``CONFIDENCE``):

six values or more
    Order statistics: the true median lies outside of [k-th smallest, k-th largest] only if fewer than k of n values
    fell on one side of it, which is as probable as so few heads in n throws. Exact for any distribution. k is the
    largest with at least 95 %; with 6 to 8 values that is the smallest and the largest (96.9 % and more).
three to five values
    Their range alone would hold it in 75, 87.5 and 93.75 of 100. So Student's interval, on logarithms where all values
    are positive (spans and ratios vary by factors), and never narrower than the range. It takes the noise to be about
    log-normal. A bootstrap of so few values is too narrow: it cannot leave their range.
fewer
    None, and nothing that is compared can be told apart.

Values are taken to be independent, one per round. ``tests/unit/test_intervals.py`` counts how often it holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

CONFIDENCE = 0.95
LEAST = 3  # values; with fewer there is no interval
_STUDENT = {3: 4.3027, 4: 3.1824, 5: 2.7764}  # by number of values: the 97.5 % quantile with one degree of freedom less


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median of a few values, one per turn or per pair of turns."""

    median: float
    low: float  # the smallest value
    high: float  # the largest
    n: int
    interval: tuple[float, float] | None  # of the median; None: too few values
    confidence: float  # of the interval; 0 without one

    @property
    def spread(self) -> float:
        """Half of the interval's width as a share of the median; without an interval that of the range."""
        low, high = self.interval or (self.low, self.high)
        return (high - low) / 2 / abs(self.median) if self.median else 0.0


def estimate(values: Sequence[float]) -> Estimate | None:
    """None if there are no values."""
    if not values:
        return None
    interval, confidence = _interval(sorted(values))
    return Estimate(median(values), min(values), max(values), len(values), interval, confidence)


def _interval(ordered: Sequence[float]) -> tuple[tuple[float, float] | None, float]:
    n = len(ordered)
    if n < LEAST:
        return None, 0.0
    if n in _STUDENT:
        low, high = _student(ordered)
        return (min(low, ordered[0]), max(high, ordered[-1])), CONFIDENCE
    k, confidence = _rank(n)
    return (ordered[k - 1], ordered[n - k]), confidence


def _student(values: Sequence[float]) -> tuple[float, float]:
    positive = values[0] > 0
    scaled = [math.log(value) for value in values] if positive else list(values)
    middle = fmean(scaled)
    half = _STUDENT[len(values)] * stdev(scaled) / math.sqrt(len(values))
    return (math.exp(middle - half), math.exp(middle + half)) if positive else (middle - half, middle + half)


def _rank(n: int) -> tuple[int, float]:
    """The largest k whose order statistics are sure enough, and how sure they are."""
    fewer, best = 0, (1, 1 - 2 * 0.5**n)
    for k in range(1, n // 2 + 1):
        fewer += math.comb(n, k - 1)  # ways to have fewer than k of n on one side
        sure = 1 - 2 * fewer / 2**n
        if sure < CONFIDENCE:
            break
        best = (k, sure)
    return best


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that at least this share of the sorted values does not exceed."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]
