"""A Redis that is away, frozen, full or locked: the producer says so, in time, and says how to go on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from ledger.ledger import Ledger
from ledger.redis_client import connect
from ledger.settings import Settings
from tests.producer_process import finish, run, start
from tests.refusals import REFUSALS
from tests.valkey_process import ValkeyProcess
from tests.waiting import stays, wait_for

COMMANDS = [("submit", "http://a/x"), ("status",), ("watch", "b"), ("results", "b"), ("cancel", "b")]


@pytest.fixture
def own_valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess(appendonly=True) as process:
        yield process


@pytest.fixture
def own(own_valkey: ValkeyProcess) -> Settings:
    """With the timeouts that a person has."""
    return Settings(redis_url=own_valkey.url, key_prefix="t:", redis_patience=5.0)


@contextmanager
def watching(own: Settings, *, patience: float) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A watch of a batch of one job that nobody runs, which has said so; and its output."""
    run(own, "submit", "--name", "b", "http://a/x")
    with start(own.model_copy(update={"redis_patience": patience}), "watch", "b", "--every", "0.1") as process:
        try:
            assert process.stdout is not None
            assert "0/1 done, 1 queued" in process.stdout.readline()
            yield process, process.stdout
        finally:
            process.kill()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Of 8,000 jobs."""
    file = tmp_path / "m.txt"
    file.write_text("".join(f"http://a/{number}\n" for number in range(8000)))
    return file


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_without_redis_every_command_ends_soon(
    own_valkey: ValkeyProcess, own: Settings, words: tuple[str, ...]
) -> None:
    own_valkey.kill()
    began = time.monotonic()
    said = run(own, *words)
    assert time.monotonic() - began < 5
    assert (said.code, said.out) == (3, "")
    assert f"Redis at 127.0.0.1:{own_valkey.port} cannot be used" in said.err
    assert "Connection refused" in said.err


def test_a_frozen_redis_is_given_up_within_five_seconds(own_valkey: ValkeyProcess, own: Settings) -> None:
    own_valkey.freeze()
    others = [start(own, "watch", "b")]
    began = time.monotonic()
    said = run(own, "submit", "http://a/x")
    assert time.monotonic() - began < 5
    for answer in (said, *map(finish, others)):
        assert answer.code == 3
        assert "no answer within 4 s" in answer.err


def test_a_redis_that_freezes_during_a_submission_is_given_up_and_nothing_is_lost(
    own_valkey: ValkeyProcess, own: Settings, manifest: Path
) -> None:
    own = own.model_copy(update={"redis_timeout": 2.0})
    ledger = Ledger(connect(own), own.key_prefix)
    with start(own, "submit", "-i", manifest, "--name", "b") as process:
        wait_for(lambda: (batch := ledger.batch("b")) and batch.known >= 2000, every=0.001, what="2,000 jobs")
        own_valkey.freeze()
        began = time.monotonic()
        said = finish(process)
    assert time.monotonic() - began < 5
    assert (said.code, said.out) == (3, "")
    assert "jobs of batch 'b' are accepted" in said.err
    assert "with --name b again" in said.err
    own_valkey.thaw()
    assert run(own, "submit", "-i", manifest, "--name", "b").code == 0
    batch = ledger.batch("b")
    assert batch is not None
    assert (batch.total, batch.known) == (8000, 8000)


def test_a_full_redis_says_what_was_accepted_and_takes_the_rest_later(
    own_valkey: ValkeyProcess, own: Settings, manifest: Path
) -> None:
    with own_valkey.client() as redis:
        redis.config_set("maxmemory", "4mb")
    said = run(own, "submit", "-i", manifest, "--name", "b")
    assert said.code == 3
    assert "is full (maxmemory)" in said.err
    assert "jobs of batch 'b' are accepted" in said.err
    with own_valkey.client() as redis:
        redis.config_set("maxmemory", "0")
    again = run(own, "submit", "-i", manifest, "--name", "b", "--json")
    assert again.code == 0
    assert 0 < again.json["new"] < 8000


@pytest.mark.parametrize(
    "words", [("submit", "http://a/x"), ("cancel", "b"), ("pause", "threads")], ids=lambda words: words[0]
)
@pytest.mark.parametrize("name", [name for name in REFUSALS if name != "OOM"])
def test_a_redis_that_takes_no_writes_is_said_in_one_line(
    own_valkey: ValkeyProcess, own: Settings, name: str, words: tuple[str, ...]
) -> None:
    run(own, "submit", "--name", "b", "http://a/x")
    with REFUSALS[name](own_valkey):
        said = run(own, *words)
    assert said.code == 3, said
    assert f"Redis at 127.0.0.1:{own_valkey.port} refuses the command for now ({name}: " in said.err
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) == (2 if words[0] == "submit" and "accepted" in said.err else 1), said.err
    assert run(own, "status", "b").code == 0


@pytest.mark.parametrize("name", REFUSALS)
def test_a_watch_outlives_a_redis_that_refuses(own_valkey: ValkeyProcess, own: Settings, name: str) -> None:
    with watching(own, patience=20.0) as (process, _):
        with REFUSALS[name](own_valkey):
            stays(lambda: process.poll() is None, seconds=1, what="the watch to go on")
        run(own, "cancel", "b")
        said = finish(process)
    assert "0/1 done, 1 cancelled" in said.out
    assert (said.code, said.err) == (1, "")


def test_a_redis_that_refuses_us_is_said_without_the_password(own_valkey: ValkeyProcess, own: Settings) -> None:
    url = own.redis_url.replace("redis://", "redis://producer:hunter2@")
    said = run(own.model_copy(update={"redis_url": url}), "status")
    assert said.code == 3
    assert "refuses us" in said.err
    assert "hunter2" not in said.err


def test_a_watch_outlives_a_restart_of_redis(own_valkey: ValkeyProcess, own: Settings) -> None:
    with watching(own, patience=5.0) as (process, output):
        own_valkey.kill()
        assert "still trying" in output.readline()
        own_valkey.restart()
        run(own, "cancel", "b")
        said = finish(process)
    assert "0/1 done, 1 cancelled" in said.out
    assert said.code == 1


def test_a_watch_gives_up_when_redis_stays_away(own_valkey: ValkeyProcess, own: Settings) -> None:
    with watching(own, patience=1.0) as (process, _):
        own_valkey.kill()
        said = finish(process)
    assert said.code == 3
    assert "cannot be used" in said.err


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru", "allkeys-random"])
def test_a_redis_that_removes_keys_is_warned_of_and_gets_no_jobs_that_it_may_remove(
    own_valkey: ValkeyProcess, own: Settings, policy: str
) -> None:
    with own_valkey.client() as redis:
        redis.config_set("maxmemory-policy", policy)
    said = run(own, "submit", "http://a/x")
    assert f"expected maxmemory-policy noeviction, got {policy}" in said.err
    assert said.code == (0 if policy == "volatile-lru" else 3)
    if said.code:
        assert "DOWNPOUR_ALLOW_EVICTION=1" in said.err
        allowed = own.model_copy(update={"allow_eviction": True})
        again = run(allowed, "submit", "--name", "b", "http://a/x")
        assert (again.code, again.out.strip()) == (0, "b")
        assert "warning: Redis removes keys" in again.err
