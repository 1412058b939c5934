"""Temp files of running jobs are removed, replaced or locked by something else: the jobs begin them anew."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.jobs import FailureKind, JobState, Pool, Ref
from tests.fault.given import all_whole, pools
from tests.waiting import wait_for
from tests.world import Begin, World

pytestmark = pytest.mark.timeout(150)
carried = pytest.mark.parametrize("carried", [1, 4], ids=["single", "chunk"])


def temp_files(world: World) -> list[Path]:
    return list((world.settings.downloads / ".partial").glob("*.part"))


def replaced(temp: Path) -> int:
    """Another file of the same length has the temp file's name; its descriptor, which has a lock on it."""
    other = temp.with_suffix(".other")
    fd = os.open(other, os.O_RDWR | os.O_CREAT)
    os.write(fd, bytes(temp.stat().st_size))
    fcntl.flock(fd, fcntl.LOCK_EX)
    other.replace(temp)
    return fd


@carried
@pools
@pytest.mark.parametrize("how", ["files", "folder", "replaced", "locked"])
def test_jobs_whose_temp_files_are_taken_away_begin_anew_in_the_same_claim(
    world: World, pool: Pool, carried: int, how: str
) -> None:
    world.start(pool)
    world.submit(pool, [world.paced(f"f{n}", 3, 2_000_000) for n in range(4)], carried=carried)
    wait_for(lambda: len(temp_files(world)) == 4, what="four temp files")
    world.running(4, with_bytes=True)
    locked = []
    for temp in temp_files(world):
        if how in ("replaced", "locked"):
            locked.append(replaced(temp))
        else:
            temp.unlink()
    if how == "folder":
        shutil.rmtree(world.settings.downloads / ".partial")
    if how == "replaced":
        while locked:
            os.close(locked.pop())
    records = all_whole(world, 4)
    assert [len(record.attempts) for record in records] == [1] * 4, "an attempt was spent"
    for fd in locked:
        os.close(fd)


@contextmanager
def removed_again_and_again(world: World) -> Iterator[None]:
    over = threading.Event()

    def remove() -> None:
        while not over.wait(0.02):
            shutil.rmtree(world.settings.downloads / ".partial", ignore_errors=True)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@carried
@pools
def test_temp_files_that_always_vanish_spend_no_attempt_and_deadline_and_cancel_hold(
    begin: Begin, pool: Pool, carried: int
) -> None:
    world = begin(max_attempts=2).start(pool, slots=10)  # one for each job
    with removed_again_and_again(world):
        world.submit(pool, [world.paced(f"f{n}", 1.5, 500_000) for n in range(4)], carried=carried)
        late = world.paced("late", 1.5, 500_000)
        world.submit(pool, [late], batch="late")
        wait_for(lambda: sum(len(r.attempts) for r in world.records()) >= 4, seconds=40, what="handed back")
        assert not any(record.state.final for record in world.records())
        world.ledger.cancel(Ref("late", 0, 0))
        (cancelled,) = world.finished("late", seconds=20)
        assert cancelled.state is JobState.CANCELLED
        timed = [world.paced(f"timed{n}", 1.5, 500_000) for n in range(4)]
        world.submit(pool, timed, batch="timed", carried=carried, deadline=6.0)
        over = world.finished("timed", seconds=40)
        assert {(each.state, each.last and each.last.kind) for each in over} == {
            (JobState.FAILED, FailureKind.DEADLINE)
        }
    records = all_whole(world, 4)
    # DISK: the folder was gone when the worker looked whether its machine is well.
    uncounted = {None, FailureKind.MACHINE, FailureKind.DISK}
    assert {attempt.kind for record in records for attempt in record.attempts} <= uncounted
