"""Clocks that are wrong and clocks that jump: the ledger's times are of Redis' clock, all patience is monotonic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.jobs import JobState, Pool
from tests.fault.given import pools
from tests.other_host import libfaketime
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for
from tests.world import Begin

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def offset(tmp_path: Path) -> Path:
    """By how many seconds the wall clock of what is started with it is off; may be rewritten at any time."""
    file = tmp_path / "offset"
    file.write_text("+0")
    return file


@pytest.fixture
def valkey(offset: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ValkeyProcess]:
    """Its clock follows the offset, a second later; all others have the right time."""
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(libfaketime()))
        patch.setenv("FAKETIME_TIMESTAMP_FILE", str(offset))
        patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        patch.setenv("FAKETIME_CACHE_DURATION", "1")
        valkey = ValkeyProcess(appendonly=True)
    with valkey:
        yield valkey


@pools
def test_a_worker_whose_clock_is_a_day_ahead_and_jumps_back_changes_nothing(
    begin: Begin, pool: Pool, offset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = begin().start()
    offset.write_text("86400")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "skewed"))
        patch.setenv("CLOCK_OFFSET", str(offset))
        ahead = world.worker(pool)
    ahead.wait_until_ready()
    world.submit(pool, [world.paced(f"f{n}", 3) for n in range(8)])
    world.running(4, with_bytes=True)
    offset.write_text("-86400")
    records = world.done()
    assert all(len(record.attempts) == 1 for record in records)
    now = time.time()
    for record in records:
        (attempt,) = record.attempts
        assert attempt.first_byte is not None
        assert now - 120 < record.queued <= attempt.started <= attempt.first_byte <= attempt.finished < now + 5
    world.check_files(records)


@pytest.mark.parametrize("jump", [1800, 7200, -600])
def test_a_clock_of_redis_that_jumps_ends_no_job_by_its_deadline_and_delays_none(
    valkey: ValkeyProcess, begin: Begin, offset: Path, jump: int
) -> None:
    """A job may take a minute; one that must be tried again waits in the ledger. What was taken over comes once."""
    world = begin(valkey=valkey, deadline=60.0, wait_in_job=0.0, retry_base=4.0, retry_cap=8.0).start(*Pool)
    for pool in Pool:
        running = [world.paced(f"{pool}{n}", 5) for n in range(3)]
        waiting = [world.file(f"{pool}w{n}", path="faults/retry-after/3") for n in range(3)]
        keyed = [replace(job, url=f"{job.url}&key={job.filename}&name={job.filename}") for job in waiting]
        world.submit(pool, [*running, *keyed], batch=str(pool))
    for pool in Pool:
        world.running(3, batch=str(pool), with_bytes=True)
        wait_for(lambda pool=pool: world.batch(str(pool)).count(JobState.WAITING), what="jobs that wait")  # type: ignore[misc]
    before = time.time()
    offset.write_text(f"{jump:+d}s\n")
    with valkey.client() as redis:
        wait_for(lambda: abs(redis.time()[0] - time.time()) > abs(jump) - 60, what="the clock to jump")
    records = [record for pool in Pool for record in world.done(str(pool), seconds=60)]
    assert time.time() - before < 60
    world.check_files(records)
    assert all(world.service(f"worker-{pool}").running for pool in Pool)
