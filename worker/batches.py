"""Events in batches: one PUBLISH for those of a hundredth of a second, in all pools.

Celery sends each event of a task by itself, three per task, unless its loop runs (prefork), and there it sends what one
turn of the loop brought. For small jobs that was a third of the worker's time. Flower reads batches as it reads events.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events

_DELAY = 0.01  # seconds
_MOST = 200  # events at once


class Batches(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of Celery's consumer; begins anew with each connection to the broker."""

    requires = (Events,)

    def start(self, consumer: Any) -> None:
        dispatcher = consumer.event_dispatcher
        dispatcher.buffer_group = frozenset({"task"})
        dispatcher.buffer_limit = _MOST
        dispatcher.on_send_buffered = _Later(consumer.timer, dispatcher)

    def stop(self, consumer: Any) -> None:
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.flush()

    def shutdown(self, consumer: Any) -> None:
        """After the pool has ended: the timer is gone. An event of a task makes Flower take its worker for alive, so
        what Celery has said before is said again, at the very end, and that nothing runs."""
        self.stop(consumer)
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.send("worker-offline", active=0)


class _Later:
    def __init__(self, timer: Any, dispatcher: Any) -> None:
        self._timer = timer
        self._dispatcher = dispatcher
        self._due = False  # two threads that both see this send a batch in two parts: no harm

    def __call__(self) -> None:
        if not self._due:
            self._due = True
            self._timer.call_after(_DELAY, self._flush)

    def _flush(self) -> None:
        self._due = False
        self._dispatcher.flush()
