"""`make up ARGS=--faults`: signals for the workers of this stack only, and for its own page only."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from ledger.jobs import Pool
from stack.faults import FaultServer
from stack.plan import HOST
from stack.stack import Stack
from tests.waiting import wait_for

STOPPED = psutil.STATUS_STOPPED


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FaultServer, Stack]]:
    with FaultServer() as faults, Stack({Pool.PREFORK: 2}, origin=False) as stack:
        faults.serve(stack)
        yield faults, stack


def headers(served: tuple[FaultServer, Stack], **other: str | None) -> dict[str, str]:
    """Those of the page, but for the other ones; None: without it."""
    faults, stack = served
    those = {"Host": faults.host, "Origin": stack.plan.flower_url, "Authorization": f"Bearer {faults.token}"}
    return {name: value for name, value in (those | other).items() if value is not None}


def ask(faults: FaultServer, path: str, head: dict[str, str], method: str = "POST") -> tuple[int, dict[str, Any], Any]:
    connection = http.client.HTTPConnection(faults.host, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in head.items():
        connection.putheader(name, value)
    connection.endheaders()
    with connection.getresponse() as answer:
        return answer.status, json.loads(answer.read()), answer.headers


def child_of(stack: Stack) -> psutil.Process:
    main = stack.processes["worker-prefork"].pid
    return wait_for(lambda: min(psutil.Process(main).children(), key=lambda child: child.pid, default=None))


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": f"{HOST}:80"}, 421),
        ({"Host": "localhost"}, 421),
        ({"Host": None}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": f"http://{HOST}:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer é"}, 401),
    ],
)
def test_who_is_not_the_page_of_this_run_is_refused(
    served: tuple[FaultServer, Stack], other: dict[str, str | None], status: int
) -> None:
    faults, stack = served
    child = child_of(stack)
    for method, path in (("POST", f"/freeze/{child.pid}"), ("GET", "/")):
        got, said, answered = ask(faults, path, headers(served, **other), method)
        assert got == status
        assert said["error"].startswith("expected ")
        assert ("Access-Control-Allow-Origin" in answered) == (status == 401), "no other page may read an answer"
        assert faults.token not in str(said)
    assert child.status() != STOPPED


def test_a_browser_may_ask_before_it_sends_the_token(served: tuple[FaultServer, Stack]) -> None:
    flower = served[1].plan.flower_url
    for origin, expected in (
        (flower, (200, flower)),
        (flower.replace(HOST, "localhost"), (200, flower.replace(HOST, "localhost"))),
        ("http://evil.example", (403, None)),
    ):
        head = headers(served, Authorization=None, Origin=origin)
        status, _, answered = ask(served[0], "/kill/1", head, "OPTIONS")
        assert (status, answered["Access-Control-Allow-Origin"]) == expected


def test_only_workers_and_their_children_can_be_hit(served: tuple[FaultServer, Stack]) -> None:
    faults, stack = served
    others = [os.getpid(), 1, stack.processes["valkey"].pid, stack.processes["sweep"].pid, 2**40]
    for target in [*map(str, others), "", "x", "-1", "9" * 5000, f"{child_of(stack).pid}/.."]:
        status, said, _ = ask(faults, f"/freeze/{target}", headers(served))
        assert (status, list(said)) == (404, ["error"])
    assert ask(faults, f"/terminate/{child_of(stack).pid}", headers(served))[0] == 404
    assert all(psutil.Process(pid).status() != STOPPED for pid in others[2:4])
    stack.check()


def test_a_child_is_frozen_woken_and_killed(served: tuple[FaultServer, Stack]) -> None:
    faults, stack = served
    child = child_of(stack)
    frozen = {"frozen": {str(child.pid): "worker-prefork"}}
    ask(faults, f"/freeze/{child.pid}", headers(served))
    wait_for(lambda: child.status() == STOPPED, what="it to be frozen")
    assert ask(faults, "/", headers(served), "GET")[:2] == (200, frozen)
    assert ask(faults, f"/wake/{child.pid}", headers(served))[:2] == (200, {"frozen": {}})
    assert child.status() != STOPPED
    assert ask(faults, f"/kill/{child.pid}", headers(served))[0] == 200
    wait_for(lambda: not child.is_running(), what="it to be gone")
    wait_for(lambda: len(psutil.Process(stack.processes["worker-prefork"].pid).children()) >= 2, what="another child")


def test_a_worker_that_is_killed_is_started_again_and_can_be_hit_again(served: tuple[FaultServer, Stack]) -> None:
    faults, stack = served
    before = stack.processes["worker-prefork"].pid
    assert ask(faults, f"/kill/{before}", headers(served))[0] == 200

    def revived() -> bool:
        stack.revive()
        return stack.processes["worker-prefork"].pid != before

    wait_for(revived, what="the worker to be started again")
    assert ask(faults, f"/kill/{before}", headers(served))[0] == 404
    now = str(stack.processes["worker-prefork"].pid)
    wait_for(lambda: now in faults.processes())


def test_it_listens_on_loopback_and_only_while_it_lasts() -> None:
    def listening() -> list[tuple[str, int]]:
        found = psutil.Process().net_connections(kind="inet")
        return [(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN]

    before = listening()
    with FaultServer() as faults:
        assert set(listening()) - set(before) == {(HOST, faults.server_address[1])}
        no_stack = {"Host": faults.host, "Origin": f"http://{HOST}:5555", "Authorization": f"Bearer {faults.token}"}
        assert ask(faults, "/", no_stack, "GET")[0] == 403, "the stack is not up yet"
    assert listening() == before
