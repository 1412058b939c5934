"""What ended looks ended in Flower, however it ended: heard by Celery's event receiver, kept in Celery's state."""

from __future__ import annotations

import os
import runpy
import signal
import threading
from collections.abc import Iterator
from typing import Self

import pytest
from celery import Celery
from celery.events.receiver import EventReceiver
from celery.events.state import State

from ledger.jobs import JobState, Pool, Ref
from ledger.leases import Leases
from ledger.messages import broker_options
from ledger.settings import Settings
from tests.fault.given import SLOTS, all_done, busy, pools
from tests.waiting import stays, wait_for
from tests.worker_process import ROOT
from tests.world import Begin, World

pytestmark = pytest.mark.timeout(150)

FLOWERS = runpy.run_path(str(ROOT / "deploy/flowerconfig.py"))  # what Flower makes of Celery's states


class Shown:
    """What Flower would show: its state without its pages."""

    def __init__(self, settings: Settings) -> None:
        self.app = Celery("shown", set_as_current=False)
        self.app.conf.update(broker_options(settings))
        self._state = State()
        self._connection = self.app.connection_for_read()
        self._receiver = EventReceiver(self._connection, handlers={"*": self._state.event}, app=self.app)
        self._thread = threading.Thread(target=self._receiver.run, kwargs={"wakeup": False}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join(10)
        self._connection.release()

    def rows(self) -> dict[str, str]:
        """State by the id of the row."""
        return {str(uuid): str(task.state) for uuid, task in list(self._state.tasks.items())}

    def said(self, uuid: str) -> str:
        """What stands in the row's column Result."""
        return str(FLOWERS["format_task"](self._state.tasks[uuid]).result)

    def online(self) -> set[str]:
        """Names of workers without their host."""
        return {name.partition("@")[0] for name, worker in list(self._state.workers.items()) if worker.alive}

    def become(self, rows: dict[str, str]) -> None:
        try:
            wait_for(lambda: self.rows() == rows, seconds=30)
        except AssertionError:
            raise AssertionError(f"expected {rows}, got {self.rows()}") from None

    def lose(self, name: str) -> None:
        """Wait until the worker is offline and runs nothing."""
        (worker,) = [each for each in list(self._state.workers.values()) if each.hostname.startswith(f"{name}@")]
        wait_for(lambda: not worker.alive and worker.active == 0, what=f"{name} to be gone")


@pytest.fixture
def shown(world: World) -> Iterator[Shown]:
    with Shown(world.settings) as shown:
        yield shown


def rows(state: str, count: int = SLOTS) -> dict[str, str]:
    return {f"b.{n}": state for n in range(count)}


@pools
@pytest.mark.parametrize("remote", [False, True], ids=["SIGTERM", "remote shutdown"])
def test_jobs_that_end_during_a_stop_have_ended(world: World, shown: Shown, pool: Pool, remote: bool) -> None:
    worker = busy(world, pool, jobs=SLOTS, seconds=1.5)
    wait_for(lambda: str(pool) in shown.online(), what="the worker to be seen")
    if remote:
        shown.app.control.shutdown()
        assert worker.wait(40) == 0
    else:
        assert worker.terminate() == 0
    all_done(world, SLOTS)
    shown.become(rows("SUCCESS"))
    shown.lose(str(pool))
    stays(lambda: str(pool) not in shown.online(), seconds=1.0, what="the worker that stopped is gone")


@pools
def test_jobs_that_a_stop_hands_back_are_not_running(world: World, shown: Shown, pool: Pool) -> None:
    assert busy(world, pool, jobs=SLOTS, seconds=30).terminate() == 0
    assert {record.state for record in world.records()} == {JobState.QUEUED}
    shown.become(rows("RETRY"))
    shown.lose(str(pool))


@pools
def test_jobs_of_a_killed_worker_are_not_running_until_they_run_again(world: World, shown: Shown, pool: Pool) -> None:
    busy(world, pool, jobs=SLOTS, seconds=3).kill()
    shown.become(rows("RETRY"))
    assert "died" in shown.said("b.0")
    shown.lose(str(pool))
    world.worker(pool, name="second")
    all_done(world, SLOTS)
    shown.become(rows("SUCCESS"))
    assert shown.online() == {"second"}


@pools
def test_the_row_of_a_chunk_whose_worker_was_killed_is_not_running(world: World, shown: Shown, pool: Pool) -> None:
    world.start(pool, slots=1)
    world.submit(pool, [world.paced(f"f{n}", 1.0 + 9 * (n > 3)) for n in range(8)], carried=8)
    wait_for(lambda: world.batch().count(JobState.DONE) == 4, what="half of the chunk to be done")
    world.service(f"worker-{pool}").kill()
    shown.become({"b.0-7": "RETRY"})
    assert shown.said("b.0-7").endswith("jobs queued again: 4")
    world.worker(pool, name="second")
    all_done(world, 8)
    shown.become({"b.0-7": "RETRY"} | {f"b.{n}": "SUCCESS" for n in range(4, 8)})


def test_the_job_of_a_killed_prefork_child_waits_and_its_worker_is_there(world: World, shown: Shown) -> None:
    worker = busy(world, Pool.PREFORK, jobs=1, seconds=3)
    wait_for(lambda: shown.rows() == rows("STARTED", 1), what="the job to run")
    world.ledger.redis.sadd(world.ledger.keys.paused, Pool.PREFORK)  # so that it does not run again at once
    for child in worker.children():
        os.kill(child, signal.SIGKILL)
    shown.become(rows("RETRY", 1))
    wait_for(lambda: shown.online() == {"prefork"}, what="the worker to be there")


@pools
@pytest.mark.parametrize("cancelled", [False, True], ids=["poison", "cancelled"])
def test_a_job_that_the_sweep_ends_has_ended(begin: Begin, pool: Pool, cancelled: bool) -> None:
    """Given a job that may lose its process only once, or whose worker is killed before it sees the cancel."""
    world = begin(max_losses=1)
    with Shown(world.settings) as shown:
        worker = busy(world, pool, jobs=1, seconds=30)
        for pid in (worker.pid, *worker.children()):
            os.kill(pid, signal.SIGSTOP)
        if cancelled:
            world.ledger.cancel(Ref("b", 0, 0))
        elif pool is Pool.PREFORK:  # a whole worker that died counts little
            world.ledger.redis.hset(world.ledger.keys.job("b.0"), "y", 3)
            world.ledger.redis.hset("t:trial:prefork", "b.0", "")
        worker.kill()
        shown.become(rows("REVOKED" if cancelled else "FAILURE", 1))
        assert shown.said("b.0").startswith("cancelled" if cancelled else "failed: poison: ")
        shown.lose(str(pool))


@pools
def test_jobs_that_end_while_the_worker_reconnects_have_ended(world: World, shown: Shown, pool: Pool) -> None:
    busy(world, pool, jobs=SLOTS, seconds=8)
    world.valkey.kill()
    world.valkey.restart()
    all_done(world, SLOTS)
    shown.become(rows("SUCCESS"))


def test_a_job_whose_time_is_used_up_while_it_waits_has_ended(begin: Begin) -> None:
    world = begin(wait_in_job=0, retry_base=4, retry_cap=4, deadline=12)
    with Shown(world.settings) as shown:
        world.start(Pool.THREADS)
        world.submit(Pool.THREADS, [world.file("f", path="faults/status/503")])
        shown.become(rows("RETRY", 1))
        world.ledger.redis.sadd(world.ledger.keys.paused, Pool.THREADS)
        shown.become(rows("FAILURE", 1))
        assert "deadline: " in shown.said("b.0")
        assert shown.online() == {"threads"}


@pools
def test_a_job_that_comes_while_redis_takes_no_connection_is_not_shown_as_failed_and_comes_soon(
    world: World, pool: Pool, shown: Shown
) -> None:
    """Given a worker whose lease was lost: its next job needs a new one, and a connection for it."""
    world.start(pool, slots=SLOTS)
    wait_for(lambda: shown.online() == {pool.value}, what="the worker to be seen")
    leases = Leases(world.ledger.redis, world.settings.key_prefix, 0.0)
    processes = SLOTS if pool is Pool.PREFORK else 1
    wait_for(lambda: len(leases.known()) == processes, what="its leases")
    for lease in leases.known():
        leases.end(lease.incarnation)
    wait_for(lambda: not leases.known(), what="it to be lost")
    other = next(each for each in Pool if each is not pool)
    with world.valkey.client() as redis:
        redis.ping()
        world.submit(other, [world.file("other")], batch="other")  # so our own connections are fresh
        redis.config_set("maxclients", 1)
        world.submit(pool, [world.file("f")])
        wait_for(lambda: not redis.llen(world.ledger.keys.queue(pool)), what="the worker to take the message")
        stays(lambda: shown.rows().get("b.0") != "FAILURE", seconds=1.5, what="no failure to be shown")
        redis.config_set("maxclients", 10_000)
        (record,) = world.finished(seconds=5)
    assert (record.state, len(record.attempts)) == (JobState.DONE, 1)
    wait_for(lambda: shown.rows()["b.0"] == "SUCCESS", what="the row to say so")
