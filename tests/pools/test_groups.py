"""Messages of many jobs on real workers; what they share with single jobs is in ``tests/service/test_workers.py``."""

from __future__ import annotations

import shutil

from ledger.jobs import JobState, Pool, Ref
from tests.waiting import wait_for
from tests.world import Begin, World, lasting, pools

running = lasting(read_timeout=3.0, chunk_parallel=8)


@pools
def test_a_folder_that_is_removed_in_the_middle_fails_no_job(running: World, batch: str, pool: Pool) -> None:
    """Given a batch of one message and one of many, whose folders vanish again and again, I expect each job done."""
    names = [f"{how}-{batch[-50:]}" for how in ("one", "many")]
    for name, carried in zip(names, (200, 1), strict=True):
        running.submit(pool, [running.paced(f"f/{n}.bin", 0.2, 2000) for n in range(200)], batch=name, carried=carried)

    def over() -> bool:
        for name in names:
            shutil.rmtree(running.settings.downloads / name, ignore_errors=True)
        return all(running.batch(name).finished for name in names)

    wait_for(over, seconds=90, every=0.05, what="both batches to finish")
    for name in names:
        running.done(name)


@pools
def test_a_cancel_stops_what_runs_and_what_has_not_begun(running: World, batch: str, pool: Pool) -> None:
    jobs = [running.file("first.bin"), *(running.paced(f"{n}.bin", 60) for n in range(20))]
    running.submit(pool, jobs, batch=batch, carried=len(jobs))
    running.running(20, batch=batch)
    wait_for(lambda: running.records(batch)[0].state is JobState.DONE, seconds=20, what="the first to be done")
    running.ledger.cancel(Ref(batch, 0, 20))
    states = [record.state for record in running.finished(batch, seconds=20)]
    assert states == [JobState.DONE] + [JobState.CANCELLED] * 20
    assert [path.name for path in (running.settings.downloads / batch).iterdir()] == ["first.bin"]


@pools
def test_a_worker_that_is_killed_or_stopped_loses_nothing(begin: Begin, pool: Pool) -> None:
    world = begin(grace=1.0, chunk_parallel=8).start(pool, slots=1)
    jobs = [world.paced(f"{n}.bin", 3, 600_000) for n in range(12)]
    world.submit(pool, jobs, carried=len(jobs))
    world.running(8, with_bytes=True)
    world.service(f"worker-{pool}").kill()
    second = world.worker(pool, slots=4, name="second").wait_until_ready()
    world.running(4, with_bytes=True)
    world.submit(pool, [world.paced(f"x{n}.bin", 3) for n in range(12)], batch="x", carried=12)
    world.running(1, batch="x")
    assert second.terminate() == 0
    world.worker(pool, slots=12, name="third").wait_until_ready()
    for batch in ("b", "x"):
        records = world.done(batch, seconds=90)
        assert all(record.last and record.last.kind is None for record in records)
    world.check_files([*world.records("b"), *world.records("x")])
