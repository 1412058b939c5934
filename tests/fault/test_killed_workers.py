"""Workers that are killed, frozen and stopped, in every pool: nothing is lost, nothing is published twice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ledger.jobs import FailureKind, JobRecord, JobState, Pool
from tests.fault.given import all_whole, busy, pools
from tests.waiting import wait_for
from tests.worker_process import Service
from tests.world import World

pytestmark = pytest.mark.timeout(150)


def losses(records: list[JobRecord]) -> int:
    return sum(attempt.kind is FailureKind.LOST for record in records for attempt in record.attempts)


@pools
def test_two_workers_killed_at_once_lose_nothing(world: World, pool: Pool) -> None:
    world.start(pool)
    world.worker(pool, name="other").wait_until_ready()
    world.submit(pool, [world.paced(f"f{n}", 4) for n in range(12)])
    world.running(8)
    world.service(f"worker-{pool}").kill()
    world.service("worker-other").kill()
    world.worker(pool, name="third")
    assert losses(all_whole(world, 12)) >= 8


def test_a_prefork_child_that_is_killed_costs_its_own_job_one_attempt_and_no_lease(tmp_path: Path) -> None:
    with World(tmp_path, lease=60.0) as world:
        parent = busy(world, Pool.PREFORK, jobs=4, seconds=3)
        os.kill(parent.children()[0], signal.SIGKILL)
        assert losses(all_whole(world, 4)) == 1
        assert parent.running


def starting(world: World) -> Service:
    """A prefork worker that is connected and whose loop does not run yet."""
    parent = world.worker(Pool.PREFORK, slots=4)
    wait_for(lambda: "Connected to" in parent.text() and len(parent.children()) == 4, what="the children to begin")
    return parent


def works(world: World, parent: Service) -> None:
    """It has as many children as it should, and they run jobs."""
    parent.wait_until_ready()
    assert "mingle" not in parent.text(), "a worker asks no other before it begins"
    wait_for(lambda: len(parent.children()) == 4, what="killed children to be replaced")
    world.submit(Pool.PREFORK, [world.paced(f"f{n}", 1) for n in range(8)])
    all_whole(world, 8)


@pytest.mark.parametrize("killed", [1, 4])
def test_prefork_children_killed_before_their_worker_is_ready_are_replaced(world: World, killed: int) -> None:
    world.start()
    parent = starting(world)
    for child in parent.children()[:killed]:
        os.kill(child, signal.SIGKILL)
    works(world, parent)


@pools
def test_a_worker_frozen_for_longer_than_its_lease_publishes_nothing_when_it_returns(world: World, pool: Pool) -> None:
    frozen = busy(world, pool, jobs=4, seconds=2)
    stopped = [frozen.pid, *frozen.children()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    world.worker(pool, name="second")
    wait_for(lambda: losses(world.records()) == 4, seconds=20, what="the frozen worker's jobs to be taken over")
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    records = all_whole(world, 4)
    # Whoever finished a job held it: the last attempt follows the one that was lost, by its own claim.
    assert all(record.attempts[0].kind is FailureKind.LOST for record in records)
    # The one that returned is healthy again without a person, under a new incarnation.
    world.service("worker-second").kill()
    world.submit(pool, [world.file(f"again{n}") for n in range(4)], batch="again")
    assert all(record.state is JobState.DONE for record in world.finished("again"))


@pools
def test_a_stop_with_enough_grace_finishes_what_runs_and_repeats_nothing(world: World, pool: Pool) -> None:
    assert busy(world, pool, jobs=12, seconds=1.5).terminate() == 0
    finished_by_then = world.batch().count(JobState.DONE)
    assert finished_by_then >= 4
    world.worker(pool, name="second")
    records = all_whole(world, 12)
    assert all(len(record.attempts) == 1 for record in records)


@pools
def test_a_stop_with_longer_jobs_hands_them_back_and_the_next_attempt_resumes(world: World, pool: Pool) -> None:
    size = 2_000_000
    assert busy(world, pool, jobs=4, seconds=8, size=size).terminate(seconds=15) == 0
    handed_back = world.records()
    assert {record.state for record in handed_back} == {JobState.QUEUED}
    assert losses(handed_back) == 0
    world.worker(pool, name="second")
    for record in all_whole(world, 4):
        first, second = record.attempts
        assert first.bytes > 0
        assert second.bytes < size, "the partial file was not used"
        assert any(note.startswith("resumed from byte") for note in record.notes)


@pools
def test_a_stop_that_turns_into_a_kill_loses_nothing(world: World, pool: Pool) -> None:
    stopping = busy(world, pool, jobs=12, seconds=2)
    stopping.signal(signal.SIGTERM)
    wait_for(lambda: "shutdown" in stopping.text(), what="the worker to begin its shutdown")
    stopping.kill()
    world.worker(pool, name="second")
    all_whole(world, 12)


def test_a_job_that_kills_its_process_again_and_again_ends_as_poison(world: World) -> None:
    world.start(Pool.PREFORK, slots=1)
    world.submit(Pool.PREFORK, [world.paced("poison", 30), world.file("innocent")])

    def killed_until_final() -> bool:
        for record in world.ledger.running("b"):
            if record.job.filename == "poison":
                for child in world.service("worker-prefork").children():
                    os.kill(child, signal.SIGKILL)
        return world.batch().finished

    wait_for(killed_until_final, seconds=90, every=0.3, what="the batch to finish")
    poison, innocent = world.records()
    assert (poison.state, innocent.state) == (JobState.FAILED, JobState.DONE)
    assert poison.attempts[-1].kind is FailureKind.POISON
    counted, company = world.ledger.redis.hmget(world.ledger.keys.job("b.0"), ["l", "y"])
    assert (counted, company) == (str(world.settings.max_losses), None), "a child's death was not told"
    assert not (world.settings.downloads / poison.path).exists()
