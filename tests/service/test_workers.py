"""Real workers of all three pools, real HTTP: what a job becomes."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.jobs import Attempt, Executor, FailureKind, Job, JobRecord, JobState, Pool
from ledger.leases import Leases
from tests.waiting import wait_for
from tests.world import Begin, World, lasting, pools

carried = pytest.mark.parametrize("carried", [1, 500], ids=["alone", "in a chunk"])


world = lasting(read_timeout=3.0)


def who(attempt: Attempt) -> Executor:
    assert attempt.executor is not None
    return attempt.executor


@pools
@carried
def test_files_arrive_whole_under_their_names_and_the_record_says_who_did_it(
    world: World, batch: str, pool: Pool, carried: int
) -> None:
    jobs = [*(world.file(f"{n}.bin", 97 * n) for n in range(150)), world.file("large.bin", 3_000_000)]
    world.submit(pool, jobs, batch=batch, carried=carried)
    records = world.done(batch)
    for job, record in zip(jobs, records, strict=True):
        (attempt,) = record.attempts
        assert who(attempt).worker.startswith(f"{pool}@")
        assert (who(attempt).greenlet is not None) == (pool is Pool.GEVENT)
        assert record.queued <= attempt.started <= (attempt.first_byte or attempt.started) <= attempt.finished
        assert attempt.first_byte is not None or not job.size
        assert (attempt.bytes, attempt.status) == (job.size, 200)
        assert (record.sha256, record.bytes) == (job.sha256, job.size)
        assert (world.settings.downloads / record.path).stat().st_size == job.size
    assert world.batch(batch).bytes_done[pool] == sum(job.size or 0 for job in jobs)
    said = world.service(f"worker-{pool}").text()
    assert (f"group of job={batch}.0: 151 of 151 done" in said) == (carried > 1)


def test_the_three_pools_are_processes_threads_and_greenlets(world: World, batch: str) -> None:
    ran = {}
    for pool in Pool:
        name = f"{batch[:50]}-{pool}"
        world.submit(pool, [world.paced(f"{n}.bin", 0.8) for n in range(4)], batch=name)
        ran[pool] = [who(record.last) for record in world.finished(name) if record.last]
    pids = {pool: {executor.pid for executor in executors} for pool, executors in ran.items()}
    threads = {pool: {executor.thread for executor in executors} for pool, executors in ran.items()}
    greenlets = {executor.greenlet for executor in ran[Pool.GEVENT]}
    assert len(pids[Pool.PREFORK]) == 4
    assert (len(pids[Pool.THREADS]), len(threads[Pool.THREADS])) == (1, 4)
    assert (len(pids[Pool.GEVENT]), len(threads[Pool.GEVENT]), len(greenlets)) == (1, 1, 4)


@pools
def test_each_line_of_the_log_says_which_file_and_what_runs_it(world: World, batch: str, pool: Pool) -> None:
    """Given two paced jobs at once, I expect their lines to differ in pid, thread or greenlet, as the pool has it."""
    named = replace(world.paced("a.bin", 0.8), filename="a file.bin")
    world.submit(pool, [named, world.paced("b.bin", 0.8)], batch=batch)
    for record, name in zip(world.finished(batch), ("'a file.bin'", "b.bin"), strict=True):
        assert record.last is not None
        by = who(record.last)
        greenlet = f" greenlet={by.greenlet}" if pool is Pool.GEVENT else ""
        line = f"job={record.id} file={name} pool={pool} pid={by.pid} thread={by.thread}{greenlet} claim=1 done: "
        wait_for(lambda line=line: line in world.service(f"worker-{pool}").text(), what=line)  # type: ignore[misc]


@pools
def test_a_record_that_was_tampered_with_writes_nothing_and_asks_for_nothing(
    world: World, batch: str, pool: Pool, tmp_path: Path
) -> None:
    """The producer refuses such names; whoever can write to Redis need not ask it."""
    names = ["../escaped", "a/../../escaped", "..", str(tmp_path / "absolute"), "a\\..\\escaped", "nul\0", "x" * 256]
    before = set(world.folder.rglob("*"))
    world.submit(pool, [Job(f"{world.origin.url}/files/{batch}?size=100", name) for name in names], batch=batch)
    records = world.finished(batch)
    assert [record.state for record in records] == [JobState.FAILED] * len(names)
    assert [[attempt.kind for attempt in record.attempts] for record in records] == [[FailureKind.NAME]] * len(names)
    assert set(world.folder.rglob("*")) == before
    assert not list(tmp_path.iterdir())
    assert not [request for request in world.origin.requests() if batch in str(request)]


@pools
def test_a_batch_folder_that_becomes_a_link_receives_no_file(
    world: World, batch: str, pool: Pool, tmp_path: Path
) -> None:
    """Given a download under way, when its folder turns into a link to elsewhere, then nothing is published there."""
    world.submit(pool, [world.paced("a.bin", 2)], batch=batch)
    world.running(1, batch=batch, with_bytes=True)
    (world.settings.downloads / batch).symlink_to(tmp_path)
    (record,) = world.finished(batch)
    assert record.last is not None
    assert (record.state, record.last.kind) == (JobState.FAILED, FailureKind.NAME)
    assert "is a symbolic link" in str(record.last.reason)
    assert not list(tmp_path.iterdir())
    assert not [path for path in world.files() if path.suffix == ".part"]


@pools
def test_the_log_begins_with_what_happens_and_not_with_celerys_banner(world: World, pool: Pool) -> None:
    worker = world.service(f"worker-{pool}")
    wait_for(lambda: "ready." in worker.text(), what="its log to say so")
    assert "[tasks]" not in worker.text()


@pools
@carried
def test_a_running_job_says_how_far_it_is_and_who_runs_it(world: World, batch: str, pool: Pool, carried: int) -> None:
    jobs = [world.paced("slow.bin", 4, size=400_000), world.file("quick.bin")]
    world.submit(pool, jobs, batch=batch, carried=carried)

    def half_way() -> JobRecord | None:
        (record,) = world.ledger.read([f"{batch}.0"])
        running = record.state is JobState.RUNNING and record.total == 400_000 and 0 < record.bytes < 400_000
        return record if running else None

    seen = wait_for(half_way, what="progress in the record")
    record, _ = world.finished(batch)
    assert record.state is JobState.DONE
    assert record.last
    assert seen.executor == record.last.executor is not None


def test_the_sweep_warns_of_nothing_at_a_first_start_and_takes_nothing_over_at_a_clean_stop(begin: Begin) -> None:
    world = begin().start(*Pool, slots=2)
    for pool in Pool:
        world.submit(pool, [world.file(f"{n}.bin") for n in range(5)], batch=str(pool))
        world.finished(str(pool))
    workers = [world.service(f"worker-{pool}") for pool in Pool]
    for worker in workers:
        worker.signal(signal.SIGTERM)
    assert [worker.wait(40) for worker in workers] == [0, 0, 0]
    leases = Leases(world.ledger.redis, world.settings.key_prefix, 1.0)
    wait_for(lambda: leases.known() == [], what="the sweep to see that all processes ended")
    said = world.service("sweep").text()
    assert [line for line in said.splitlines() if "took over" in line or "INFO" not in line] == []
