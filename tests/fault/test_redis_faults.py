"""Redis killed, frozen, full, emptied, cut off; the origin down: workers recover without a person."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from ledger.jobs import FailureKind, Job, Pool
from ledger.settings import Settings
from tests.fault.given import all_done, all_whole, busy, pools
from tests.origin_process import OriginProcess
from tests.relay import Relay
from tests.waiting import wait_for
from tests.worker_process import sweep, worker
from tests.world import Begin, World

pytestmark = pytest.mark.timeout(200)

DEPLOYED = ("redis_timeout", "lease", "renew_every", "sweep_every", "message_grace")


def healthy_again(world: World, pool: Pool) -> None:
    """The very worker that went through it works on, under its own power."""
    assert world.service(f"worker-{pool}").running
    world.submit(pool, [world.file(f"after{n}") for n in range(4)], batch="after")
    all_done(world, 4, "after")


@pools
def test_redis_killed_and_restarted_with_jobs_queued_and_running(world: World, pool: Pool) -> None:
    busy(world, pool, jobs=16, seconds=2)
    world.valkey.kill()
    world.valkey.restart()
    records = all_whole(world, 16)
    assert all(len(record.attempts) == 1 for record in records), "a running job was repeated"
    healthy_again(world, pool)


@pools
def test_redis_frozen_for_twenty_seconds(world: World, pool: Pool) -> None:
    busy(world, pool, jobs=8, seconds=4)
    world.valkey.freeze()
    try:
        subprocess.run(["sleep", "20"], check=True, timeout=30)  # the fault itself, not a wait for something
    finally:
        world.valkey.thaw()
    all_whole(world, 8)
    healthy_again(world, pool)


@pools
def test_redis_full_takes_no_new_jobs_and_those_it_has_are_finished_meanwhile(world: World, pool: Pool) -> None:
    """Neither the ledger nor kombu asks for room on behalf of a job that was accepted."""
    service = busy(world, pool, jobs=16, seconds=2)
    with world.valkey.client() as redis:
        redis.config_set("maxmemory", "1mb")
        with pytest.raises(RedisError, match="maxmemory"):
            world.submit(pool, [world.file("more")], batch="more")
        all_whole(world, 16)
        assert service.running
        redis.config_set("maxmemory", "0")
    world.submit(pool, [world.file("more")], batch="more")
    all_done(world, 1, "more")


@pools
def test_redis_that_comes_back_empty_is_said_and_new_jobs_work(world: World, pool: Pool) -> None:
    service = busy(world, pool, jobs=6, seconds=3)
    with world.valkey.client() as redis:
        redis.flushall()
    wait_for(lambda: "nothing published" in service.text(), seconds=40, what="the worker to say what is gone")
    assert not (world.settings.downloads / "b").exists()
    healthy_again(world, pool)


@pools
def test_a_worker_cut_off_from_redis_publishes_nothing_that_others_took_over(tmp_path: Path, pool: Pool) -> None:
    with World(tmp_path) as world, Relay(world.valkey.port) as relay:
        world.start()
        behind = world.settings.model_copy(
            update={"redis_url": f"redis://127.0.0.1:{relay.port}/0", "redis_patience": 8.0}
        )
        cut_off = worker(pool, behind, world.folder, name="cut-off")
        world.services.append(cut_off)
        cut_off.wait_until_ready()
        world.submit(pool, [world.paced(f"f{n}", 3) for n in range(4)])
        world.running(4, with_bytes=True)
        relay.cut()
        world.worker(pool, name="second").wait_until_ready()
        records = all_done(world, 4)
        world_files = {path: path.stat().st_ino for path in world.files() if ".partial" not in path.parts}
        assert all(record.attempts[0].kind is FailureKind.LOST for record in records)
        relay.heal()
        world.service("worker-second").kill()
        world.submit(pool, [world.file(f"after{n}") for n in range(4)], batch="after")
        all_done(world, 4, "after")
        assert cut_off.running
        assert {path: path.stat().st_ino for path in world_files} == world_files, "the cut-off worker overwrote a file"


@pools
def test_connections_that_are_dropped_without_a_word_cost_an_idle_worker_ten_seconds(
    tmp_path: Path, pool: Pool
) -> None:
    """Given a NAT or a load balancer that forgets connections, and the times of a deployment."""
    deployed = {name: Settings.model_fields[name].default for name in DEPLOYED}
    with World(tmp_path, **deployed) as world, Relay(world.valkey.port) as relay:
        behind = world.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{relay.port}/0"})
        world.services += [worker(pool, behind, world.folder), sweep(behind, world.folder)]
        for service in world.services:
            service.wait_until_ready()
        world.submit(pool, [world.file("warm")], batch="warm")
        all_done(world, 1, "warm")
        relay.drop()
        begun = time.monotonic()
        world.submit(pool, [world.file(f"f{n}") for n in range(4)])
        records = all_done(world, 4, seconds=60)
        assert time.monotonic() - begun < 10
        assert [len(record.attempts) for record in records] == [1] * 4
        with world.celery() as app:
            wait_for(lambda: app.control.ping(timeout=1.0), seconds=10, what="it to hear of remote control again")


@pools
def test_an_origin_that_is_down_and_comes_back_costs_attempts(begin: Begin, pool: Pool) -> None:
    world = begin(max_attempts=30).start(pool)
    with OriginProcess() as gone:
        url = gone.url
        gone.stop()
    world.submit(pool, [Job(f"{url}/files/x?size=10", "x")])
    wait_for(
        lambda: any(a.kind is FailureKind.CONNECT for r in world.records() for a in r.attempts),
        what="an attempt that found no origin",
    )
    with OriginProcess(options=("--port", url.rpartition(":")[2])):
        all_done(world, 1)


@pools
def test_two_sweeps_at_once_change_nothing_but_the_time_of_day(world: World, pool: Pool) -> None:
    busy(world, pool, jobs=8, seconds=2, sweeps=2).kill()
    world.worker(pool, name="second")
    assert max(len(record.attempts) for record in all_whole(world, 8)) == 2


def test_the_books_of_a_redis_without_memory_for_scripts_are_read_again(world: World) -> None:
    """After SCRIPT FLUSH, as after a failover, scripts are loaded again by whoever needs them."""
    world.submit(Pool.THREADS, [world.file("one")])
    with world.valkey.client() as redis:
        redis.script_flush()
    world.start(Pool.THREADS)
    all_done(world, 1)
    assert world.batch()
