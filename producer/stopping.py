"""SIGTERM, as ``docker stop``, systemd and CI send it, ends a command as Ctrl-C does: in an orderly way.

Whatever is cleaned up or kept when a person interrupts is so when a program does; only the exit code differs.
"""

from __future__ import annotations

import math
import signal
import time
from types import FrameType

SAME = 1.0  # seconds; a supervisor and its helper both pass on the signal that ends us
_INTERRUPTED = 128 + signal.SIGINT


class ToldToStopError(KeyboardInterrupt):
    """SIGTERM came."""


def heed() -> None:
    """From now on SIGTERM raises ``ToldToStopError`` in the main thread; so does a later one, but not its echo."""
    told = -math.inf

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        before, told = told, time.monotonic()
        if told - before > SAME:
            raise ToldToStopError

    signal.signal(signal.SIGTERM, end)


def exit_code(stop: BaseException) -> int:
    """Of a command that an interrupt ended, or click's ``Abort`` that it became: 128 and the signal's number."""
    found = stop if isinstance(stop, KeyboardInterrupt) else stop.__cause__
    return 128 + signal.SIGTERM if isinstance(found, ToldToStopError) else _INTERRUPTED
