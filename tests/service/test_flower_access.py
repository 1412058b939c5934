"""Flower as it is deployed: who is answered, what a browser may do with a page, and what its user in Redis may do."""

from __future__ import annotations

import json
import re
import socket
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256

import pytest
import urllib3
from redis import Redis

from ledger.jobs import Pool
from stack.plan import HOST
from stack.stack import Stack
from tests.producer_process import finish, start
from tests.waiting import wait_for

USER = "stack:only-for-this-test"
PREFIX = "/tools/flower"
WORKER = f"threads@{socket.gethostname()}"
PAGES = ["/", "/workers", "/tasks", "/broker", f"/worker/{WORKER}", "/lanes", "/nowhere"]


@pytest.fixture(scope="module")
def open_() -> Iterator[Stack]:
    with Stack({Pool.THREADS: 2}, flower=True, settings={"FLOWER_ALLOWED_HOSTS": "Flower.example, b.example"}) as stack:
        yield stack


@pytest.fixture(scope="module")
def closed() -> Iterator[Stack]:
    settings = {"FLOWER_BASIC_AUTH": USER, "FLOWER_URL_PREFIX": PREFIX.strip("/")}
    with Stack({Pool.THREADS: 2}, flower=True, settings=settings) as stack:
        yield stack


def ask(stack: Stack, path: str, method: str = "GET", *, user: str = "", **more: str) -> urllib3.BaseHTTPResponse:
    headers = (urllib3.make_headers(basic_auth=user) if user else {}) | more
    return urllib3.request(
        method, stack.plan.flower_url + path, headers=headers, retries=False, timeout=20, redirect=False
    )


@pytest.mark.parametrize(
    "host", ["127.0.0.1:5555", "localhost", "[::1]:5555", "192.168.0.7", "flower.example", "b.example"]
)
def test_an_address_and_a_name_that_is_listed_are_answered(open_: Stack, host: str) -> None:
    assert ask(open_, "/", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "flower.example.x"]
)
def test_a_name_that_leads_here_and_is_not_listed_is_not_answered(open_: Stack, host: str) -> None:
    for path in [*PAGES, "/lanes/feed", "/metrics", "/tasks/datatable", "/static/js/flower.js"]:
        said = ask(open_, path, Host=host)
        assert said.status == 421, path
        assert f"FLOWER_ALLOWED_HOSTS, got '{host}'" in said.data.decode()
    assert ask(open_, "/healthcheck", Host=host).data == b"OK"


def test_no_page_can_be_framed_and_each_runs_only_its_own_scripts(open_: Stack) -> None:
    for path in PAGES:
        said = ask(open_, path)
        policy = said.headers["Content-Security-Policy"]
        assert said.headers["X-Frame-Options"] == "DENY", path
        assert "frame-ancestors 'none'" in policy, path
        for script in re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", said.data.decode(), re.DOTALL):
            digest = b64encode(sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy, (path, script)


def test_a_password_closes_the_metrics_and_a_prefix_leaves_it_healthy(open_: Stack, closed: Stack) -> None:
    assert ask(open_, "/metrics").status == 200
    for path in ("/metrics", "/", "/lanes", "/lanes/feed", "/lanes/lanes.js"):
        assert ask(closed, PREFIX + path).status == 401, path
        if path != "/lanes/feed":
            assert ask(closed, PREFIX + path, user=USER).status == 200, path
    for path in ("/healthcheck", f"{PREFIX}/healthcheck"):
        assert ask(closed, path).data == b"OK"
    assert f"{PREFIX}/lanes/lanes.js" in ask(closed, f"{PREFIX}/lanes", user=USER).data.decode()


def test_flower_does_its_work_with_its_rights_and_cannot_submit(closed: Stack) -> None:
    plan = closed.plan
    admin = Redis(
        host=HOST,
        port=plan.redis_port,
        username="admin",
        password=(plan.private / "keys/admin/password").read_text().strip(),
        decode_responses=True,
    )

    def refused() -> bool:
        """Whether Flower tried what it may not do."""
        return "flower" in {str(entry["username"]) for entry in admin.acl_log()}

    def page(path: str) -> str:
        return ask(closed, PREFIX + path, user=USER).data.decode()

    url = f"{plan.origin_url}/files/Seen_in_Flower.bin?size=2000"
    said = finish(start(plan.env("producer"), "submit", "--name", "b", "--pool", "threads", "--wait", url))
    assert said.code == 0, said.err
    wait_for(lambda: "SUCCESS" in page("/task/b.0"), seconds=30, what="the row to end")
    assert WORKER in json.loads(page("/api/workers?refresh=1"))
    assert "downloads.threads" in page(f"/worker/{WORKER}")
    assert json.loads(page("/api/queues/length"))["active_queues"]
    assert ask(closed, f"{PREFIX}/api/task/revoke/b.0", "POST", user=USER).status == 200
    grown = ask(closed, f"{PREFIX}/api/worker/pool/shrink/{WORKER}?n=0", "POST", user=USER)
    assert grown.status in (200, 403), "an answer of the worker, whatever it is"
    assert not refused()

    answer = ask(closed, f"{PREFIX}/api/task/send-task/downpour.download", "POST", user=USER)
    assert answer.status >= 500
    assert admin.llen("dp:downloads.threads") == 0
    assert refused()
