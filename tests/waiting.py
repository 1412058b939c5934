"""Wait for a condition, never for a fixed time, and never for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], *, seconds: float = 20.0, what: str = "", every: float = 0.02) -> T:
    """Return the condition's first true value.

    Raises:
        AssertionError: it did not come true in time; says what was waited for and what was last seen.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what or condition}, last saw {value!r}")
        time.sleep(every)
    return value


def stays(condition: Callable[[], bool], *, seconds: float, what: str, every: float = 0.05) -> None:
    """Look many times for that long.

    Raises:
        AssertionError: the condition did not hold at one of the looks.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert condition(), f"expected for {seconds} s: {what}"
        time.sleep(every)
