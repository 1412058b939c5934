"""Whether this worker consumes its queue: not while the pool is paused or the worker drained.

The thread that touches the messages in hand hears of it every second. It only asks: the loop that consumes does the
rest, in its own time (at most two seconds later under gevent), because a channel belongs to the thread that uses it.
A message that comes in between is claimed in vain and stays queued. Kept true by ``tests/pools/test_control.py``.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("downpour.worker")


class Consuming:
    def __init__(self, consumer: Any, queue: str) -> None:
        """
        Args:
            consumer: Celery's, of this worker.
        """
        self._consumer = consumer
        self._queue = queue

    def allow(self, may: bool) -> None:
        """From any thread: see to it that the queue is consumed, or is not. To be repeated until it is so."""
        if may != (self._queue in self._consumer.app.amqp.queues.consume_from):
            self._consumer.call_soon(self._begin if may else self._end)

    def _begin(self) -> None:
        log.info("takes jobs again queue=%s", self._queue)
        if self._consumer.task_consumer is not None:  # else it is reconnecting, and asked again when it is back
            self._consumer.add_task_queue(self._queue)

    def _end(self) -> None:
        log.info("takes no jobs for now queue=%s", self._queue)
        if self._consumer.task_consumer is not None:
            self._consumer.cancel_task_queue(self._queue)
