"""A worker stops, or takes no jobs for a while: the grace of running jobs when it stops, and its queue's consumption.

It stops in one way, however it is told to: by a signal, or by remote control. The moment until which running jobs may
go on lies in memory that prefork children share with their parent (a mapping made before the fork), because only the
parent hears of it. In the other pools it is the same process. Setting it is a plain write: under gevent the signal
handler runs in the hub, where nothing may block. Kept true by ``tests/fault/test_ways_to_stop.py``.
"""

from __future__ import annotations

import logging
import mmap
import struct
import time
from typing import Any

log = logging.getLogger("downpour.worker")

_ECHO = 1.0  # seconds; a supervisor and its helper both pass on the signal that ends a worker

# Two doubles by CLOCK_MONOTONIC of this machine, the same in all its processes: until when jobs may go on (0: no
# stop), and when the worker was last told to stop.
_moments = mmap.mmap(-1, 16)


def start(grace: float) -> None:
    """Nothing new is begun, and running jobs may go on for ``grace`` seconds; told again, they are handed back now."""
    until, told = struct.unpack("dd", _moments[:])
    now = time.monotonic()
    if not until:
        until = now + grace
    elif now - told > _ECHO:
        until = min(until, now)
    _moments[:] = struct.pack("dd", until, now)


def stopping() -> bool:
    return _until() > 0


def over() -> bool:
    """Whether the grace is used up, and running jobs are to be handed back."""
    return 0 < _until() <= time.monotonic()


def _until() -> float:
    moment: float = struct.unpack_from("d", _moments)[0]
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
