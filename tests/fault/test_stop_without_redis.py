"""A worker that is told to stop while Redis is gone: nobody it could ask, nobody it could tell, and still it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.jobs import JobState, Pool
from tests.waiting import wait_for
from tests.world import World

pytestmark = pytest.mark.timeout(150)
pools = pytest.mark.parametrize("pool", list(Pool))

GRACE = 3.0  # seconds
REDIS_TIMEOUT = 2.0  # seconds


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, grace=GRACE, redis_timeout=REDIS_TIMEOUT) as world:
        yield world


def ends_once(world: World, pool: Pool, count: int) -> None:
    """With Redis back and another worker, each job has one end, and each file is whole."""
    world.worker(pool, slots=8, name="second")
    records = world.finished(seconds=60)
    assert [record.state for record in records] == [JobState.DONE] * count
    for record in records:
        assert sum(attempt.kind is None and attempt.reason is None for attempt in record.attempts) == 1
    world.check_files(records)


@pools
def test_it_ends_within_its_grace_and_its_jobs_end_once_when_redis_is_back(world: World, pool: Pool) -> None:
    # Given jobs that run for longer than the grace, others in the worker's hands, and more on the queue
    world.start(pool)
    world.submit(pool, [world.paced(f"f{n}", 8) for n in range(10)])
    world.running(4, with_bytes=True)
    service = world.service(f"worker-{pool}")
    world.valkey.kill()
    # If the worker is told to stop, I expect it to end by itself, in order
    begun = time.monotonic()
    assert service.terminate(GRACE + 10) == 0
    assert time.monotonic() - begun > GRACE - 0.5, "it did not use its grace"
    assert "TrackedRawGreenlet" not in service.text()
    world.valkey.restart()
    ends_once(world, pool, 10)


@pools
def test_it_ends_also_when_redis_is_there_and_does_not_answer(world: World, pool: Pool) -> None:
    world.start(pool)
    world.submit(pool, [world.paced(f"f{n}", 8) for n in range(6)])
    world.running(4, with_bytes=True)
    world.valkey.freeze()
    try:
        assert (
            world.service(f"worker-{pool}").terminate(GRACE + 15 * REDIS_TIMEOUT) == 0
        )  # some calls, not one per message
    finally:
        world.valkey.thaw()
    ends_once(world, pool, 6)


@pools
def test_a_running_download_does_not_wait_for_redis(world: World, pool: Pool) -> None:
    """Neither its progress nor its events: the file is whole on the disk when Redis comes back."""
    world.start(pool)
    world.submit(pool, [world.paced(f"f{n}", 4) for n in range(4)])
    world.running(4, with_bytes=True)
    world.valkey.kill()
    wait_for(
        lambda: [file.stat().st_size for file in world.files() if file.suffix == ".part"] == [100_000] * 4,
        seconds=10,
        what="all files to be there",
    )
    world.valkey.restart()
    records = world.finished()
    assert [len(record.attempts) for record in records] == [1] * 4
    world.check_files(records)
