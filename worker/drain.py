"""The drain flag: after SIGTERM, the moment until which running jobs may go on.

It lies in memory that prefork children share with their parent (a mapping made before the fork), because only the
parent hears the signal. In the other pools it is the same process. Setting it is a plain write: under gevent the
signal handler runs in the hub, where nothing may block.
"""

from __future__ import annotations

import mmap
import struct
import time

_moment = mmap.mmap(-1, 8)  # a double: CLOCK_MONOTONIC of this machine, the same in all its processes; 0 = no drain


def start(grace: float) -> None:
    """Running jobs may go on for ``grace`` seconds; nothing new is begun."""
    if not draining():
        _moment[:8] = struct.pack("d", time.monotonic() + grace)


def draining() -> bool:
    return _until() > 0


def over() -> bool:
    """Whether the grace is used up, and running jobs are to be handed back."""
    until = _until()
    return 0 < until <= time.monotonic()


def _until() -> float:
    moment: float = struct.unpack("d", _moment[:8])[0]
    return moment
