"""When messages were received, by Celery's events and the clocks of who sends them: heard through a real Valkey."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping

import pytest

from ledger.redis_client import connect
from ledger.settings import Settings
from poolbench.workers import Arrivals
from tests.waiting import wait_for

HOUR = 3600.0
CHANNEL = "t:/0.celeryev/task.multi"


def event(host: str, uuid: str, moment: float, type_: str = "task-received") -> Mapping[str, object]:
    return {"type": type_, "uuid": uuid, "hostname": f"threads@{host}", "timestamp": moment}


def enveloped(group: list[Mapping[str, object]]) -> str:
    """As kombu sends it."""
    return json.dumps({"body": json.dumps(group), "properties": {}})


def heard(settings: Settings, *groups: list[Mapping[str, object]]) -> Arrivals:
    """What is known when these groups of events, and one of our own after them, were heard."""
    last = [event(socket.gethostname(), "last", time.time())]
    with connect(settings) as redis, Arrivals(connect(settings, connections=1), settings.key_prefix) as arrivals:
        for group in (*groups, last):
            redis.publish(CHANNEL, enveloped(group))
        wait_for(lambda: "last" in arrivals.moments(), what="the last event")
    return arrivals


@pytest.mark.parametrize("ahead", [3 * HOUR, -5 * HOUR, 2.0])
def test_a_clock_that_is_off_is_known_by_its_quickest_event(settings: Settings, ahead: float) -> None:
    """Given an event that was 30 s on its way and a prompt one, I expect both moments by our clock."""
    now = time.time()
    late, prompt = event("far", "late", now - 30 + ahead), event("far", "prompt", now + ahead)

    found = heard(settings, [late], [prompt])

    assert found.ahead()["far"] == pytest.approx(ahead, abs=1)
    assert found.moments()["late"] == pytest.approx(now - 30, abs=1)
    assert found.moments()["prompt"] == pytest.approx(now, abs=1)
    assert found.moments()["prompt"] - found.moments()["late"] == pytest.approx(30)


def test_events_of_other_kinds_tell_the_clock_too(settings: Settings) -> None:
    now = time.time() + HOUR
    slow, prompt = event("far", "slow", now - 60), event("far", "slow", now, "task-started")

    found = heard(settings, [slow, prompt])

    assert found.moments()["slow"] == pytest.approx(now - 60 - HOUR, abs=1)


def test_of_our_own_host_nothing_is_set_right(settings: Settings) -> None:
    """However long it was on its way: there is but one clock."""
    now = time.time()

    found = heard(settings, [event(socket.gethostname(), "ours", now - 40)])

    assert found.moments()["ours"] == now - 40
    assert found.ahead() == {socket.gethostname(): 0.0}


def test_less_than_an_event_may_take_is_no_difference(settings: Settings) -> None:
    """Given a container: another host's name, and our clock."""
    names = [f"job-{n}" for n in range(200)]  # some of them prompt, however busy this machine is
    said: dict[str, float] = {}
    with connect(settings) as redis, Arrivals(connect(settings, connections=1), settings.key_prefix) as arrivals:
        for name in names:
            said[name] = time.time()
            redis.publish(CHANNEL, enveloped([event("container", name, said[name])]))
        wait_for(lambda: len(arrivals.moments()) == len(names), what="all events")

    assert arrivals.ahead() == {"container": 0.0}
    assert arrivals.moments() == said


def test_what_is_no_event_of_a_task_changes_nothing(settings: Settings) -> None:
    found = heard(settings, [{"type": "task-received", "uuid": "x", "timestamp": "soon"}, {"uuid": "y"}])

    assert set(found.moments()) == {"last"}
