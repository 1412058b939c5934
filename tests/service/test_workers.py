"""Real workers of all three pools, real HTTP: what a job becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ledger.jobs import Attempt, Executor, FailureKind, Job, JobRecord, JobState, Pool, Ref
from ledger.leases import Leases
from tests.waiting import wait_for
from tests.worker_process import Service
from tests.world import World

pools = pytest.mark.parametrize("pool", list(Pool))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world"), read_timeout=3.0) as world:
        yield world.start(*Pool)


@pytest.fixture
def world(running: World) -> World:
    """The running world; each test uses a batch of its own."""
    return running


def who(attempt: Attempt) -> Executor:
    assert attempt.executor is not None
    return attempt.executor


@pools
def test_files_arrive_whole_under_their_names_and_the_record_says_who_did_it(
    world: World, batch: str, pool: Pool
) -> None:
    jobs = [world.file(f"{pool}-{n}.bin", 1000 * n) for n in range(1, 20)]
    world.submit(pool, jobs, batch=batch)
    records = world.finished(batch)
    assert [record.state for record in records] == [JobState.DONE] * 19
    for job, record in zip(jobs, records, strict=True):
        attempt = record.last
        assert attempt is not None
        assert attempt.executor is not None
        assert attempt.first_byte is not None
        assert attempt.executor.worker.startswith(f"{pool}@")
        assert (attempt.executor.greenlet is not None) == (pool is Pool.GEVENT)
        assert record.queued <= attempt.started <= attempt.first_byte <= attempt.finished
        assert (record.sha256, record.bytes) == (job.sha256, job.size)
        assert (world.settings.downloads / record.path).stat().st_size == job.size


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
        wait_for(partial(contains, world.service(f"worker-{pool}"), line), what=line)


def contains(service: Service, line: str) -> bool:
    return line in service.text()


@pools
def test_a_failure_says_its_kind_and_leaves_no_file(world: World, batch: str, pool: Pool) -> None:
    url = world.origin.url
    world.submit(
        pool,
        [
            Job(f"{url}/faults/status/404", "missing"),
            Job(f"{url}/files/x?size=100", "wrong", sha256="00" * 32),
            Job(f"{url}/files/x?size=100", "long", size=99),
            Job("http://169.254.169.254/latest/", "metadata"),
            Job(f"{url}/faults/cut-body?name=a&size=50000", "cut"),
        ],
        batch=batch,
    )
    records = world.finished(batch)
    kinds = [record.last.kind for record in records if record.last]
    assert kinds == [
        FailureKind.STATUS,
        FailureKind.DIGEST,
        FailureKind.SIZE,
        FailureKind.REFUSED,
        FailureKind.TRUNCATED,
    ]
    assert all(record.state is JobState.FAILED for record in records)
    assert len(records[4].attempts) == world.settings.max_attempts
    assert not [path for path in world.files() if batch in str(path)]


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
def test_a_server_that_recovers_costs_attempts_and_not_the_job(world: World, batch: str, pool: Pool) -> None:
    world.submit(
        pool, [Job(f"{world.origin.url}/faults/flaky/503?times=2&key={batch}&name=f&size=999", "f")], batch=batch
    )
    (record,) = world.finished(batch)
    assert record.state is JobState.DONE
    assert [attempt.kind for attempt in record.attempts] == [FailureKind.SERVER, FailureKind.SERVER, None]


@pools
def test_a_cancel_reaches_a_running_download(world: World, batch: str, pool: Pool) -> None:
    world.submit(pool, [world.paced("slow.bin", 60), world.file("quick.bin")], batch=batch)
    world.running(1, batch=batch, with_bytes=True)
    assert world.ledger.cancel(Ref(batch, 0, 1)) in [(0, 1), (0, 2)]
    slow, quick = world.finished(batch, seconds=5)
    assert (slow.state, quick.state) == (JobState.CANCELLED, JobState.DONE)
    assert not [path for path in world.files() if "slow.bin" in str(path) or path.suffix == ".part"]


@pools
def test_the_log_begins_with_what_happens_and_not_with_celerys_banner(world: World, pool: Pool) -> None:
    worker = world.service(f"worker-{pool}")
    wait_for(lambda: "ready." in worker.text(), what="its log to say so")
    assert "[tasks]" not in worker.text()


@pools
def test_a_running_job_says_how_far_it_is_and_who_runs_it(world: World, batch: str, pool: Pool) -> None:
    world.submit(pool, [world.paced("slow.bin", 4, size=400_000)], batch=batch)

    def half_way() -> JobRecord | None:
        (record,) = world.ledger.read([f"{batch}.0"])
        running = record.state is JobState.RUNNING and record.total == 400_000 and 0 < record.bytes < 400_000
        return record if running else None

    seen = wait_for(half_way, what="progress in the record")
    (record,) = world.finished(batch)
    assert seen
    assert record.last
    assert seen.executor == record.last.executor is not None


def test_the_sweep_warns_of_nothing_at_a_first_start_and_takes_nothing_over_at_a_clean_stop(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        world.start(*Pool, slots=2)
        for pool in Pool:
            world.submit(pool, [world.file(f"{n}.bin") for n in range(5)], batch=str(pool))
            world.finished(str(pool))
        assert [world.service(f"worker-{pool}").terminate() for pool in Pool] == [0, 0, 0]
        leases = Leases(world.ledger.redis, world.settings.key_prefix, 1.0)
        wait_for(lambda: leases.known() == [], what="the sweep to see that all processes ended")
        said = world.service("sweep").text()
    assert [line for line in said.splitlines() if "took over" in line or "INFO" not in line] == []


def test_a_worker_that_serves_another_pools_queue_refuses_to_start(world: World) -> None:
    import subprocess
    import sys

    from tests.worker_process import ROOT, environment_of

    command = "-m celery -A worker.app worker -P threads -Q downloads.gevent -n x@%h -c 1"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT,
        env=environment_of(world.settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "-Q: a threads worker serves downloads.threads; got downloads.gevent" in done.stderr
