"""Calls that wait in a queue are written down exactly, and the queue stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.poolbench import foreign_projects
from tests.poolbench.environment import Installed
from tests.valkey_process import ValkeyProcess

pytestmark = pytest.mark.timeout(400)  # the first one makes the environment

LONG = "http://x/" + "y" * 3000


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_the_oldest_calls_come_first_whole_and_stay(
    installed: Installed, valkey: ValkeyProcess, tmp_path: Path, prefix: str
) -> None:
    more = f'app.conf.broker_transport_options = {{"global_keyprefix": "{prefix}"}}'
    project = foreign_projects.write(tmp_path / "project", foreign_projects.plain(valkey.url, more))
    send = (
        "from shop.tasks import fetch, compute, app\n"
        f"fetch.apply_async(args=[{LONG!r}]); compute.apply_async(kwargs={{'n': 7}})\n"
        "fetch.apply_async(args=['pickled'], serializer='pickle'); fetch.delay('last')\n"
    )
    sent = installed.call("python", "-c", send, cwd=project)
    assert sent.returncode == 0, sent.stderr
    with valkey.client() as redis:
        assert redis.llen(f"{prefix}work") == 4
        before = redis.lrange(f"{prefix}work", 0, -1)

        target = tmp_path / "args.jsonl"
        done = installed.run("record", "-A", "shop.celery", "--queue", "work", "-o", target, cwd=project)
        assert done.returncode == 0, done.stderr
        assert redis.lrange(f"{prefix}work", 0, -1) == before
    assert "3 calls of 4 that wait; 1 were not JSON" in done.stdout
    assert [json.loads(line) for line in target.read_text().splitlines()] == [
        {"task": "shop.tasks.fetch", "args": [LONG], "kwargs": {}},
        {"task": "shop.tasks.compute", "args": [], "kwargs": {"n": 7}},
        {"task": "shop.tasks.fetch", "args": ["last"], "kwargs": {}},
    ]
    assert target.stat().st_mode & 0o777 == 0o600

    done = installed.run("record", "-A", "shop.celery", "-Q", "work", "--most", 1, "-o", target, cwd=project)
    assert [json.loads(line)["args"] for line in target.read_text().splitlines()] == [[LONG]]


def test_an_empty_queue_and_a_broker_that_is_no_redis_are_said(
    installed: Installed, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    project = foreign_projects.write(tmp_path / "a", foreign_projects.plain(valkey.url))
    done = installed.run("record", "-A", "shop.celery", "-Q", "work", "-o", tmp_path / "x", cwd=project)
    assert (done.returncode, (tmp_path / "x").exists()) == (1, False)
    assert "got 0 messages; nothing written" in done.stderr

    project = foreign_projects.write(
        tmp_path / "b", foreign_projects.plain("memory://", 'app.conf.result_backend = ""')
    )
    done = installed.run("record", "-A", "shop.celery", "-Q", "work", "-o", tmp_path / "x", cwd=project)
    assert done.returncode == 2
    assert "expected a Redis broker, got memory://" in done.stderr
