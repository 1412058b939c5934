"""Whatever tells a worker to stop, it drains in the same way; told again, it hurries."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.jobs import JobRecord, JobState, Pool
from tests.fault.given import SLOTS, all_done, pools
from tests.waiting import wait_for
from tests.worker_process import Service
from tests.world import Begin, World

pytestmark = pytest.mark.timeout(150)

LONG = 30.0  # seconds; the job does not end by itself
GRACE = 5.0  # seconds
BESIDE = 12.0  # seconds that a worker may take for the rest
HANDED_BACK = "the worker stops; handed back"


def by_remote_control(world: World, pool: Pool, _service: Service) -> None:
    """As Flower's button does it."""
    with world.celery() as app:
        app.control.broadcast("shutdown", destination=[f"{pool}@{os.uname().nodename}"])


def by_signal(number: signal.Signals) -> Callable[[World, Pool, Service], None]:
    return lambda _world, _pool, service: service.signal(number)


def by_signal_to_the_group(number: signal.Signals) -> Callable[[World, Pool, Service], None]:
    """As systemd sends it, and a shell whose terminal is closed."""
    return lambda _world, _pool, service: service.signal(number, group=True)


WAYS = {
    "remote": by_remote_control,
    **{number.name: by_signal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)},
    **{f"{number.name}-group": by_signal_to_the_group(number) for number in (signal.SIGTERM, signal.SIGQUIT)},
}
ways = pytest.mark.parametrize("tell", list(WAYS.values()), ids=list(WAYS))


def at_work(folder: Path, pool: Pool, grace: float) -> World:
    """A worker whose slots are taken: by one job that ends within the grace and by long ones; and more jobs behind."""
    world = World(folder, grace=grace)
    world.start(pool, slots=SLOTS)
    world.submit(pool, [world.paced("short", GRACE - 1), *(world.paced(f"long{n}", LONG) for n in range(SLOTS - 1))])
    world.running(SLOTS, with_bytes=True)
    world.submit(pool, [world.file(f"behind{n}") for n in range(SLOTS)], batch="behind")
    return world


def ends(records: list[JobRecord]) -> list[str | None]:
    """How the first attempt of each ended."""
    return [record.attempts[0].reason if record.attempts else "never" for record in records]


def drained(world: World) -> None:
    """What could end has ended, the rest is handed back in order, and nothing was begun."""
    short, *long = world.records()
    assert (short.state, len(short.attempts)) == (JobState.DONE, 1)
    assert {each.state for each in long} == {JobState.QUEUED}
    assert ends(long) == [HANDED_BACK] * len(long)
    assert {(each.state, len(each.attempts)) for each in world.records("behind")} == {(JobState.QUEUED, 0)}


@pools
@ways
def test_it_drains_with_its_grace(tmp_path: Path, pool: Pool, tell: Callable[[World, Pool, Service], None]) -> None:
    with at_work(tmp_path, pool, GRACE) as world:
        service = world.service(f"worker-{pool}")
        begun = time.monotonic()
        tell(world, pool, service)
        assert service.wait(GRACE + BESIDE) == 0
        assert time.monotonic() - begun > GRACE - 0.5, "it did not use its grace"
        assert "Traceback" not in service.text()
        drained(world)


@pools
def test_a_hangup_drains_it_and_starts_it_again_in_place(tmp_path: Path, pool: Pool) -> None:
    with at_work(tmp_path, pool, GRACE) as world:
        service = world.service(f"worker-{pool}")
        pid = service.pid
        service.signal(signal.SIGHUP)
        wait_for(lambda: service.text().count(" ready.") == 2, seconds=GRACE + 30, what="it to start again")
        assert service.running
        assert service.pid == pid
        short, *long = world.records()
        assert (short.state, len(short.attempts)) == (JobState.DONE, 1)
        assert ends(long) == [HANDED_BACK] * len(long)
        all_done(world, SLOTS, "behind")
        assert service.terminate() == 0


@pools
def test_a_hangup_does_not_start_a_worker_again_that_is_to_stop(begin: Begin, pool: Pool) -> None:
    world = begin()
    service = world.start(pool).service(f"worker-{pool}")
    service.signal(signal.SIGHUP)
    service.signal(signal.SIGTERM)
    service.signal(signal.SIGHUP)
    assert service.wait(30) == 0
    assert service.text().count(" ready.") == 1


@pools
@pytest.mark.parametrize("tell", [WAYS["remote"], WAYS["SIGTERM"], WAYS["SIGINT"]], ids=["remote", "SIGTERM", "SIGINT"])
def test_a_second_signal_hurries_it(tmp_path: Path, pool: Pool, tell: Callable[[World, Pool, Service], None]) -> None:
    with at_work(tmp_path, pool, 60.0) as world:
        service = world.service(f"worker-{pool}")
        tell(world, pool, service)
        wait_for(lambda: world.records()[0].state is JobState.DONE, what="the short job to end within the grace")
        assert service.running
        service.signal(signal.SIGTERM)
        assert service.wait(BESIDE) == 0
        drained(world)
