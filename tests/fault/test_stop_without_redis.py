"""A worker that is told to stop while Redis is gone: nobody it could ask, nobody it could tell, and still it ends."""

from __future__ import annotations

import time

import pytest

from ledger.jobs import Pool
from tests.fault.given import SLOTS, all_whole, busy, pools
from tests.waiting import wait_for
from tests.world import World

pytestmark = pytest.mark.timeout(150)


@pools
def test_it_ends_within_its_grace_and_its_jobs_end_once_when_redis_is_back(world: World, pool: Pool) -> None:
    # Given jobs that run for longer than the grace, others in the worker's hands, and more on the queue
    service = busy(world, pool, jobs=10, seconds=8)
    world.valkey.kill()
    # If the worker is told to stop, I expect it to end by itself, in order
    begun = time.monotonic()
    assert service.terminate(world.settings.grace + 10) == 0
    assert time.monotonic() - begun > world.settings.grace - 0.5, "it did not use its grace"
    assert "TrackedRawGreenlet" not in service.text()
    # ... and what it had received to be there for the next one
    world.valkey.restart()
    world.worker(pool, slots=8, name="second")
    notes = [note for record in all_whole(world, 10) for note in record.notes]
    assert sum(note.startswith("resumed from byte") for note in notes) == SLOTS


@pools
def test_it_ends_also_when_redis_is_there_and_does_not_answer(world: World, pool: Pool) -> None:
    service = busy(world, pool, jobs=6, seconds=8)
    calls = 10  # of Redis: some, not one per message and event
    world.valkey.freeze()
    try:
        assert service.terminate(world.settings.grace + calls * world.settings.redis_timeout) == 0
    finally:
        world.valkey.thaw()
    world.worker(pool, slots=8, name="second")
    all_whole(world, 6)


@pools
def test_a_running_download_does_not_wait_for_redis(world: World, pool: Pool) -> None:
    """Neither its progress nor its events: the file is whole on the disk when Redis comes back."""
    busy(world, pool, jobs=4, seconds=4)
    world.valkey.kill()
    wait_for(
        lambda: [file.stat().st_size for file in world.files() if file.suffix == ".part"] == [100_000] * 4,
        seconds=10,
        what="all files to be there",
    )
    world.valkey.restart()
    assert [len(record.attempts) for record in all_whole(world, 4)] == [1] * 4
