"""What most faults happen to, a worker in the middle of its jobs, and the books that must balance afterwards."""

from __future__ import annotations

import pytest

from ledger.jobs import JobRecord, Pool
from tests.waiting import wait_for
from tests.worker_process import Service
from tests.world import World

SLOTS = 4
pools = pytest.mark.parametrize("pool", list(Pool))


def busy(world: World, pool: Pool, *, jobs: int, seconds: float, size: int = 100_000, sweeps: int = 1) -> Service:
    """A worker that has begun to receive a file in each of its slots; what is left of the jobs waits for it.

    Args:
        seconds: that the origin takes for each file.
    """
    world.start(pool, slots=SLOTS, sweeps=sweeps)
    world.submit(pool, [world.paced(f"f{n}", seconds, size) for n in range(jobs)])
    world.running(min(SLOTS, jobs), with_bytes=True)
    return world.service(f"worker-{pool}")


def kill_whenever_it_runs(world: World, pool: Pool, name: str, *, slots: int) -> list[JobRecord]:
    """A job kills the process that runs it, until its batch is finished; the records, that job's first."""
    kills = 0

    def killed() -> bool:
        nonlocal kills
        for record in world.ledger.running("b"):
            worker = world.service(f"worker-{pool}")
            if record.job.filename == name and record.executor and record.executor.pid == worker.pid:
                worker.kill()
                kills += 1
                assert kills <= 10, [each.attempts for each in world.records()]
                world.worker(pool, slots=slots).wait_until_ready()
        return world.batch().finished

    wait_for(killed, seconds=200, every=0.2, what="the batch to finish")
    return sorted(world.records(), key=lambda record: record.job.filename != name)


def all_done(world: World, count: int, batch: str = "b", *, seconds: float = 90) -> list[JobRecord]:
    """Each job is done, by its last attempt and no other."""
    records = world.done(batch, seconds=seconds)
    assert len(records) == count
    for record in records:
        brought = [attempt.kind is None and attempt.reason is None for attempt in record.attempts]
        assert brought == [False] * (len(brought) - 1) + [True], record.attempts
    return records


def all_whole(world: World, count: int) -> list[JobRecord]:
    """Each job is done once, its file is whole, and nothing else is on the disk."""
    records = all_done(world, count)
    world.check_files(records)
    return records
