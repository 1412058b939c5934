"""What a host gets at once and per second, on a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from download.errors import LONGEST_PAUSE
from ledger.host_limits import Admission, HostLimits
from ledger.jobs import JobState, Pool, Ref
from ledger.ledger import Closed
from ledger.settings import Settings
from ledger.sweep import Sweep
from tests.ledgers import LedgerWorld, attempt
from tests.waiting import wait_for

GRANTED, PARKED, VOID = Admission.GRANTED, Admission.PARKED, Admission.VOID
END = attempt()


class World(LedgerWorld):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.limits = HostLimits(self.redis, settings)

    def ask(self, number: int, host: str = "h") -> Admission:
        return self.limits.acquire(self.hold(number), host)


@pytest.fixture
def polite(settings: Settings) -> Callable[..., World]:
    return lambda **limits: World(settings.model_copy(update=limits))


def test_a_host_has_as_many_slots_as_it_is_given_and_the_next_job_waits(polite: Callable[..., World]) -> None:
    world = polite(per_host=2)
    world.submit(5)
    assert [world.ask(n) for n in range(4)] == [GRANTED, GRANTED, PARKED, PARKED]
    assert world.ask(4, "another") is GRANTED
    assert world.states() == "rrwwr"


def test_the_slot_goes_with_the_record_and_the_first_in_line_is_woken(polite: Callable[..., World]) -> None:
    world = polite(per_host=1)
    world.submit(3)
    held = world.hold(0)
    assert world.limits.acquire(held, "h") is GRANTED
    assert [world.ask(2), world.ask(1)] == [PARKED, PARKED]
    assert world.limits.wake("h") == []
    assert world.ledger.close(held, JobState.DONE, END) is Closed.AWAITED
    assert world.limits.wake("h") == [("b.1", Pool.THREADS)]
    assert world.limits.wake("h") == [], "the woken one is on its way"
    assert world.states() == "dqw"
    assert world.ask(1) is GRANTED


def test_whoever_is_woken_and_comes_late_has_its_old_place(polite: Callable[..., World]) -> None:
    world = polite(per_host=1)
    world.submit(4)
    held = world.hold(0)
    world.limits.acquire(held, "h")
    assert [world.ask(1), world.ask(2)] == [PARKED, PARKED]
    world.ledger.close(held, JobState.FAILED, END)
    assert world.limits.wake("h") == [("b.1", Pool.THREADS)]
    third = world.hold(3)
    assert world.limits.acquire(third, "h") is GRANTED, "the host is not idle for the sake of order"
    assert world.ask(1) is PARKED
    assert world.redis.zrange("t:host:h:queue", 0, -1) == ["b.1", "b.2"]
    world.ledger.close(third, JobState.FAILED, END)
    assert world.limits.wake("h") == [("b.1", Pool.THREADS)], "nobody is on its way any more"


def test_asking_again_is_answered_in_the_same_way(polite: Callable[..., World]) -> None:
    """As when the connection breaks after Redis acted."""
    world = polite(per_host=1, per_host_rate=100)
    world.submit(2)
    first, second = world.hold(0), world.hold(1)
    assert [world.limits.acquire(first, "h") for _ in range(2)] == [GRANTED, GRANTED]
    assert [world.limits.acquire(second, "h") for _ in range(2)] == [PARKED, PARKED]
    assert world.states() == "rw"
    world.ledger.close(first, JobState.DONE, END)
    assert world.limits.acquire(first, "h") is VOID


def test_a_dead_holders_slot_is_free_when_its_lease_has_lapsed(polite: Callable[..., World]) -> None:
    world = polite(per_host=1)
    world.submit(2)
    dying = world.register(pid=8)
    assert world.limits.acquire(world.claim(dying), "h") is GRANTED
    assert world.ask(1) is PARKED
    world.leases.end(dying)
    sweep = Sweep(world.settings)

    def woken() -> bool:
        world.leases.renew(world.incarnation)
        return sweep.round().woken > 0

    wait_for(woken, what="the sweep to wake who waits")
    assert world.states() == "qq"


def test_a_slot_whose_record_was_removed_is_found_out(polite: Callable[..., World]) -> None:
    world = polite(per_host=1)
    world.submit(2)
    assert world.ask(0) is GRANTED
    world.redis.delete("t:job:b.0")
    assert world.ask(1) is GRANTED


def test_a_rate_lets_a_second_s_worth_begin_at_once_and_then_as_many_per_second(polite: Callable[..., World]) -> None:
    world = polite(per_host_rate=5)
    world.submit(30)
    begun = time.monotonic()
    answers = [world.ask(n) for n in range(30)]
    took = time.monotonic() - begun
    assert answers[:5] == [GRANTED] * 5
    assert answers.count(GRANTED) <= 5 + 5 * took + 1
    assert PARKED in answers or took > 4
    assert wait_for(lambda: world.limits.wake("h"), what="the rate to have room")


def test_a_rate_below_one_per_second_lets_one_begin(polite: Callable[..., World]) -> None:
    world = polite(per_host_rate=0.1)
    world.submit(2)
    assert [world.ask(0), world.ask(1)] == [GRANTED, PARKED]


def test_during_a_cool_down_no_download_begins_and_then_the_sweep_wakes_the_jobs(polite: Callable[..., World]) -> None:
    world = polite(per_host=8)
    world.submit(3)
    held = world.hold(0)
    world.limits.acquire(held, "h")
    assert world.limits.cool("h", 1.0) == 1.0
    assert 0.5 < world.limits.cool("h", 0.1) <= 1.0, "a shorter one does not end a longer one"
    assert [world.ask(1), world.ask(2)] == [PARKED, PARKED]
    world.ledger.close(held, JobState.DONE, END)
    assert world.limits.wake("h") == []
    assert world.redis.ttl("t:host:h") > LONGEST_PAUSE, "or a longer one would be forgotten before its end"
    wait_for(world.limits.wake_all, what="the cool-down to be over")
    assert world.states() == "dqq"


def test_who_is_cancelled_while_it_waits_is_not_woken(polite: Callable[..., World]) -> None:
    world = polite(per_host=1)
    world.submit(4)
    held = world.hold(0)
    world.limits.acquire(held, "h")
    assert [world.ask(1), world.ask(2), world.ask(3)] == [PARKED, PARKED, PARKED]
    assert world.ledger.cancel(Ref("b", 1, 1)) == (1, 0)
    world.ledger.close(held, JobState.DONE, END)
    assert world.limits.wake("h") == [("b.2", Pool.THREADS)]
    assert world.ledger.cancel(Ref("b", 2, 2)) == (1, 0)
    assert world.limits.wake("h") == [("b.3", Pool.THREADS)], "nor does it keep the slot when it was on its way"
    assert world.states() == "dccq"


def test_when_the_limits_are_taken_away_everybody_is_woken(polite: Callable[..., World]) -> None:
    world = polite(per_host=1)
    world.submit(4)
    assert [world.ask(n) for n in range(4)] == [GRANTED, PARKED, PARKED, PARKED]
    assert polite(per_host=0).limits.wake_all() == 3
    assert world.redis.exists("t:hosts") == 0


def test_a_job_that_goes_on_to_another_host_frees_the_first(polite: Callable[..., World]) -> None:
    world = polite(per_host=1)
    world.submit(2)
    held = world.hold(0)
    assert [world.limits.acquire(held, host) for host in ("h", "mirror")] == [GRANTED, GRANTED]
    assert world.ask(1) is GRANTED
