"""Messages of many jobs on real workers: each has its own record, file and end, whatever becomes of its neighbours."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.jobs import FailureKind, Job, JobState, Pool, Ref
from tests.waiting import wait_for
from tests.world import World

pools = pytest.mark.parametrize("pool", list(Pool))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world"), read_timeout=3.0, chunk_parallel=8) as world:
        yield world.start(*Pool)


def log_of(world: World, pool: Pool) -> str:
    return world.service(f"worker-{pool}").text()


@pools
def test_every_job_has_its_own_record_and_file(running: World, batch: str, pool: Pool) -> None:
    jobs = [running.file(f"{n}.bin", 97 * n) for n in range(150)] + [running.file("large.bin", 3_000_000)]
    running.submit_grouped(pool, jobs, batch=batch)
    records = running.finished(batch)
    assert {record.state for record in records} == {JobState.DONE}
    for job, record in zip(jobs, records, strict=True):
        assert len(record.attempts) == 1
        attempt = record.attempts[0]
        assert attempt.executor is not None
        assert attempt.executor.worker.startswith(f"{pool}@")
        assert (attempt.executor.greenlet is not None) == (pool is Pool.GEVENT)
        assert attempt.first_byte is not None or not job.size
        assert (attempt.bytes, attempt.status) == (job.size, 200)
        assert (record.sha256, record.bytes) == (job.sha256, job.size)
        assert (running.settings.downloads / record.path).stat().st_size == job.size
    assert running.batch(batch).bytes_done[pool] == sum(job.size or 0 for job in jobs)
    assert f"group of job={batch}.0: 151 of 151 done" in log_of(running, pool)


@pools
def test_each_failure_has_its_kind_and_good_neighbours_are_not_harmed(running: World, batch: str, pool: Pool) -> None:
    url = running.origin.url
    bad = {
        FailureKind.STATUS: Job(f"{url}/faults/status/404", "missing"),
        FailureKind.DIGEST: Job(f"{url}/files/x?size=100", "wrong", sha256="00" * 32),
        FailureKind.SIZE: Job(f"{url}/files/x?size=100", "long", size=99),
        FailureKind.REFUSED: Job("http://169.254.169.254/latest/", "metadata"),
        FailureKind.REDIRECT: Job(f"{url}/faults/redirect-loop", "loop"),
        FailureKind.EMPTY: Job(f"{url}/faults/empty-no-length", "empty"),
    }
    good = [running.file(f"{n}.bin") for n in range(20)]
    flaky = Job(f"{url}/faults/flaky/503?key={batch}&size=5000", "flaky")
    cut = Job(f"{url}/faults/resume?key={batch}-r&size=300000", "cut")
    surplus = Job(f"{url}/faults/wrong-length-short?size=5000", "surplus")
    running.submit_grouped(pool, [*bad.values(), *good, flaky, cut, surplus], batch=batch)
    records = {record.job.filename: record for record in running.finished(batch)}
    for kind, job in bad.items():
        last = records[job.filename].last
        assert last is not None
        assert (records[job.filename].state, last.kind) == (JobState.FAILED, kind)
        assert len(records[job.filename].attempts) == 1
    assert all(records[job.filename].state is JobState.DONE for job in good)
    assert [each.kind for each in records["flaky"].attempts] == [FailureKind.SERVER, None]
    assert [each.kind for each in records["cut"].attempts] == [FailureKind.TRUNCATED, None]
    assert any(note.startswith("resumed from byte") for note in records["cut"].notes)
    assert {each.kind for each in records["surplus"].attempts} == {FailureKind.PROTOCOL}
    found = sorted(path.name for path in (running.settings.downloads / batch).iterdir())
    assert found == sorted([*(job.filename for job in good), "flaky", "cut"])


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
        records = running.records(name)
        assert Counter(record.state for record in records) == {JobState.DONE: 200}, [r.last for r in records if r.last]


@pools
def test_a_cancel_stops_what_runs_and_what_has_not_begun(running: World, batch: str, pool: Pool) -> None:
    jobs = [running.file("first.bin"), *(running.paced(f"{n}.bin", 60) for n in range(20))]
    running.submit_grouped(pool, jobs, batch=batch)
    running.running(20, batch=batch)
    wait_for(lambda: running.records(batch)[0].state is JobState.DONE, seconds=20, what="the first to be done")
    running.ledger.cancel(Ref(batch, 0, 20))
    states = [record.state for record in running.finished(batch, seconds=20)]
    assert states == [JobState.DONE] + [JobState.CANCELLED] * 20
    assert [path.name for path in (running.settings.downloads / batch).iterdir()] == ["first.bin"]


@pools
def test_progress_of_a_long_one_is_seen(running: World, batch: str, pool: Pool) -> None:
    running.submit_grouped(pool, [running.paced("a.bin", 4, 1_000_000), running.file("b.bin")], batch=batch)
    seen = running.running(1, batch=batch, with_bytes=True)
    assert 0 < seen[0].bytes < 1_000_000
    assert seen[0].total == 1_000_000
    assert {record.state for record in running.finished(batch)} == {JobState.DONE}


@pools
def test_a_worker_that_is_killed_or_stopped_loses_nothing(tmp_path: Path, pool: Pool) -> None:
    with World(tmp_path, grace=1.0, chunk_parallel=8) as world:
        world.start(pool, slots=1)
        jobs = [world.paced(f"{n}.bin", 3, 600_000) for n in range(12)]
        world.submit_grouped(pool, jobs)
        world.running(8, with_bytes=True)
        world.service(f"worker-{pool}").kill()
        second = world.worker(pool, slots=4, name="second").wait_until_ready()
        world.running(4, with_bytes=True)
        world.submit_grouped(pool, [world.paced(f"x{n}.bin", 3) for n in range(12)], batch="x")
        world.running(1, batch="x")
        assert second.terminate() == 0
        world.worker(pool, slots=12, name="third").wait_until_ready()
        for batch in ("b", "x"):
            records = world.finished(batch, seconds=90)
            assert {record.state for record in records} == {JobState.DONE}
            assert all(record.last and record.last.kind is None for record in records)
        world.check_files([*world.records("b"), *world.records("x")])


@pools
def test_a_frozen_worker_that_lost_its_lease_publishes_nothing_twice(tmp_path: Path, pool: Pool) -> None:
    with World(tmp_path, chunk_parallel=8) as world:
        world.start(pool, slots=1)
        jobs = [world.paced(f"{n}.bin", 4, 200_000) for n in range(8)]
        world.submit_grouped(pool, jobs)
        world.running(8, with_bytes=True)
        frozen = world.service(f"worker-{pool}")
        pids = [frozen.pid, *frozen.children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        world.worker(pool, slots=8, name="second").wait_until_ready()
        records = world.finished("b", seconds=60)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: "lost:" in frozen.text(), seconds=30, what="the frozen worker to see that it lost its jobs")
        assert {record.state for record in records} == {JobState.DONE}
        assert all(record.last and record.last.executor for record in records)
        world.check_files(world.records("b"))
