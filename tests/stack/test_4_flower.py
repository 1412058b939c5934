"""Flower is legible from its first view, open to look at, and closed to meddling unless it has a password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from tests.stack.compose_project import Stack
from tests.waiting import wait_for

QUEUES = ["downloads.gevent", "downloads.prefork", "downloads.threads"]
USER = "stack:only-for-this-test"


def ask(stack: Stack, path: str, *, user: str = "", data: bytes | None = None) -> tuple[int, str]:
    headers = urllib3.make_headers(basic_auth=user) if user else None
    answer = urllib3.request(
        "GET" if data is None else "POST",
        stack.flower_url + path,
        headers=headers,
        body=data,
        retries=False,
        timeout=10,
    )
    return answer.status, answer.data.decode(errors="replace")


def queues_shown(page: str) -> list[str]:
    return [queue for queue in ["celery", *QUEUES] if f"<td>{queue}</td>" in page]


def workers_shown(stack: Stack, user: str = "") -> list[dict[str, Any]]:
    status, body = ask(stack, "/workers?json=1", user=user)
    assert status == 200
    workers: list[dict[str, Any]] = json.loads(body)["data"]
    return workers


@pytest.fixture
def with_password(stack: Stack) -> Iterator[Stack]:
    stack.settings["FLOWER_BASIC_AUTH"] = USER
    stack.up("--no-deps", "flower")
    yield stack
    del stack.settings["FLOWER_BASIC_AUTH"]
    stack.up("--no-deps", "flower")


def test_the_workers_page_lists_one_worker_per_pool(stack: Stack) -> None:
    def online() -> list[str]:
        return sorted(each["hostname"].partition("@")[0] for each in workers_shown(stack) if each["status"])

    wait_for(lambda: online() == ["gevent", "prefork", "threads"], what="one worker per pool, each heard of")


def test_a_task_is_shown_with_its_file_and_its_outcome(stack: Stack) -> None:
    url = "http://origin:8080/files/Seen_in_Flower.bin?size=2000&token=secret"
    said = stack.producer("submit", url, "--pool", "threads", "--name", "stack-seen", "--wait")
    assert said.code == 0, said.out + said.err

    def shown() -> str:
        status, page = ask(stack, "/task/stack-seen.0")
        return page if status == 200 and "SUCCESS" in page else ""

    page = wait_for(shown, what="Flower to have heard of the end")  # the ledger knows it first
    assert "Seen_in_Flower.bin" in page
    assert "secret" not in page


def test_an_open_flower_lets_nobody_meddle(stack: Stack) -> None:
    hostname = workers_shown(stack)[0]["hostname"]
    assert ask(stack, "/api/workers")[0] == 401
    assert ask(stack, f"/api/worker/shutdown/{hostname}", data=b"")[0] in (401, 403)
    assert "shutdown" not in ask(stack, f"/worker/{hostname}")[1].lower().replace("worker-shutdown-", "")


def test_a_password_opens_the_api_and_closes_the_pages(with_password: Stack) -> None:
    for path in ("/", "/lanes", "/lanes/feed", "/lanes/lanes.js"):
        assert ask(with_password, path)[0] == 401
    assert ask(with_password, "/healthcheck") == (200, "OK")
    status, body = ask(with_password, "/api/workers?refresh=1", user=USER)
    assert status == 200
    online = [worker["hostname"] for worker in workers_shown(with_password, USER) if worker["status"]]
    assert set(online) <= set(json.loads(body))
    assert queues_shown(ask(with_password, "/broker", user=USER)[1]) == QUEUES


def test_history_outlives_flower(stack: Stack) -> None:
    # Given that the test before has replaced Flower's container twice, I expect that it still knows the task.
    assert "Seen_in_Flower.bin" in ask(stack, "/task/stack-seen.0")[1]
