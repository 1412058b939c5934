"""All jobs of a process share a pace of notes."""

import random

from worker.claim import Throttle


def test_few_never_notice_it() -> None:
    pace = Throttle(50, at_once=50)
    assert all(pace.allows(second / 2) for second in range(100) for _ in range(25))


def test_many_get_what_the_pace_gives_and_no_burst_later_than_that() -> None:
    pace, chance = Throttle(50, at_once=10), random.Random(1)
    moments = sorted(chance.uniform(0, 20) for _ in range(40_000))
    allowed = [moment for moment in moments if pace.allows(moment)]
    assert 20 * 50 - 2 <= len(allowed) <= 20 * 50 + 10
    assert all(later - earlier >= 0.2 - 1e-9 for earlier, later in zip(allowed[20:], allowed[40:], strict=False))


def test_each_of_many_has_its_turn() -> None:
    """A thousand jobs ask once a second, each at a moment of its own; I expect none to be left out for long."""
    pace, chance = Throttle(50, at_once=50), random.Random(2)
    last, longest = dict.fromkeys(range(1000), 0.0), 0.0
    for moment, job in sorted((second + chance.random(), job) for second in range(300) for job in range(1000)):
        if pace.allows(moment):
            longest, last[job] = max(longest, moment - last[job]), moment
    assert longest < 250
    assert min(last.values()) > 50
