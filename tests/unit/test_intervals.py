"""Intervals of medians hold what they claim: known answers, and noise thrown many times with a fixed seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolbench.statistics import Estimate, estimate, percentile

positive = st.floats(0.001, 1e6)


def of(*values: float) -> Estimate:
    found = estimate(values)
    assert found is not None
    return found


@pytest.mark.parametrize("values", [(3.0,), (3.0, 4.0)])
def test_fewer_than_three_values_have_a_median_and_no_interval(values: tuple[float, ...]) -> None:
    found = of(*values)

    assert found.median == median(values)
    assert found.interval is None


def test_three_values_have_students_interval_on_logarithms() -> None:
    """Given 1, 2 and 4 (logarithms a step of log 2 apart), I expect 2 times or over exp(4.3027 * log 2 / sqrt 3)."""
    low, high = of(1.0, 2.0, 4.0).interval or (0, 0)

    factor = math.exp(4.3027 * math.log(2) / math.sqrt(3))
    assert (low, high) == pytest.approx((2 / factor, 2 * factor), rel=1e-4)


def test_few_values_with_an_outlier_have_an_interval_no_narrower_than_their_range() -> None:
    low, high = of(1.0, 1.0, 1.0, 1.0, 9.0).interval or (0, 0)

    assert low <= 1.0
    assert high >= 9.0


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 1), (9, 2), (20, 6)])
def test_six_values_or_more_have_the_textbook_s_order_statistics(n: int, rank: int) -> None:
    """The ranks are those of tables for the sign test, at 95 %."""
    found = of(*[float(value) for value in range(1, n + 1)])

    assert found.interval == (rank, n + 1 - rank)


def test_values_that_are_not_positive_have_an_interval_too() -> None:
    low, high = of(-1.0, 0.0, 1.0).interval or (1, 0)

    assert low < -1 < 1 < high


@given(st.lists(positive, min_size=3, max_size=12))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    found = of(*values)

    assert found.interval is not None
    low, high = found.interval
    assert low <= found.median * (1 + 1e-9)
    assert found.median * (1 - 1e-9) <= high
    assert found.low <= found.median <= found.high


@given(st.lists(positive, min_size=3, max_size=12), st.floats(0.01, 100.0))
def test_another_unit_gives_the_same_interval_in_that_unit(values: list[float], factor: float) -> None:
    one, other = of(*values), of(*[value * factor for value in values])

    assert one.interval is not None
    assert other.interval == pytest.approx([end * factor for end in one.interval], rel=1e-6)


Noise = Callable[[random.Random], float]
NOISES: dict[str, Noise] = {
    "lognormal": lambda dice: math.exp(dice.gauss(0.0, 0.05)),
    "with outliers": lambda dice: math.exp(dice.gauss(0.0, 0.3 if dice.random() < 0.1 else 0.03)),
    "ratio of skewed": lambda dice: (1 + dice.expovariate(10.0)) / (1 + dice.expovariate(10.0)),
}


@pytest.mark.parametrize("noise", list(NOISES))
@pytest.mark.parametrize("n", [3, 4, 5, 6, 9, 12])
def test_the_interval_holds_the_true_median_as_often_as_claimed(noise: str, n: int) -> None:
    """Given 4,000 experiments of n rounds whose true ratio is 1, I expect it inside in 95 of 100, less what chance
    takes (three standard errors are 1 of 100)."""
    dice = random.Random(n)

    held = 0
    for _ in range(4000):
        found = of(*[NOISES[noise](dice) for _ in range(n)])
        assert found.interval is not None
        held += found.interval[0] <= 1 <= found.interval[1]

    assert held / 4000 >= 0.94


def test_the_nearest_rank_is_a_value_that_was_seen() -> None:
    ordered = [float(value) for value in range(1, 101)]

    assert [percentile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.5) == 7
    assert percentile([1.0, 2.0, 3.0], 0.99) == 3
