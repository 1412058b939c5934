"""The room that an attempt receives into, and the thread that goes on with it under gevent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from download.partial import Partial
from download.sink import _BURST, PIECE, Buffer
from download.threads import Run
from download.validators import Validators
from tests.waiting import wait_for

UNKNOWN = Validators("http://h/", None, None, None)


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)


def filled(folder: Path, run: Run) -> Buffer:
    """A buffer with as much room as there can be, all of it taken, and nothing written."""
    runs: list[Run] = [in_a_thread]

    def last(work: Callable[[], None]) -> None:
        runs[-1](work)

    buffer = Buffer(Partial(folder / "t.part"), last, 1 << 40, None)
    buffer.begin(UNKNOWN)
    while len(buffer.space()) < PIECE:
        buffer.took(len(buffer.space()))
        buffer.flush()
    buffer.took(PIECE)
    runs.append(run)
    return buffer


def test_a_thread_goes_on_for_a_moment_and_no_longer(tmp_path: Path) -> None:
    """Given a server that always has more: the greenlet would never be asked again whether to stop."""
    buffer, untils = filled(tmp_path, in_a_thread), list[float]()

    def refill(until: float) -> bool:
        assert time.monotonic() < until
        untils.append(until)
        buffer.took(len(buffer.space()))
        return True

    before, begun = buffer.partial.size, time.monotonic()
    buffer.flush(refill)
    assert len(untils) > 1
    assert len(set(untils)) == 1
    assert begun + _BURST <= untils[0] <= time.monotonic()
    assert buffer.partial.size == before + (1 + len(untils)) * PIECE


def test_what_a_thread_receives_after_its_greenlet_was_killed_is_not_written(tmp_path: Path) -> None:
    """The connection is closed by then, and its number may be another download's."""
    receiving, killed = threading.Event(), threading.Event()

    def run(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()
        assert receiving.wait(10)
        raise KeyboardInterrupt

    buffer = filled(tmp_path, run)
    before = buffer.partial.size

    def refill(until: float) -> bool:
        receiving.set()
        assert killed.wait(10)
        buffer.took(PIECE)
        return True

    with pytest.raises(KeyboardInterrupt):
        buffer.flush(refill)
    killed.set()
    wait_for(lambda: not buffer.partial.lent, what="the thread to leave the file")
    assert buffer.partial.size == before + PIECE
    buffer.partial.close()
