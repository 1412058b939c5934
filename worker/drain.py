"""A worker stops, or takes no jobs for a while: the grace of running jobs after SIGTERM, and its queue's consumption.

The moment until which running jobs may go on lies in memory that prefork children share with their parent (a mapping
made before the fork), because only the parent hears the signal. In the other pools it is the same process. Setting it
is a plain write: under gevent the signal handler runs in the hub, where nothing may block.
"""

from __future__ import annotations

import logging
import mmap
import struct
import time
from typing import Any

log = logging.getLogger("downpour.worker")

_moment = mmap.mmap(-1, 8)  # a double: CLOCK_MONOTONIC of this machine, the same in all its processes; 0 = no drain


def start(grace: float) -> None:
    """Running jobs may go on for ``grace`` seconds; nothing new is begun."""
    if not draining():
        _moment[:8] = struct.pack("d", time.monotonic() + grace)


def draining() -> bool:
    return _until() > 0


def over() -> bool:
    """Whether the grace is used up, and running jobs are to be handed back."""
    return 0 < _until() <= time.monotonic()


def _until() -> float:
    moment: float = struct.unpack("d", _moment[:8])[0]
    return moment


def consume(consumer: Any, queue: str, *, may: bool) -> None:
    """See to it that a worker consumes its queue, or does not while it may not: paused, drained, or unwell.

    To be repeated until it is so, from any thread. It only asks: the loop that consumes does the rest, in its own time
    (at most two seconds later under gevent), because a channel belongs to the thread that uses it. A message that comes
    in between is claimed in vain and stays queued. Kept true by ``tests/pools/test_control.py``.

    Args:
        consumer: Celery's, of this worker.
    """

    def change() -> None:
        log.info("takes jobs again queue=%s" if may else "takes no jobs for now queue=%s", queue)
        if consumer.task_consumer is not None:  # else it is reconnecting, and asked again when it is back
            (consumer.add_task_queue if may else consumer.cancel_task_queue)(queue)

    if may != (queue in consumer.app.amqp.queues.consume_from):
        consumer.call_soon(change)
