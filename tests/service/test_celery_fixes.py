"""The ways around Celery that no fault test can time: a child that ended while the worker had no event loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub

from tests.waiting import wait_for
from worker.celery_fixes import SturdyPool


class Pool(SturdyPool):
    """Without processes."""

    def __init__(self) -> None:
        self.maintained = 0

    def maintain_pool(self) -> None:
        self.maintained += 1


@pytest.fixture
def ended() -> Any:
    """A child whose end was seen and that was not replaced yet."""
    return SimpleNamespace(_sentinel_poll=None)


def test_a_child_that_ended_before_the_worker_connected_anew_is_replaced_and_not_watched(ended: Any) -> None:
    hub, pool = Hub(), Pool()
    pool._track_child_process(ended, hub)
    assert (pool.maintained, hub.readers) == (0, {})  # in the loop's own time
    next(hub.create_loop())
    assert pool.maintained == 1


def test_celery_itself_still_fails_there(ended: Any) -> None:
    """When it does not any more, this way around can go."""
    with pytest.raises(ValueError, match="file descriptor is None"):
        AsynPool._track_child_process(Pool(), ended, Hub())


def test_a_living_child_is_watched() -> None:
    hub, pool = Hub(), Pool()
    reading, writing = os.pipe()
    try:
        pool._track_child_process(SimpleNamespace(_popen=SimpleNamespace(sentinel=reading)), hub)
        assert len(hub.readers) == 1
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def one_child_killed(kind: type[AsynPool]) -> Iterator[Any]:
    """A pool of two children, as a prefork worker makes it, whose loop does not run yet."""
    pool = kind(2, threads=False)
    try:
        os.kill(pool._pool[0].pid, signal.SIGKILL)
        wait_for(lambda: not pool._pool[0]._is_alive(), what="the child to be dead")
        yield pool
    finally:
        pool.terminate()


def test_a_child_killed_before_the_loop_runs_is_replaced_once_it_does_although_redis_went_away_meanwhile() -> None:
    hub = Hub()
    with one_child_killed(SturdyPool) as pool:
        killed = pool._pool[0].pid
        pool.flush()  # what the worker does when its connection is lost
        pool.register_with_event_loop(hub)
        loop = hub.create_loop()

        def replaced() -> bool:
            hub.call_soon(bool)  # so that the turn does not wait
            next(loop)
            return len(pool._pool) == 2 and killed not in [child.pid for child in pool._pool]

        wait_for(replaced, what="the child to be replaced")


def test_celery_itself_still_ends_there() -> None:
    """When it does not any more, this way around can go."""
    with one_child_killed(AsynPool) as pool, pytest.raises(StopIteration):
        pool.flush()


def test_children_that_cannot_start_still_end_the_worker() -> None:
    pool = SimpleNamespace(_pool=[SimpleNamespace(exitcode=1)], maintain_pool=lambda: None)
    assert not SturdyPool.did_start_ok(pool)  # type: ignore[arg-type]
