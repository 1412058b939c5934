"""Small jobs that a process took together: whoever dies or freezes meanwhile, each ends once and whole."""

from __future__ import annotations

import os
import signal

import pytest

from ledger.jobs import FailureKind, JobState, Pool
from tests.fault.given import all_done, kill_whenever_it_runs, pools
from tests.fault.test_last_events import Shown
from tests.waiting import wait_for
from tests.world import Begin, World

pytestmark = pytest.mark.timeout(240)


@pools
def test_two_workers_that_are_killed_in_turn_lose_no_job(world: World, pool: Pool) -> None:
    world.start(pool, slots=2)
    names = [str(pool), "second"]
    world.worker(pool, slots=2, name="second").wait_until_ready()
    world.submit(pool, world.small(3000))
    for turn in range(6):
        known = world.batch().count(JobState.DONE)
        wait_for(lambda known=known: world.batch().count(JobState.DONE) > known + 50, what="jobs to be done")  # type: ignore[misc]
        world.service(f"worker-{names[turn % 2]}").kill()
        names[turn % 2] = f"next{turn}"
        world.worker(pool, slots=2, name=names[turn % 2])
    records = all_done(world, 3000, seconds=150)
    world.check_files(records)


@pools
@pytest.mark.parametrize("carried", [1, 12], ids=["gathered", "one message"])
def test_a_group_that_froze_until_another_took_over_publishes_nothing_more(
    world: World, pool: Pool, carried: int
) -> None:
    frozen = world.start(pool, slots=1).service(f"worker-{pool}")
    world.warm(pool)
    world.submit(pool, [world.paced(f"f{n}", 2, 200_000) for n in range(12)], carried=carried)
    world.running(6, with_bytes=True)
    pids = [frozen.pid, *frozen.children()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    world.worker(pool, slots=8, name="second").wait_until_ready()
    world.done(seconds=60)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: "lost:" in frozen.text(), seconds=30, what="the frozen worker to see that it lost its jobs")
    world.check_files([*world.records(), *world.records("warm")])


@pytest.mark.parametrize("pool", [Pool.THREADS, Pool.GEVENT])
def test_the_one_job_that_kills_its_process_is_the_one_that_is_poison(begin: Begin, pool: Pool) -> None:
    world = begin(lease=1.0, renew_every=0.2).start(pool, slots=2)
    world.warm(pool)
    world.submit(pool, [*world.small(20, "a"), world.paced("poison", 60, 1_000_000), *world.small(60, "b")])
    poison, *innocent = kill_whenever_it_runs(world, pool, "poison", slots=2)
    assert (poison.state, poison.attempts[-1].kind) == (JobState.FAILED, FailureKind.POISON)
    assert {record.state for record in innocent} == {JobState.DONE}


@pools
def test_a_worker_that_stops_hands_back_what_its_group_has_not_begun(world: World, pool: Pool) -> None:
    worker = world.start(pool, slots=1).service(f"worker-{pool}")
    world.warm(pool)
    world.submit(pool, [world.paced(f"f{n}", 20) for n in range(30)])
    world.running(1)
    assert worker.terminate() == 0
    assert {record.state for record in world.records()} == {JobState.QUEUED}
    assert not world.ledger.running("b")


@pools
def test_a_group_is_one_row_with_a_count(world: World, pool: Pool) -> None:
    with Shown(world.settings) as shown:
        world.start(pool, slots=1)
        world.warm(pool)
        world.submit(pool, world.small(200))
        all_done(world, 200)
        wait_for(lambda: set(shown.rows().values()) == {"SUCCESS"}, what="all rows to have ended")
        rows = [shown.said(row) for row in shown.rows() if row.startswith("b.")]
        counted = [int(said.split()[0]) for said in rows if said.endswith(" done")]
        assert len(rows) < 150
        assert sum(counted) + len(rows) - len(counted) == 200


@pools
def test_the_row_of_a_group_whose_worker_was_killed_is_its_leaders(world: World, pool: Pool) -> None:
    with Shown(world.settings) as shown:
        world.start(pool, slots=1)
        world.warm(pool)
        world.submit(pool, [world.paced(f"f{n}", 4) for n in range(12)])
        world.running(4)
        held = len(world.ledger.running("b"))
        begun = {row for row, state in shown.rows().items() if row.startswith("b.") and state == "STARTED"}
        world.service(f"worker-{pool}").kill()
        wait_for(lambda: all(shown.rows()[row] == "RETRY" for row in begun), seconds=30, what="the rows to have ended")
        assert len(begun) < held
        assert {row for row in shown.rows() if row.startswith("b.")} <= {f"b.{n}" for n in range(12)}
        world.worker(pool, name="second")
        all_whole_of(world, 12)


def all_whole_of(world: World, count: int) -> None:
    records = all_done(world, count)
    world.check_files([*records, *world.records("warm")])
