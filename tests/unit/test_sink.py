"""The room that an attempt receives into, and the thread that goes on with it under gevent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from download.tempfile import _BURST, PIECE, TempFile
from download.threads import Run
from download.validators import Validators
from tests.waiting import wait_for

UNKNOWN = Validators("http://h/", None, None, None)


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)


def filled(folder: Path, run: Run) -> TempFile:
    """A temp with as much room as there can be, all of it taken, and nothing written."""
    runs: list[Run] = [in_a_thread]

    def last(work: Callable[[], None]) -> None:
        runs[-1](work)

    temp = TempFile(folder / "t.part", last)
    temp.begin(UNKNOWN)
    while len(temp.space()) < PIECE:
        temp.took(len(temp.space()))
        temp.flush()
    temp.took(PIECE)
    runs.append(run)
    return temp


def test_a_thread_goes_on_for_a_moment_and_no_longer(tmp_path: Path) -> None:
    """Given a server that always has more: the greenlet would never be asked again whether to stop."""
    temp, untils = filled(tmp_path, in_a_thread), list[float]()

    def refill(until: float) -> bool:
        assert time.monotonic() < until
        untils.append(until)
        temp.took(len(temp.space()))
        return True

    before, begun = temp.written, time.monotonic()
    temp.flush(refill)
    assert len(untils) > 1
    assert len(set(untils)) == 1
    assert begun + _BURST <= untils[0] <= time.monotonic()
    assert temp.written == before + (1 + len(untils)) * PIECE


def test_what_a_thread_receives_after_its_greenlet_was_killed_is_not_written(tmp_path: Path) -> None:
    """The connection is closed by then, and its number may be another download's."""
    receiving, killed = threading.Event(), threading.Event()

    def run(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()
        assert receiving.wait(10)
        raise KeyboardInterrupt

    temp = filled(tmp_path, run)
    before = temp.written

    def refill(until: float) -> bool:
        receiving.set()
        assert killed.wait(10)
        temp.took(PIECE)
        return True

    with pytest.raises(KeyboardInterrupt):
        temp.flush(refill)
    killed.set()
    wait_for(lambda: not temp.lent, what="the thread to leave the file")
    assert temp.written == before + PIECE
    temp.close()
