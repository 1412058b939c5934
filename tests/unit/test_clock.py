"""Redis' clock from a process' monotonic one: the quickest answer decides, and a jump is followed."""

from __future__ import annotations

import pytest

from ledger.redis_client import RedisClock

DIFFERENCE = 1_700_000_000.0  # seconds between the two clocks of these tests


def learn(clock: RedisClock, asked: float, to: float, back: float, *, jumped: float = 0.0) -> float:
    """The answer to a question that was so many seconds on its way there and back: how wrong it is, in seconds."""
    told = int((DIFFERENCE + jumped + asked + to) * 1000) / 1000
    return clock.learn(told, asked, asked + to + back) - DIFFERENCE - jumped


def test_answers_that_are_late_do_not_make_a_clock_worse() -> None:
    clock = RedisClock()
    assert learn(clock, 1.0, 0.0002, 0.2) == pytest.approx(-0.2, abs=0.002)  # all that can be known so far
    assert learn(clock, 2.0, 0.0002, 0.0005) == pytest.approx(0, abs=0.002)
    assert learn(clock, 3.0, 0.0002, 0.5) == pytest.approx(0, abs=0.002)
    assert learn(clock, 4.0, 0.5, 0.0005) == pytest.approx(0, abs=0.002)
    assert learn(clock, 5.0, 20.0, 0.5) == pytest.approx(0, abs=0.002)  # Redis was away: asked again and again


@pytest.mark.parametrize("jumped", [-3600.0, -0.1, 0.1, 1800.0])
def test_a_clock_that_jumps_is_followed_by_the_next_answer(jumped: float) -> None:
    clock = RedisClock()
    learn(clock, 1.0, 0.0005, 0.0005)
    assert learn(clock, 2.0, 0.0005, 0.0005, jumped=jumped) == pytest.approx(0, abs=0.002)


def test_a_clock_that_drifts_is_followed() -> None:
    """Given a drift of 0.1 %, either way, for ten minutes, I expect what is known to stay right to the answers' way."""
    for drift in (-0.001, 0.001):
        clock = RedisClock()
        for second in range(600):
            assert learn(clock, float(second), 0.001, 0.001, jumped=drift * second) == pytest.approx(0, abs=0.003)
