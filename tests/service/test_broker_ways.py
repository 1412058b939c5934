"""The ways around Celery that no fault test can time: a child that ended while the worker had no event loop."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub

from worker.broker import SturdyPool


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
