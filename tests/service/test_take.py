"""Which messages a worker process takes off its queue together, and what becomes of the others."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from redis import Redis

from ledger.jobs import Job, JobState, Message, Pool, Ref
from ledger.leases import Identity
from ledger.ledger import Claim, Closing, IncarnationLostError
from ledger.messages import Envelope, Publisher, Texts
from ledger.records import encode_job
from ledger.settings import Settings
from ledger.sweep import Sweep, Swept
from ledger.switches import Switches
from tests.ledgers import attempt, states_of
from tests.service.test_ledger import DONE
from tests.service.test_sweep import World
from tests.waiting import wait_for
from worker import group
from worker.heartbeat import Incarnation

QUEUE = f"t:{Pool.THREADS.queue}"
LOST = '[null,0,1,null,0,null,"lost","its holder died"]'


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


def lead(world: World, holder: str = "") -> Claim:
    """The oldest message arrived at a worker process, and its job is claimed."""
    ref = Ref.parse(world.queue()[0])
    world.pop()
    (claim,) = world.ledger.claim(ref, Pool.THREADS, holder or world.register())
    return claim


def take(world: World, leader: Claim, most: int = 63) -> list[str]:
    return [claim.record.id for claim in world.ledger.take(leader, Pool.THREADS, most)]


def ids(first: int, last: int) -> list[str]:
    return [f"b.{number}" for number in range(first, last + 1)]


def test_the_oldest_messages_are_taken_and_their_jobs_claimed(world: World) -> None:
    world.submit(10)
    leader = lead(world)
    claims = world.ledger.take(leader, Pool.THREADS, 6)
    assert [claim.record.id for claim in claims] == ids(1, 6)
    assert world.queue() == ids(7, 9)
    assert world.redis.zrange("t:sent:threads", 0, -1) == ids(7, 9)
    assert all(world.ledger.standing(claims))
    assert {claim.number for claim in claims} == {1}
    assert world.leases.held(leader.incarnation) == set(ids(0, 6))
    world.ledger.close_all([Closing(claim, JobState.DONE, attempt(), result=DONE) for claim in [leader, *claims]])
    states_of(world.ledger)
    assert world.sweep.round() == Swept()


def test_a_message_as_celery_writes_it_is_taken(world: World) -> None:
    world.submit(3)
    leader = lead(world)
    messages = [json.dumps(json.loads(text)) for text in world.redis.lrange(QUEUE, 0, -1)]
    world.redis.delete(QUEUE)
    world.redis.rpush(QUEUE, *messages)
    assert take(world, leader) == ids(1, 2)


@pytest.mark.parametrize(
    ("processes", "leave", "share"),
    [(1, 0, 20), (2, 0, 10), (3, 0, 6), (20, 0, 1), (21, 0, 0), (1, 7, 13), (3, 7, 4), (1, 20, 0), (1, 99, 0)],
)
def test_a_process_takes_no_more_than_its_share(world: World, processes: int, leave: int, share: int) -> None:
    world.submit(21)
    leader = lead(world)
    world.leases.register(Identity("gevent@there", Pool.GEVENT, 1))  # of another pool: it has no part of this queue
    for pid in range(1, processes):
        world.leases.register(Identity("threads@there", Pool.THREADS, pid))
    claims = world.ledger.take(leader, Pool.THREADS, 63, leave=leave)
    assert [claim.record.id for claim in claims] == ids(1, share)
    assert world.queue() == ids(share + 1, 20)


def suspect(world: World) -> None:
    world.redis.zadd("t:suspects:threads", {"b.3": 1})


def tried_before(world: World) -> None:
    (claim,) = world.ledger.claim(Ref("b", 3, 3), Pool.THREADS, world.register())
    world.ledger.close(claim, JobState.WAITING, attempt(), due_in=0.0)
    world.sweep.round()
    front_to_its_place(world)


def lost_alone(world: World) -> None:
    world.redis.hset("t:job:b.3", mapping={"n": 1, "l": 1, "a": LOST})


def lost_twice(world: World) -> None:
    world.redis.hset("t:job:b.3", mapping={"n": 2, "y": 2, "a": f"{LOST},{LOST}"})


def given_back(world: World) -> None:
    (claim,) = world.ledger.claim(Ref("b", 3, 3), Pool.THREADS, world.register())
    world.ledger.unclaim([claim])
    world.sweep.round()
    front_to_its_place(world)


def front_to_its_place(world: World) -> None:
    """The message of job 3 was sent again, in front: only the first one, in its place, is left."""
    world.pop()


def cancelled(world: World) -> None:
    world.ledger.cancel(Ref("b", 3, 3))


def sent_twice(world: World) -> None:
    replace(world, lambda _: Texts().of(Envelope("b.2", Pool.THREADS, "")))


def of_many_jobs(world: World) -> None:
    replace(world, lambda text: text.replace("b.3", "b.3-4"))


def unknown(world: World) -> None:
    replace(world, lambda text: text.replace("b.3", "nobody.3"))


def malformed(world: World) -> None:
    replace(world, lambda _: '[{"id":7}]')


def unreadable(world: World) -> None:
    world.redis.hset("t:job:b.3", "j", "garbage")


def with_options(world: World) -> None:
    swap(world, Job("http://origin/3", "f3", headers=(("x", "y"),)))


def announced_as_large(world: World) -> None:
    swap(world, Job("http://origin/3", "f3", size=2**20))


def swap(world: World, job: Job) -> None:
    world.redis.hset("t:job:b.3", "j", encode_job(job))


def replace(world: World, change: Callable[[str], str]) -> None:
    texts = [str(text) for text in world.redis.lrange(QUEUE, 0, -1)]
    world.redis.delete(QUEUE)
    world.redis.rpush(QUEUE, *(change(text) if '"b.3"' in text else text for text in texts))


def test_a_job_that_was_lost_once_in_company_is_taken_and_leads_as_on_its_first_try(world: World) -> None:
    world.submit(7)
    holder = world.register()
    for number in (0, 1, 3):
        world.ledger.claim(Ref("b", number, number), Pool.THREADS, holder)
    world.expire(holder)
    assert world.sweep.round().sent == 3
    for _ in range(3):  # those in front: the first ones are left
        world.pop()
    leader = lead(world)
    claims = [leader, *world.ledger.take(leader, Pool.THREADS, 63)]
    assert [claim.record.id for claim in claims] == ids(0, 6)
    assert [claim.number for claim in claims] == [2, 2, 1, 2, 1, 1, 1]
    assert group.leads([leader])


@pytest.mark.parametrize(
    "odd",
    [
        suspect,
        tried_before,
        lost_alone,
        lost_twice,
        given_back,
        cancelled,
        sent_twice,
        of_many_jobs,
        unknown,
        malformed,
        unreadable,
        with_options,
        announced_as_large,
    ],
)
def test_the_first_element_that_does_not_fit_stays_with_all_behind_it(
    world: World, odd: Callable[[World], None]
) -> None:
    world.submit(7)
    leader = lead(world)
    odd(world)
    before = world.redis.lrange(QUEUE, 0, -1)
    assert take(world, leader) == ids(1, 2)
    assert world.redis.lrange(QUEUE, 0, -1) == before[:-2]
    assert set(world.redis.zrange("t:sent:threads", 0, -1)) >= set(ids(4, 6))
    assert world.leases.held(leader.incarnation) == set(ids(0, 2))
    assert take(world, leader) == []
    states_of(world.ledger)


def test_a_job_that_expects_a_digest_of_another_kind_is_taken_like_one_with_a_sha256(world: World) -> None:
    world.submit(7)
    leader = lead(world)
    swap(world, Job("http://origin/3", "f3", digest=f"md5:{'00' * 16}"))
    assert take(world, leader) == ids(1, 6)


def pause(world: World) -> None:
    assert Switches(world.ledger).pause(Pool.THREADS)


def drain(world: World) -> None:
    assert Switches(world.ledger).drain("threads@here")


def fall_ill(world: World) -> None:
    world.ledger.note_fault("threads@here", "no room")


@pytest.mark.parametrize("refuse", [pause, drain, fall_ill])
def test_a_worker_that_may_claim_nothing_takes_nothing(world: World, refuse: Callable[[World], None]) -> None:
    world.submit(5)
    leader = lead(world)
    refuse(world)
    assert take(world, leader) == []
    assert world.queue() == ids(1, 4)


def test_whoever_is_not_alive_takes_nothing(world: World) -> None:
    world.submit(3)
    leader = lead(world)
    world.expire(leader.incarnation)
    world.sweep.round()
    with pytest.raises(IncarnationLostError):
        world.ledger.take(leader, Pool.THREADS, 5)
    assert world.queue() == ["b.0", "b.1", "b.2"]


def test_jobs_whose_answer_got_lost_are_given_back_by_the_process_that_took_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a call that redis-py repeats, so that it takes twice and is answered once."""
    world.submit(13)
    mine = Incarnation(world.settings, "threads@here", Pool.THREADS, "family")
    leader = lead(world, mine.id)
    with mine.working([leader.record.id]):
        monkeypatch.setattr("secrets.token_hex", lambda _: "one-call")
        lost = take(world, leader, 4)
        claims = world.ledger.take(leader, Pool.THREADS, 4)
        assert lost == ids(1, 4)
        assert [claim.record.id for claim in claims] == ids(5, 8)
        with mine.working([claim.record.id for claim in claims]):
            wait_for(lambda: world.leases.held(mine.id) == {"b.0", *ids(5, 8)}, what="the others to be given back")
            assert all(world.ledger.standing(claims))
            world.sweep_until(lambda: set(ids(1, 4)) <= set(world.queue()), "their messages")
    states_of(world.ledger)
    mine.end()


def test_flowers_row_of_a_job_that_was_taken_is_its_leaders_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[str]] = {}

    def tell(_redis: Redis, _keys: object, taken: dict[str, list[object]], _alive: object) -> None:
        told.update({worker: [each.row for each in jobs] for worker, jobs in taken.items()})  # type: ignore[attr-defined]

    monkeypatch.setattr("ledger.sweep.tell_flower", tell)
    world.submit(4)
    other = Message(Ref("other", 0, 0), Pool.THREADS, (Job("http://origin/0", "f0"),))
    world.ledger.submit([other])
    Publisher(world.settings).send([Envelope("other.0", Pool.THREADS, "")])
    leader = lead(world)
    assert take(world, leader) == [*ids(1, 3), "other.0"]
    world.expire(leader.incarnation)
    world.sweep.round()
    assert told == {"threads@here": ["b.0"] * 5}


def test_jobs_that_were_not_begun_go_back_without_an_attempt_and_are_sent_in_front(world: World) -> None:
    world.submit(8)
    leader = lead(world)
    claims = world.ledger.take(leader, Pool.THREADS, 3)
    world.ledger.cancel(Ref("b", 1, 1))
    void = claims[2]
    world.ledger.close(void, JobState.DONE, attempt(), result=DONE)
    assert world.ledger.unclaim(claims) == 2
    assert [world.record(number).state for number in (1, 2, 3)] == [
        JobState.CANCELLED,
        JobState.QUEUED,
        JobState.DONE,
    ]
    assert world.record(2).attempts == ()
    assert world.ledger.standing([claims[1]]) == [False]
    assert world.leases.held(leader.incarnation) == {"b.0"}
    assert not world.redis.exists(f"t:cancel:{leader.incarnation}")
    assert world.redis.zrange("t:deadlines", 0, -1) == ["b.0"]  # their time begins when they begin
    assert world.redis.hget("t:job:b.2", "e") is None
    assert world.ledger.unclaim(claims) == 0
    assert Sweep(world.settings).round().sent == 1
    assert world.queue() == ["b.2", *ids(4, 7)]
    (again,) = world.ledger.claim(Ref("b", 2, 2), Pool.THREADS, leader.incarnation)
    assert again.number == 2
    states_of(world.ledger)
