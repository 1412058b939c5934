"""Whose turn it is to lead a group, and when nobody waits for one."""

from __future__ import annotations

import threading

import pytest

from tests.waiting import wait_for
from worker.gather import _Recent


@pytest.fixture
def recent() -> _Recent:
    recent = _Recent()
    recent.note(0.01)
    return recent


class Message:
    """Arrives in a thread of its own; ``leads`` once it is known whether it may."""

    def __init__(self, recent: _Recent) -> None:
        self.leads: bool | None = None
        self._recent = recent
        self._known = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.leads = self._recent.begin()
        self._known.set()

    def wait(self) -> bool | None:
        assert self._known.wait(10)
        return self.leads


def test_a_new_process_knows_nothing_and_one_short_job_is_enough() -> None:
    recent = _Recent()
    assert not recent.begin()
    recent.note(0.01)
    assert recent.begin()


def test_after_a_long_job_several_short_ones_are_needed(recent: _Recent) -> None:
    recent.note(60.0)
    needed = 0
    while not recent.short:
        recent.note(0.01)
        needed += 1
    assert 3 <= needed <= 10


def test_messages_lead_one_after_the_other_in_the_order_in_which_they_came(recent: _Recent) -> None:
    assert recent.begin()
    waiting = []
    for number in range(3):
        waiting.append(Message(recent))
        wait_for(lambda count=number + 1: len(recent._waiting) == count)  # type: ignore[misc]
    for message in waiting:
        assert [other.leads for other in waiting[waiting.index(message) :]] == [None] * (3 - waiting.index(message))
        recent.end()
        assert message.wait()
    recent.end()
    assert recent.begin()


def test_no_message_waits_for_a_group_that_takes_long(recent: _Recent) -> None:
    assert recent.begin()
    first, second = Message(recent), Message(recent)
    assert [first.wait(), second.wait()] == [False, False]
    recent.end()
    assert recent.begin()


def test_no_message_waits_once_a_job_of_the_group_is_long(recent: _Recent) -> None:
    assert recent.begin()
    waiting = Message(recent)
    wait_for(lambda: recent._waiting)
    recent.note(1.0)
    assert waiting.wait() is False
    assert not recent.begin()
