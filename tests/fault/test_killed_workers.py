"""Workers that are killed, frozen and stopped, in every pool: nothing is lost, nothing is published twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.jobs import FailureKind, JobRecord, JobState, Pool
from tests.waiting import wait_for
from tests.world import World

pytestmark = pytest.mark.timeout(150)
pools = pytest.mark.parametrize("pool", list(Pool))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def all_done(world: World, count: int, *, seconds: float = 60) -> list[JobRecord]:
    """The books after a fault: each job done exactly once, each file whole, nothing else on the disk."""
    records = world.finished(seconds=seconds)
    assert [record.state for record in records] == [JobState.DONE] * count
    for record in records:
        assert [attempt.kind for attempt in record.attempts].count(None) >= 1
        assert record.attempts[-1].kind is None
    world.check_files(records)
    return records


def losses(records: list[JobRecord]) -> int:
    return sum(attempt.kind is FailureKind.LOST for record in records for attempt in record.attempts)


@pools
def test_a_worker_that_is_killed_loses_nothing(world: World, pool: Pool) -> None:
    world.start(pool)
    world.submit(pool, [world.paced(f"f{n}", 3) for n in range(10)])
    world.running(4, with_bytes=True)
    world.service(f"worker-{pool}").kill()
    world.worker(pool, name="second")
    records = all_done(world, 10)
    assert losses(records) >= 4


@pools
def test_two_workers_killed_at_once_lose_nothing(world: World, pool: Pool) -> None:
    world.start(pool)
    world.worker(pool, name="other").wait_until_ready()
    world.submit(pool, [world.paced(f"f{n}", 4) for n in range(12)])
    world.running(8)
    world.service(f"worker-{pool}").kill()
    world.service("worker-other").kill()
    world.worker(pool, name="third")
    assert losses(all_done(world, 12)) >= 8


def test_a_prefork_child_that_is_killed_costs_its_own_job_one_attempt_and_no_lease(tmp_path: Path) -> None:
    with World(tmp_path, lease=60.0) as world:
        one_child_killed(world)


def one_child_killed(world: World) -> None:
    world.start(Pool.PREFORK)
    world.submit(Pool.PREFORK, [world.paced(f"f{n}", 3) for n in range(4)])
    world.running(4, with_bytes=True)
    parent = world.service("worker-prefork")
    os.kill(parent.children()[0], signal.SIGKILL)
    records = all_done(world, 4)
    assert losses(records) == 1
    assert parent.process.poll() is None


@pools
def test_a_worker_frozen_for_longer_than_its_lease_publishes_nothing_when_it_returns(world: World, pool: Pool) -> None:
    world.start(pool)
    world.submit(pool, [world.paced(f"f{n}", 2) for n in range(4)])
    world.running(4, with_bytes=True)
    frozen = world.service(f"worker-{pool}")
    stopped = [frozen.pid, *frozen.children()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    world.worker(pool, name="second")
    wait_for(lambda: losses(world.records()) == 4, seconds=20, what="the frozen worker's jobs to be taken over")
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    records = all_done(world, 4)
    # Whoever finished a job held it: the last attempt follows the one that was lost, by its own claim.
    assert all(record.attempts[0].kind is FailureKind.LOST for record in records)
    # The one that returned is healthy again without a person, under a new incarnation.
    world.service("worker-second").kill()
    world.submit(pool, [world.file(f"again{n}") for n in range(4)], batch="again")
    assert all(record.state is JobState.DONE for record in world.finished("again"))


@pools
def test_a_stop_with_enough_grace_finishes_what_runs_and_repeats_nothing(world: World, pool: Pool) -> None:
    world.start(pool)
    world.submit(pool, [world.paced(f"f{n}", 1.5) for n in range(12)])
    world.running(4, with_bytes=True)
    assert world.service(f"worker-{pool}").terminate() == 0
    finished_by_then = world.batch().count(JobState.DONE)
    assert finished_by_then >= 4
    world.worker(pool, name="second")
    records = all_done(world, 12)
    assert all(len(record.attempts) == 1 for record in records)


@pools
def test_a_stop_with_longer_jobs_hands_them_back_and_the_next_attempt_resumes(world: World, pool: Pool) -> None:
    world.start(pool)
    size = 2_000_000
    world.submit(pool, [world.paced(f"f{n}", 8, size) for n in range(4)])
    world.running(4, with_bytes=True)
    assert world.service(f"worker-{pool}").terminate(seconds=15) == 0
    handed_back = world.records()
    assert {record.state for record in handed_back} == {JobState.QUEUED}
    assert losses(handed_back) == 0
    world.worker(pool, name="second")
    for record in all_done(world, 4):
        first, second = record.attempts
        assert first.bytes > 0
        assert second.bytes < size, "the partial file was not used"
        assert any(note.startswith("resumed from byte") for note in record.notes)


@pools
def test_a_stop_that_turns_into_a_kill_loses_nothing(world: World, pool: Pool) -> None:
    world.start(pool)
    world.submit(pool, [world.paced(f"f{n}", 2) for n in range(12)])
    world.running(4, with_bytes=True)
    stopping = world.service(f"worker-{pool}")
    stopping.send(signal.SIGTERM)
    wait_for(lambda: "shutdown" in stopping.text(), what="the worker to begin its shutdown")
    stopping.kill()
    world.worker(pool, name="second")
    all_done(world, 12)


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
    assert not (world.settings.downloads / poison.path).exists()
