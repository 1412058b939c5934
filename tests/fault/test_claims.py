"""Jobs that would run for ever, neighbours of a job that kills its process, late cancels, broken records."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ledger.jobs import FINAL_STATES, FailureKind, JobState, Pool, Ref
from ledger.leases import Leases
from ledger.messages import Envelope, label
from tests.fault.given import all_whole, busy, kill_whenever_it_runs, pools
from tests.valkey_process import ValkeyProcess
from tests.waiting import stays, wait_for
from tests.world import Begin, World

pytestmark = pytest.mark.timeout(240)


@pools
def test_a_job_that_its_process_does_not_run_goes_back_within_seconds(world: World, pool: Pool) -> None:
    """However it came about: the ledger says that a living process holds a job, and the process knows nothing of it."""
    busy(world, pool, jobs=1, seconds=4)
    (held,) = [lease for lease in Leases(world.ledger.redis, "t:", 0.0).known() if lease.held]
    world.submit(pool, [world.file("forgotten")], batch="forgotten")
    world.ledger.claim(Ref("forgotten", 0, 0), pool, held.incarnation)
    world.done("forgotten", seconds=20)
    world.done()


@pytest.mark.parametrize(
    ("pool", "grouped"), [(Pool.GEVENT, True), (Pool.GEVENT, False), (Pool.THREADS, True), (Pool.THREADS, False)]
)
def test_a_job_that_kills_its_process_takes_no_neighbour_with_it(begin: Begin, pool: Pool, grouped: bool) -> None:
    world = begin(lease=1.0, renew_every=0.2).start(pool, slots=8)
    jobs = [world.paced("poison", 60), *(world.paced(f"innocent{n}", 5) for n in range(7))]
    world.submit(pool, jobs, carried=len(jobs) if grouped else 1)
    poison, *innocent = kill_whenever_it_runs(world, pool, "poison", slots=8)
    assert (poison.state, poison.attempts[-1].kind) == (JobState.FAILED, FailureKind.POISON)
    assert [record.state for record in innocent] == [JobState.DONE] * 7


def test_prefork_workers_that_are_killed_as_a_whole_prove_nothing_against_their_jobs(begin: Begin) -> None:
    world = begin(lease=1.0, renew_every=0.2, max_losses=2)
    busy(world, Pool.PREFORK, jobs=4, seconds=3)
    for _ in range(2):
        world.running(4, with_bytes=True)
        world.service("worker-prefork").kill()
        wait_for(lambda: not world.ledger.running("b"), seconds=20, what="the jobs to go back")
        world.worker(Pool.PREFORK).wait_until_ready()
    all_whole(world, 4)


@pools
def test_a_retry_right_after_a_cancel_runs_and_is_not_cancelled_again(begin: Begin, pool: Pool) -> None:
    """The process reads its stop requests so seldom that it still knows of the first one when the job runs again."""
    world = begin(lease=6.0, renew_every=1.5).start(pool, slots=1)
    job = world.paced("f", 6)
    world.submit(pool, [job])
    for _ in range(3):
        world.running(1, with_bytes=True)
        assert world.ledger.cancel(Ref("b", 0, 0)) == (0, 1)
        wait_for(lambda: world.ledger.retry(Ref("b", 0, 0), [JobState.CANCELLED])[0], what="the cancel")
        world.publisher.send([Envelope("b.0", pool, label(job))])
    world.done()


@pools
def test_records_that_cannot_be_read_end_as_failed_and_the_others_as_done(world: World, pool: Pool) -> None:
    busy(world, pool, jobs=12, seconds=2).kill()
    for number, field in enumerate("jtaql"):
        world.ledger.redis.hset(f"t:job:b.{number}", field, "{{")
    world.worker(pool, name="second")
    ids = [f"b.{number}" for number in range(12)]

    def over() -> bool:
        return all(record.state in FINAL_STATES for record in world.ledger.read(ids))

    wait_for(over, seconds=60, what="all jobs to end")
    records = list(world.ledger.read(ids))
    assert [record.state for record in records[5:]] == [JobState.DONE] * 7
    broken = [record for record in records[:5] if record.state is JobState.FAILED]
    assert broken
    assert all(record.attempts[-1].kind is FailureKind.INTERNAL for record in broken)
    assert world.batch().finished
    assert world.service("sweep").running


def test_leases_and_jobs_outlive_a_redis_that_evicts_keys_with_a_time_to_live(tmp_path: Path) -> None:
    options = {"maxmemory": "6mb", "maxmemory-policy": "volatile-lru"}
    with ValkeyProcess(appendonly=True, options=options) as valkey, World(tmp_path, valkey=valkey) as world:
        world.start(*Pool)
        for pool in Pool:
            world.submit(pool, [world.paced(f"{pool}{n}", 4) for n in range(4)], batch=str(pool))
            world.running(4, batch=str(pool))
        with valkey.client() as redis:
            for number in range(40):  # what others keep on it: without a time to live, until nothing more fits
                try:
                    redis.set(f"other:{number}", os.urandom(100_000))
                except Exception:
                    break
            stays(lambda: not redis.info("stats")["expired_keys"], seconds=1, what="no lease is a key that expires")
            redis.delete(*redis.keys("other:*"))
        for pool in Pool:
            assert all(len(record.attempts) == 1 for record in world.done(str(pool)))


def test_a_frozen_process_that_returns_gives_up_what_it_held(world: World) -> None:
    """The lease of a process group whose main process is frozen passes; the process knows at its next renewal."""
    frozen = busy(world, Pool.THREADS, jobs=4, seconds=3)
    os.kill(frozen.pid, signal.SIGSTOP)
    wait_for(lambda: not world.ledger.running("b"), seconds=20, what="the takeover")
    os.kill(frozen.pid, signal.SIGCONT)
    all_whole(world, 4)
