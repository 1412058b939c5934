"""What the page of lanes is sent: bars made of events, and no more of them than it keeps."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from deploy.lanes_page import KEPT, WORKERS, Board

WORKER = "threads@here"


class Heard(Board):
    """A board that takes short events, and can be asked."""

    def task(self, what: str, ref: str = "b.0", thread: int = 11, moment: float = 100.0, **fields: Any) -> None:
        event = {"type": f"task-{what}", "hostname": WORKER, "uuid": ref, "timestamp": moment, **fields}
        if what == "started":
            event["executor"] = ["family", 10, thread, None]
        self.take(event, "File.pdf from origin")

    def totals(self, held: int) -> None:
        self.take({"type": "ledger-totals", "processes": [[WORKER, "threads", "family", 10, held]]}, None)

    def bars(self) -> list[dict[str, Any]]:
        bars: list[dict[str, Any]] = json.loads(self.everything().removeprefix("data: "))["bars"]
        return bars

    def states(self) -> list[str]:
        return [bar["state"] for bar in self.bars()]


def test_a_bar_is_an_execution_on_its_executor() -> None:
    heard = Heard()
    heard.task("started")
    heard.task("progress", result="50 %")
    heard.task("succeeded", moment=103.0, result="done: 5 bytes")
    (bar,) = heard.bars()
    assert bar == {
        "n": 0,
        "worker": WORKER,
        "id": "b.0",
        "label": "File.pdf from origin",
        "family": "family",
        "pid": 10,
        "thread": 11,
        "greenlet": None,
        "start": 100.0,
        "end": 103.0,
        "state": "done",
        "note": "done: 5 bytes",
    }


@pytest.mark.parametrize(
    ("end", "said", "state"),
    [
        ("failed", "JobFailedError('status: 404')", "failed"),
        ("retried", "its process died", "lost"),
        ("retried", "its worker process died; jobs queued again: 1", "lost"),
        ("retried", "not begun: the worker stops; the job stays queued", "returned"),
        ("revoked", "cancelled by request", "cancelled"),
    ],
)
def test_an_end_has_its_state(end: str, said: str, state: str) -> None:
    heard = Heard()
    heard.task("started")
    heard.task(end, exception=said)
    assert heard.states() == [state]


@pytest.mark.parametrize("first", ["started", "progress"])
def test_a_group_that_a_task_gathered_has_its_count_whatever_was_heard_first(first: str) -> None:
    heard = Heard()
    for what in sorted(["started", "progress"], key=lambda each: each != first):
        heard.task(what, jobs=64) if what == "progress" else heard.task(what)
    heard.task("succeeded", result="64 of 64 done")
    assert [(bar["jobs"], bar["state"]) for bar in heard.bars()] == [(64, "done")]


def test_counts_of_groups_that_never_began_do_not_pile_up() -> None:
    heard = Heard()
    for n in range(1000):
        heard.task("progress", f"b.{n}", jobs=2)
    assert len(heard._early) <= WORKERS


def test_a_worker_is_told_by_its_pool_and_its_slots() -> None:
    heard = Heard()
    for family, pool, slots in (("a", "prefork", 4), ("b", "threads", 1), ("c", "gevent", 100)):
        beat = {"type": "worker-heartbeat", "hostname": f"{pool}@here", "pid": 1, "slots": slots, "family": family}
        heard.take(beat | {"pool": pool}, None)
        heard.take(beat | {"family": f"old-{family}", "hostname": f"old-{pool}@here"}, None)  # says no pool
    seen = [heard.model(f"{pool}@here") for pool in ("prefork", "threads", "gevent", "old-gevent", "unknown")]
    assert seen == ["prefork · 4 processes", "threads · 1 thread", "gevent · 100 greenlets", "", ""]


def test_an_executor_runs_one_message_at_a_time() -> None:
    heard = Heard()
    heard.task("started", "b.0")
    heard.task("started", "b.1")
    assert heard.states() == ["unknown", "running"]
    heard.task("started", "b.1", thread=12)  # it came back to another thread, and its first end was not heard
    assert heard.states() == ["unknown", "unknown", "running"]


def test_what_runs_in_a_process_without_jobs_is_over_when_that_was_said_twice() -> None:
    heard = Heard()
    heard.task("started")
    heard.task("started", "b.1", thread=12, moment=time.time())  # may not have been claimed yet
    heard.totals(1)
    heard.totals(0)
    assert heard.states() == ["running", "running"]
    heard.totals(0)
    assert heard.states() == ["unknown", "running"]


def test_200_000_events_leave_no_more_than_what_is_kept() -> None:
    heard = Heard()
    for n in range(100_000):
        heard.task("started", f"b.{n}", thread=n % 100)
        if n % 10:
            heard.task("succeeded", f"b.{n}")
        heard.take({"type": "worker-heartbeat", "hostname": WORKER, "pid": n, "slots": 4, "family": str(n)}, None)
    assert len(heard.bars()) <= KEPT + 100
    assert len(heard.everything()) < 1_000_000
