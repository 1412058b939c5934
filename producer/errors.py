"""What ends a command of the producer, and its exit code.

ProducerError                  2
├── ManifestError              2    the input cannot be used
├── UnknownBatchError          2    no batch of this name
├── OtherManifestError         2    the batch exists, with other jobs
└── RedisUnusableError         3    Redis is unreachable, frozen, full, or refuses us
KeyboardInterrupt              130  Ctrl-C
└── ToldToStopError            143  SIGTERM, as ``docker stop``, systemd and CI send it

A message says what happened, what was expected, what we got, and how to go on.
"""

from __future__ import annotations

import math
import signal
import time
from types import FrameType

_ECHO = 1.0  # seconds; a supervisor and its helper both pass on the signal that ends us


class ProducerError(Exception):
    exit_code = 2


class ManifestError(ProducerError):
    """The input as a whole cannot be used; nothing was submitted."""


class UnknownBatchError(ProducerError):
    def __init__(self, batch: str) -> None:
        super().__init__(
            f"expected the name of a batch, got {batch!r}, which Redis does not know; `producer status` lists them"
        )


class OtherManifestError(ProducerError):
    """The batch has more or fewer jobs than the manifest."""


class RedisUnusableError(ProducerError):
    exit_code = 3


class ToldToStopError(KeyboardInterrupt):
    """SIGTERM came: what is cleaned up and kept after Ctrl-C is so after SIGTERM."""


def raise_on_sigterm() -> None:
    """From now on SIGTERM raises ``ToldToStopError`` in the main thread; so does a later one, but not its echo."""
    told = -math.inf

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        before, told = told, time.monotonic()
        if told - before > _ECHO:
            raise ToldToStopError

    signal.signal(signal.SIGTERM, end)


def code_of_stop(stop: BaseException) -> int:
    """Of a command that an interrupt ended, or click's ``Abort`` that it became: 128 and the signal's number."""
    found = stop if isinstance(stop, KeyboardInterrupt) else stop.__cause__
    return 128 + (signal.SIGTERM if isinstance(found, ToldToStopError) else signal.SIGINT)
