"""Which job killed its process, what a living process does not run, and what no script may choke on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ledger.flower_events import TakenOver
from ledger.jobs import FailureKind, JobState, Pool, Ref
from ledger.settings import Settings
from ledger.sweep import Sweep, Swept
from tests.ledgers import attempt
from tests.service.test_sweep import World, why
from tests.waiting import wait_for
from worker.heartbeat import Incarnation

QUEUE = f"t:{Pool.THREADS.queue}"


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


def child(world: World, family: str, pid: int = 7) -> str:
    return world.register(Pool.PREFORK, pid, family)


def losses(world: World, number: int) -> tuple[int, int]:
    """Those that count and those in company."""
    counted, company = world.redis.hmget(world.ledger.keys.job(f"b.{number}"), ["l", "y"])
    return int(counted or 0), int(company or 0)


def die(world: World, *incarnations: str) -> None:
    for incarnation in incarnations:
        world.expire(incarnation)
    world.sweep.round()


def suspects(world: World, jobs: int, deaths: int) -> None:
    """Jobs that died so often in company; the first was, or all were, released with the last round."""
    world.submit(jobs)
    for _ in range(deaths):
        holder = world.register()
        for number in range(jobs):
            world.claim(holder, number)
        die(world, holder)


def three_suspects(world: World) -> None:
    suspects(world, 3, 3)


def test_a_loss_counts_for_a_job_that_was_alone_and_not_for_jobs_that_died_together(world: World) -> None:
    world.submit(3)
    alone, together = world.register(), world.register()
    world.claim(alone, 0)
    world.claim(together, 1)
    world.claim(together, 2)
    die(world, alone, together)
    assert [losses(world, number) for number in range(3)] == [(1, 0), (0, 1), (0, 1)]


def test_processes_of_one_worker_that_die_together_prove_nothing_against_their_jobs(world: World) -> None:
    world.submit(2)
    children = child(world, "mine", 7), child(world, "mine", 8)
    for number, each in enumerate(children):
        world.claim(each, number)
    die(world, *children)
    assert [losses(world, number) for number in range(2)] == [(0, 1), (0, 1)]


def test_a_child_that_died_while_its_parent_lives_counts_against_its_job(world: World) -> None:
    world.submit(2)
    children = child(world, "mine", 7), child(world, "mine", 8)
    for number, each in enumerate(children):
        world.claim(each, number)
    assert world.leases.end_children("mine", {7}) == [children[0]]
    world.sweep.round()
    assert [losses(world, number) for number in range(2)] == [(1, 0), (0, 0)]


def test_a_job_alone_in_a_prefork_worker_that_is_killed_as_a_whole_is_not_to_blame(world: World) -> None:
    """Alone or on trial; only many such deaths more than of others make it poison, so that no job goes on for ever."""
    world.submit(1)

    def run_and_die() -> None:
        holder = child(world, "mine")
        world.sweep_until(lambda: world.ledger.claim(Ref("b", 0, 0), Pool.PREFORK, holder), "its turn")
        die(world, holder)

    for deaths in range(1, 3 * world.settings.max_losses):
        run_and_die()
        assert losses(world, 0) == (0, deaths)
        assert world.record(0).state is JobState.QUEUED
    run_and_die()
    assert (world.record(0).state, why(world.record(0))) == (JobState.FAILED, FailureKind.POISON)


def test_a_process_that_ends_by_its_own_will_counts_against_no_job(world: World) -> None:
    world.submit(1)
    holder = world.register()
    world.claim(holder)
    world.leases.end(holder)
    assert world.sweep.round().orphans == 1
    assert losses(world, 0) == (0, 0)


def test_a_job_that_kills_its_process_ends_as_poison_and_its_neighbours_are_done(world: World) -> None:
    """The worker takes what it is offered; it dies whenever job 0 is among its jobs."""
    world.submit(20)
    unfinished = set(range(20))
    rounds = deaths = 0
    while unfinished:
        rounds += 1
        assert rounds < 200, "it goes on for ever"
        holder = world.register()
        claims = {}
        for number in sorted(unfinished):
            for claim in world.ledger.claim(Ref("b", number, number), Pool.THREADS, holder):
                claims[number] = claim
        if 0 in claims:
            deaths += 1
            die(world, holder)
        else:
            for claim in claims.values():
                assert world.ledger.close(claim, JobState.DONE, attempt())
        world.sweep.round()
        unfinished = {n for n in unfinished if not world.record(n).state.final}
    assert (world.record(0).state, why(world.record(0))) == (JobState.FAILED, FailureKind.POISON)
    assert [world.record(number).state for number in range(1, 20)] == [JobState.DONE] * 19
    assert deaths <= world.settings.max_losses + 3


def test_suspects_are_released_one_at_a_time_and_the_next_when_the_trial_is_over(world: World) -> None:
    three_suspects(world)
    holder = world.register()
    claims = [world.ledger.claim(Ref("b", number, number), Pool.THREADS, holder) for number in range(3)]
    assert [len(taken) for taken in claims] == [1, 0, 0]
    assert world.sweep.round().trials == 0
    # When it is done, or outlives its trial, the next one is released
    assert world.ledger.close(claims[0][0], JobState.DONE, attempt())
    assert world.sweep.round().trials == 1
    world.claim(holder, 1)

    def released() -> bool:
        world.leases.renew(holder)
        return bool(world.ledger.claim(Ref("b", 2, 2), Pool.THREADS, holder))

    world.sweep_until(released, "the next suspect, while the one before still runs")


def test_a_cancelled_suspect_ends_and_does_not_hold_up_the_others(world: World) -> None:
    three_suspects(world)
    assert world.ledger.cancel(Ref("b", 0, 1)) == (2, 0)
    holder = world.register()
    world.sweep_until(lambda: world.ledger.claim(Ref("b", 2, 2), Pool.THREADS, holder), "the last suspect")


def test_suspects_are_tried_together_at_first_and_their_deaths_there_prove_nothing(world: World) -> None:
    suspects(world, 20, 2)

    def tried() -> set[int]:
        return {int(str(id_).rpartition(".")[2]) for id_ in world.redis.hkeys("t:trial:threads")}

    first = tried()
    assert len(first) == 16
    holder = world.register()
    for number in first:
        world.claim(holder, number)
    die(world, holder)
    assert {losses(world, number) for number in first} == {(0, 3)}
    # The other four are next; then those of the first that died again, each of them alone
    assert tried() == set(range(20)) - first
    holder = world.register()
    for number in tried():
        assert world.ledger.close(world.claim(holder, number), JobState.DONE, attempt())
    assert world.sweep.round().trials == 1
    assert len(tried()) == 1
    assert tried() < first
    assert world.sweep.round().trials == 0


def test_a_suspect_that_is_tried_alone_explains_the_death_of_its_company(world: World) -> None:
    suspects(world, 2, 3)
    world.submit(3, batch="c")
    holder = world.register()
    world.claim(holder, 0)
    for number in range(3):
        world.ledger.claim(Ref("c", number, number), Pool.THREADS, holder)
    die(world, holder)
    assert losses(world, 0) == (1, 3)
    assert [world.redis.hmget(f"t:job:c.{number}", "l", "y") for number in range(3)] == [[None, None]] * 3


def test_a_job_lost_alone_or_twice_is_never_claimed_in_a_group(world: World) -> None:
    world.submit(4)
    for together in ([1], [2, 3], [2]):
        holder = world.register()
        for number in together:
            world.claim(holder, number)
        world.claim(holder, 0)
        die(world, holder)
    assert [losses(world, number)[1] for number in range(4)] == [3, 1, 2, 1]
    world.redis.hset(world.ledger.keys.job("b.1"), mapping={"l": 1, "y": 0})
    holder = world.register()
    world.redis.delete(QUEUE)
    claims = world.ledger.claim(Ref("b", 1, 3), Pool.THREADS, holder)
    assert [claim.record.id for claim in claims] == ["b.3"]
    world.sweep_until(lambda: set(world.queue()) == {"b.1", "b.2"}, "messages of their own")
    assert world.claim(holder, 1)


def test_a_job_that_its_living_process_does_not_run_is_given_back(world: World) -> None:
    world.submit(2)
    holder = world.register()
    lost, held = world.claim(holder, 0), world.claim(holder, 1)
    assert world.leases.held(holder) == {"b.0", "b.1"}
    assert world.leases.give_back(holder, ["b.0", "b.7"]) == 1
    assert world.ledger.standing([lost]) == [False]
    assert world.ledger.standing([held]) == [True]
    assert (world.record(0).state, why(world.record(0))) == (JobState.QUEUED, FailureKind.LOST)
    assert losses(world, 0) == (0, 0)
    assert world.leases.give_back(holder, ["b.0"]) == 0


def test_a_cancel_that_came_late_does_not_hit_the_next_claim_of_the_job(world: World) -> None:
    world.submit(1)
    holder = world.register()
    first = world.claim(holder)
    assert world.ledger.cancel(Ref("b", 0, 0)) == (0, 1)
    assert world.ledger.close(first, JobState.CANCELLED, attempt())
    world.ledger.call("retry", "b", 0, 0, "dfc")
    # Given that the process reads its stop requests only now, with the job running again in it
    second = world.claim(holder)
    renewed = world.leases.renew(holder)
    assert renewed is not None
    assert f"b.0 {second.number}" not in renewed.stopping
    world.ledger.cancel(Ref("b", 0, 0))
    renewed = world.leases.renew(holder)
    assert renewed is not None
    assert renewed.stopping == {f"b.0 {second.number}"}


def test_a_running_job_whose_time_has_been_over_for_long_is_ended_whatever_its_process_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(1)
    holder = world.register()
    (held,) = world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, holder, deadline=0.001)
    world.pop()
    late = world.ledger.keys.job("b.0")

    def begin_earlier() -> None:
        """As if it had been claimed a minute ago."""
        world.redis.hincrby(late, "e", -60_000)
        world.redis.zincrby(f"{world.settings.key_prefix}deadlines", -60_000, "b.0")

    told: list[dict[str, list[TakenOver]]] = []
    monkeypatch.setattr("ledger.sweep.tell_flower", lambda _redis, _keys, jobs, _alive: told.append(jobs))
    begin_earlier()
    assert world.sweep.round().overdue == 1
    (row,) = [row for jobs in told for row in jobs.get("threads@here", [])]
    assert (row.row, row.state) == ("b.0", JobState.FAILED)
    assert (world.record().state, why(world.record())) == (JobState.FAILED, FailureKind.DEADLINE)
    assert not world.ledger.close(held, JobState.DONE, attempt())
    assert world.leases.held(holder) == set()


BROKEN = {
    "no JSON": {"j": "garbage"},
    "another JSON": {"j": '{"a": 1}'},
    "attempts that are none": {"a": "{{{"},
    "queued at no time": {"q": "yesterday"},
    "no pool": {"p": "x"},
    "claim number": {"n": "many"},
    "started at no time": {"t": "now"},
    "losses": {"l": "some", "y": "some"},
    "no such state": {"s": "?"},
}


@pytest.mark.parametrize("fields", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("state", ["queued", "waiting", "running", "vanished"])
def test_a_record_that_cannot_be_read_stops_no_other_job(world: World, fields: Mapping[Any, Any], state: str) -> None:
    world.submit(4, send=state != "vanished")
    holder = world.register()
    if state in ("waiting", "running"):
        for number in range(2):
            claim = world.claim(holder, number)
            if state == "waiting":
                world.ledger.close(claim, JobState.WAITING, attempt(FailureKind.SERVER), due_in=0.1)
    world.redis.hset(world.ledger.keys.job("b.0"), mapping=fields)
    if state == "running":
        die(world, holder)

    def the_others_are_done() -> bool:
        mine = world.register()
        for number in range(1, 4):
            for claim in world.ledger.claim(Ref("b", number, number), Pool.THREADS, mine):
                assert world.ledger.close(claim, JobState.DONE, attempt())
        world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, mine)
        list(world.ledger.read([f"b.{number}" for number in range(4)]))
        return all(world.record(number).state is JobState.DONE for number in range(1, 4))

    world.sweep_until(the_others_are_done, "the other jobs")
    assert world.record(0).id == "b.0"
    Sweep(world.settings).round()


@pytest.mark.parametrize("wreck", ["set", "string"])
def test_a_record_of_another_type_stops_no_other_job(world: World, wreck: str) -> None:
    world.submit(2)
    holder = world.register()
    for number in range(2):
        world.claim(holder, number)
    key = world.ledger.keys.job("b.0")
    world.redis.delete(key)
    if wreck == "set":
        world.redis.sadd(key, "x")
    else:
        world.redis.set(key, "x")
    world.pop()
    world.pop()
    world.expire(holder)
    assert world.sweep.round() == Swept(orphans=1, sent=1)
    assert world.queue() == ["b.1"]
    assert [record.id for record in world.ledger.read(["b.0", "b.1"])] == ["b.0", "b.1"]


def test_a_ref_that_is_none_stops_no_other_message(world: World) -> None:
    world.submit(1, send=False)
    world.redis.zadd(world.ledger.keys.hand(Pool.THREADS), {"../../etc/passwd": 1.0, "\x1b[2J": 2.0})
    world.sweep_until(world.queue, "the message")
    assert world.queue() == ["b.0"]
    assert world.redis.zcard(world.ledger.keys.hand(Pool.THREADS)) == 0


RANGES: dict[str, Callable[[World], Any]] = {
    "claim": lambda w: w.ledger.call("claim", w.register(), "threads", "token", 1000, "b.0-9", "b", 0, 999_999_999),
    "cancel": lambda w: w.ledger.call("cancel", "b", 0, 999_999_999),
    "retry": lambda w: w.ledger.call("retry", "b", 0, 999_999_999, "dfc"),
    "cancel without end": lambda w: w.ledger.call("cancel", "b", 0, "inf"),
}


@pytest.mark.parametrize("ask", RANGES.values(), ids=RANGES.keys())
def test_a_call_that_names_a_billion_jobs_is_refused_at_once(world: World, ask: Callable[[World], Any]) -> None:
    world.submit(1)
    with pytest.raises(ResponseError, match="at most"):
        ask(world)
    assert world.record().state is JobState.QUEUED


def test_a_step_of_the_sweep_that_fails_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.submit(1, send=False)

    def broken(_swept: Swept) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setitem(world.sweep._steps, "lost", broken)
    world.sweep_until(world.queue, "the message")
    assert caplog.text.count("RuntimeError: a bug") == 1, "said once, not in each round"


def test_a_process_without_a_job_has_a_longer_lease_until_its_first_job(world: World) -> None:
    mine = Incarnation(world.settings, "threads@here", Pool.THREADS, "family")

    def left() -> float:
        return next(each.left for each in world.leases.known() if each.incarnation == mine.id)

    assert 0 < left() <= world.settings.lease
    wait_for(lambda: left() > 3 * world.settings.lease, what="the longer lease")
    with mine.working(["b.0"]):
        wait_for(lambda: 0 < left() <= world.settings.lease, seconds=0.9, what="the usual one, at once")
    mine.end()
