"""Faults of the worker's machine: no attempt is spent, the worker says what is wrong, waits, and goes on by itself."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.jobs import FailureKind, JobState, Pool, Ref
from tests.fault.given import all_done, all_whole, pools
from tests.producer_process import run
from tests.waiting import stays, wait_for
from tests.worker_process import Service, environment_of, worker
from tests.world import Begin, World

pytestmark = pytest.mark.timeout(180)
carried = pytest.mark.parametrize("carried", [1, 6], ids=["single", "chunk"])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True, timeout=10)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as open_file:
        while True:
            open_file.write(bytes(65536))


@contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space"):
        fill(filler)
    yield
    filler.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=10)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True, timeout=10)


@contextmanager
def unwritable(disk: Path) -> Iterator[None]:
    """Nothing can be made in the folder, not even by root: EPERM."""
    subprocess.run(["chattr", "+i", str(disk)], check=True, timeout=10)
    yield
    subprocess.run(["chattr", "-i", str(disk)], check=True, timeout=10)


def status(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(world.settings, "status", "--workers", "--json").out)
    return found


def unwell(world: World, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Wait until the one worker is shown as unwell; its fault."""

    def fault() -> dict[str, Any] | None:
        meanwhile()
        return next((worker["unwell"] for worker in status(world) if worker["unwell"]), None)

    return wait_for(fault, seconds=30, every=0.3, what="the worker to be unwell")


def well(world: World) -> bool:
    return [worker["unwell"] for worker in status(world)] == [None]


def said(service: Service, what: str) -> int:
    return service.text().count(what)


def spent(world: World) -> list[FailureKind]:
    """What would count against the jobs."""
    harmless = {None, FailureKind.MACHINE, FailureKind.DISK, FailureKind.DISK_FULL, FailureKind.LOST}
    return [a.kind for record in world.records() for a in record.attempts if a.kind and a.kind not in harmless]


FAULTS = {
    "full": (full, "No space left"),
    "read-only": (read_only, "Read-only"),
    "unwritable": (unwritable, "Operation not permitted"),
}


@carried
@pools
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_disk_that_cannot_be_written_for_a_while_costs_no_attempt_and_the_worker_says_so(
    disk: Path, begin: Begin, pool: Pool, carried: int, fault: str
) -> None:
    world = begin(downloads=disk, max_attempts=2).start(pool)
    service = world.service(f"worker-{pool}")
    (name,) = wait_for(lambda: [worker["name"] for worker in status(world)], what="the worker to be known")
    break_, words = FAULTS[fault]
    with break_(disk):
        world.submit(pool, [world.file(f"f{n}", 100_000) for n in range(24)], carried=carried)
        found = unwell(world)
        assert words in found["reason"]
        assert abs(found["since"] - service.health.stat().st_mtime) < 60
        assert f"{name}  {pool}" in run(world.settings, "status", "--workers").out
        assert "unwell since" in run(world.settings, "status", "--workers").out
        wait_for(lambda: said(service, "takes no jobs: a fault of this machine"), what="the log to say so")
        wait_for(lambda: not world.ledger.running("b"), what="what ran to be handed back")
        touched = service.health.stat().st_mtime
        counts = world.batch().counts
        stays(lambda: not any(r.state.final for r in world.records()), seconds=4, what="no job to end")
        assert service.health.stat().st_mtime == touched, "the health file was touched"
        assert world.batch().counts == counts
    records = all_whole(world, 24)
    assert not spent(world)
    assert all(len(record.attempts) <= 4 for record in records)
    wait_for(lambda: well(world), what="the worker to be well")
    wait_for(lambda: service.health.stat().st_mtime > touched, what="the health file to be touched")
    assert said(service, "takes jobs again: this machine is well") == said(service, "takes no jobs: a fault") == 1


@carried
@pools
def test_a_disk_that_fills_up_under_running_jobs_spends_no_attempt(
    disk: Path, begin: Begin, pool: Pool, carried: int
) -> None:
    world = begin(downloads=disk, max_attempts=2).start(pool)
    world.submit(pool, [world.paced(f"f{n}", 4, 600_000) for n in range(6)], carried=carried)
    world.running(4, with_bytes=True)
    with full(disk):
        assert "room" in (reason := unwell(world)["reason"]) or "No space" in reason
        stays(lambda: not world.batch().count(JobState.FAILED), seconds=3, what="no job to fail")
    all_whole(world, 6)
    assert not spent(world)


@pools
def test_cancel_and_deadline_hold_while_a_worker_is_unwell(disk: Path, begin: Begin, pool: Pool) -> None:
    world = begin(downloads=disk, deadline=6.0).start(pool)
    with full(disk):
        world.submit(pool, [world.file(f"f{n}") for n in range(8)])
        unwell(world)
        wait_for(lambda: any(record.attempts for record in world.records()), what="a job to be handed back")
        wait_for(lambda: not world.ledger.running("b"), what="what ran to be handed back")
        tried = {record.id for record in world.records() if record.attempts}
        (cancelled, _) = world.ledger.cancel(Ref("b", 7, 7))
        assert cancelled == 1
        wait_for(
            lambda: all(r.state is JobState.FAILED for r in world.records() if r.id in tried - {"b.7"}),
            what="the deadline of those that began",
        )
    records = world.finished()
    assert records[7].state is JobState.CANCELLED
    for record in records[:7]:
        assert record.last is not None
        assert record.last.kind is (FailureKind.DEADLINE if record.id in tried else None)


@pools
def test_a_worker_beside_one_that_is_unwell_takes_its_jobs(
    disk: Path, begin: Begin, tmp_path: Path, pool: Pool
) -> None:
    world = begin(downloads=disk).start(pool)
    with full(disk):
        world.submit(pool, [world.file(f"f{n}") for n in range(8)])
        unwell(world)
        other = world.settings.model_copy(update={"downloads": world.folder / "downloads"})
        world.services.append(worker(pool, other, world.folder, name="other"))
        world.done()
        world.service(f"worker-{pool}").kill()
    world.service("worker-other").terminate()
    world.worker(pool, name="third").wait_until_ready()
    wait_for(lambda: not world.ledger.redis.exists(world.ledger.keys.unwell), what="the note to be removed")


def limit_that_leaves(free: int, pid: int) -> int:
    """A limit of open files that leaves the process so many descriptors."""
    used = {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    limits = range(1, max(used) + 3)
    return max(limit for limit in limits if limit - len([fd for fd in used if fd < limit]) <= free)


@carried
@pools
def test_few_descriptors_spend_no_attempt(begin: Begin, pool: Pool, carried: int) -> None:
    world = begin(max_attempts=2).start(pool, slots=8)
    service = world.service(f"worker-{pool}")
    slots = 8 if pool is Pool.PREFORK else 1
    wait_for(lambda: [len(each["pids"]) for each in status(world)] == [slots], what="all of it to be there")
    world.submit(pool, [world.file(f"before{n}") for n in range(24)], batch="before", carried=carried)
    before_files = world.finished("before")
    pids = service.children() if pool is Pool.PREFORK else [service.pid]
    before = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids]
    free = 2 if carried == 1 else 0  # small files of a group are in memory until they are published, one by one

    def starve() -> None:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit_that_leaves(free, pid), before[0][1]))

    starve()
    world.submit(pool, [world.paced(f"f{n}", 1) for n in range(24)], carried=carried)
    assert "ulimit -n" in unwell(world, starve)["reason"]  # also when idle connections end and leave some
    for pid, limits in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    world.check_files([*before_files, *all_done(world, 24)])
    assert not spent(world)
    wait_for(lambda: well(world), what="the worker to be well")


@pools
def test_a_fault_that_one_job_has_alone_stays_its_own(disk: Path, begin: Begin, pool: Pool) -> None:
    world = begin(downloads=disk, max_attempts=2).start(pool)
    service = world.service(f"worker-{pool}")
    locked, untouchable = disk / "b" / "locked", disk / "b" / "untouchable"
    locked.mkdir(parents=True)
    untouchable.write_text("mine")
    subprocess.run(["chattr", "+i", str(locked), str(untouchable)], check=True, timeout=10)
    try:
        jobs = [world.file("locked/f"), world.file("large", 20_000_000), world.file("untouchable")]
        world.submit(pool, [*jobs, *(world.file(f"f{n}") for n in range(4))])
        inside, large, *rest = world.finished()
    finally:
        subprocess.run(["chattr", "-i", str(locked), str(untouchable)], check=True, timeout=10)
    kinds = [record.last.kind for record in (inside, large) if record.last]
    assert kinds == [FailureKind.DISK, FailureKind.DISK_FULL]
    assert [len(record.attempts) for record in (inside, large)] == [1, 1]
    assert re.search("room|space", str(large.last and large.last.reason))
    assert not list((disk / ".partial").glob("*.part"))
    assert {record.state for record in rest} == {JobState.DONE}
    assert rest[0].path == "b/untouchable-2"
    assert not said(service, "a fault of this machine")


def test_a_start_with_too_few_descriptors_says_so(world: World) -> None:
    command = "-m celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -c 40 -l INFO"
    service = Service(
        "worker-threads",
        ["prlimit", "--nofile=120:150", sys.executable, *command.split()],
        environment_of(world.settings),
        world.folder,
    )
    world.services.append(service)
    service.wait_until_ready()
    assert "40 slots need about 180 open files, the limit is 150" in service.text()
    assert "ulimit -n 180" in service.text()
    assert resource.prlimit(service.pid, resource.RLIMIT_NOFILE) == (150, 150)
