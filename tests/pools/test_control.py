"""Pausing pools and draining workers, with real workers of all three pools."""

from __future__ import annotations

import re

import pytest

from ledger.jobs import TASK_NAME, FailureKind, JobState, Pool, Ref
from ledger.sweep import Sweep
from ledger.switches import Switches
from tests.producer_process import run
from tests.waiting import stays, wait_for
from tests.world import World, pools

pytestmark = pytest.mark.timeout(150)


def consumed(world: World) -> dict[str, list[str]]:
    """What each worker says that it consumes, as Flower asks it."""
    with world.celery() as app, app.connection_for_write() as connection:  # no pool's: it may know a killed Redis
        answers = app.control.inspect(timeout=1.0, connection=connection).active_queues() or {}
    return {name.partition("@")[0]: [queue["name"] for queue in queues] for name, queues in answers.items()}


def in_service(world: World, pool: Pool, *, slots: int = 4) -> None:
    world.start(pool, slots=slots)
    wait_for(lambda: consumed(world) == {pool.value: [pool.queue]}, what="the worker to hear of remote control")


def nothing_begins(world: World, batch: str = "b", *, seconds: float) -> None:
    """The state stays as it is for that long, by many looks."""
    before = world.batch(batch).counts
    stays(lambda: world.batch(batch).counts == before, seconds=seconds, what=f"{before}")


def exactly_once(world: World, batch: str, count: int) -> None:
    records = world.done(batch)
    assert [len(record.attempts) for record in records] == [1] * count


@pools
def test_a_paused_pool_finishes_what_runs_begins_nothing_and_goes_on_when_it_is_resumed(
    world: World, pool: Pool
) -> None:
    world.start(pool, slots=2)
    world.submit(pool, [world.paced(f"f{n}", 1) for n in range(12)])
    world.running(2)
    assert run(world.settings, "pause", pool.value).out == f"{pool}: paused\n"
    wait_for(lambda: not world.ledger.running("b"), what="what runs to end")
    assert world.batch().count(JobState.DONE) <= 4
    wait_for(lambda: consumed(world) == {pool.value: []}, what="the worker to stop consuming")
    nothing_begins(world, seconds=2 * world.settings.message_grace)
    assert f"{pool} is paused" in run(world.settings, "status").err
    assert run(world.settings, "status", "--workers").out.endswith("  0 running  paused\n")
    assert run(world.settings, "resume", pool.value).out == f"{pool}: resumed\n"
    exactly_once(world, "b", 12)
    wait_for(lambda: consumed(world) == {pool.value: [pool.queue]}, what="the worker to say what it consumes")


@pools
def test_a_worker_that_starts_while_its_pool_is_paused_takes_nothing_until_it_is_resumed(
    world: World, pool: Pool
) -> None:
    Switches(world.ledger).pause(pool)
    world.start(pool)
    world.submit(pool, [world.file(f"f{n}") for n in range(4)])
    wait_for(lambda: consumed(world) == {pool.value: []}, what="the worker to say that it consumes nothing")
    nothing_begins(world, seconds=2)
    assert world.ledger.redis.llen(world.ledger.keys.queue(pool)) == 4
    world.valkey.kill()  # the flag outlives Redis, and the reconnect of the worker
    world.valkey.restart()
    wait_for(lambda: consumed(world) == {pool.value: []}, what="the worker to be back")
    nothing_begins(world, seconds=2)
    Switches(world.ledger).resume(pool)
    exactly_once(world, "b", 4)


@pools
def test_a_drained_worker_finishes_what_it_runs_and_the_others_do_the_rest(world: World, pool: Pool) -> None:
    world.start(pool, slots=2)
    world.submit(pool, [world.paced(f"first{n}", 2) for n in range(4)], batch="first")
    world.running(2, batch="first")
    (drained,) = [worker.name for worker in Switches(world.ledger).workers()]
    assert run(world.settings, "drain", drained).out == f"{drained}: drained\n"
    world.worker(pool, slots=2, name="other").wait_until_ready()
    wait_for(lambda: consumed(world) == {pool.value: [], "other": [pool.queue]}, what="it to stop consuming")
    exactly_once(world, "first", 4)
    world.submit(pool, [world.file(f"f{n}") for n in range(20)])
    exactly_once(world, "b", 20)
    assert {record.last.executor.worker for record in world.records() if record.last and record.last.executor} == {
        drained.replace(f"{pool}@", "other@")
    }
    lines = run(world.settings, "status", "--workers").out.splitlines()
    assert [line.endswith("drained") for line in lines] == [line.startswith(f"{pool}@") for line in lines]
    assert len(lines) == 2
    assert run(world.settings, "undrain", drained).code == 0
    world.service("worker-other").terminate()
    world.submit(pool, [world.file(f"f{n}") for n in range(4)], batch="again")
    exactly_once(world, "again", 4)


def test_whoever_is_not_alive_cannot_be_drained(world: World) -> None:
    said = run(world.settings, "drain", "nobody@nowhere")
    assert (said.code, said.err) == (
        2,
        "producer: expected the name of a live worker, got 'nobody@nowhere'; alive: none\n",
    )


def test_the_sweep_sends_nothing_for_a_paused_pool_and_everything_afterwards(world: World) -> None:
    sweep = Sweep(world.settings)
    Switches(world.ledger).pause(Pool.THREADS)
    world.submit(Pool.THREADS, [world.file(f"f{n}") for n in range(3)])
    queue = world.ledger.keys.queue(Pool.THREADS)
    assert world.ledger.redis.delete(queue)
    stays(lambda: sweep.round().sent == 0, seconds=2 * world.settings.message_grace, what="no message")
    Switches(world.ledger).resume(Pool.THREADS)
    sent = 0

    def all_sent() -> bool:
        nonlocal sent
        sent += sweep.round().sent
        return sent == 3

    wait_for(all_sent, what="the three messages")
    world.ledger.cancel(Ref("b", 0, 2))


@pools
def test_a_job_past_the_deadline_of_its_batch_fails_although_its_holder_died(world: World, pool: Pool) -> None:
    world.start(pool, slots=2)
    url = f"{world.origin.url}/paced/60/slow?size=100000"
    said = run(world.settings, "submit", "--pool", pool.value, "--name", "b", "--deadline", "6", url, f"{url}0")
    assert said.code == 0
    world.running(2)
    world.service(f"worker-{pool}").kill()
    wait_for(lambda: all(record.attempts for record in world.records()), what="both to be taken over")
    world.worker(pool, slots=1, name="second")  # runs one of them; the other waits for it in vain
    records = world.finished()
    assert [(record.state, record.last.kind) for record in records if record.last] == [
        (JobState.FAILED, FailureKind.DEADLINE)
    ] * 2
    assert all(record.last.finished - record.attempts[0].started < 10 for record in records if record.last)


@pools
def test_by_hand_no_queue_is_cancelled_and_none_is_added(world: World, pool: Pool) -> None:
    """Celery's cancel_consumer would be undone in silence, and its add_consumer run the jobs of another pool."""
    in_service(world, pool)
    other = next(each for each in Pool if each is not pool)
    with world.celery() as app:
        for command, queue in (("cancel_consumer", pool.queue), ("add_consumer", other.queue)):
            ((answer,),) = [
                list(each.values()) for each in app.control.broadcast(command, {"queue": queue}, reply=True)
            ]
            assert f"a {pool} worker serves {pool.queue} and no other queue; got '{queue}'" in answer["error"]
            assert f"`producer pause {pool}`" in answer["error"]
    assert consumed(world) == {pool.value: [pool.queue]}
    world.submit(pool, [world.file("f")])
    exactly_once(world, "b", 1)


@pools
def test_a_pool_is_paused_and_a_worker_drained_when_redis_is_full(world: World, pool: Pool) -> None:
    in_service(world, pool)
    (name,) = [each.name for each in Switches(world.ledger).workers()]
    world.ledger.redis.config_set("maxmemory", "1mb")  # so it cannot answer what it consumes

    def says_last(text: str) -> None:
        log = world.service(f"worker-{pool}")
        wait_for(lambda: re.findall(r"takes (?:no jobs for now|jobs again)", log.text())[-1:] == [text], what=text)

    for begin, end, what in (("pause", "resume", pool.value), ("drain", "undrain", name)):
        assert run(world.settings, begin, what).code == 0
        says_last("takes no jobs for now")
        assert run(world.settings, end, what).code == 0
        says_last("takes jobs again")
    world.ledger.redis.config_set("maxmemory", "0")
    wait_for(lambda: consumed(world) == {pool.value: [pool.queue]}, what="it to say what it consumes")
    world.submit(pool, [world.file("f")])
    exactly_once(world, "b", 1)


@pools
def test_what_a_rate_limit_holds_back_goes_on_when_it_is_lifted(world: World, pool: Pool) -> None:
    in_service(world, pool, slots=8)
    with world.celery() as app:

        def limit(rate: str) -> None:
            assert app.control.rate_limit(TASK_NAME, rate, reply=True, timeout=10, limit=1)

        limit("1/m")
        world.submit(pool, [world.file(f"f{n}") for n in range(5)])
        wait_for(lambda: world.batch().count(JobState.DONE) == 1, what="the first one to be done")
        nothing_begins(world, seconds=2 * world.settings.message_grace)
        stays(
            lambda: not world.ledger.redis.llen(world.ledger.keys.queue(pool)),
            seconds=2 * world.settings.message_grace,
            what="no message to be sent again: the worker has them in hand",
        )
        limit("0")
        wait_for(lambda: world.batch().finished, seconds=5, what="the others to be done")
    exactly_once(world, "b", 5)
