"""Dead letters: kept within bounds, counted, listed and dropped by a person."""

from __future__ import annotations

import pytest

from ledger.dead_letters import DeadLetters
from ledger.jobs import Job, Pool
from ledger.redis_client import connect
from ledger.settings import Settings
from producer.client import Client
from tests.producer_process import run


@pytest.fixture
def letters(settings: Settings) -> DeadLetters:
    return DeadLetters(connect(settings), settings.key_prefix)


def test_the_newest_thousand_of_a_pool_are_kept_and_the_beginning_of_each(letters: DeadLetters) -> None:
    for n in range(1003):
        letters.keep(Pool.GEVENT, f"{n} ".encode() + b"\xff" * 100_000, "r" * 1000)
    kept = letters.read(Pool.GEVENT)
    assert [letter.element.split()[0] for letter in kept] == [str(n) for n in range(1002, 2, -1)]
    assert {(letter.bytes > 100_000, len(letter.element), len(letter.reason)) for letter in kept} == {(True, 4096, 200)}
    assert letters.counts() == {Pool.PREFORK: 0, Pool.THREADS: 0, Pool.GEVENT: 1000}


def test_status_counts_them(letters: DeadLetters, settings: Settings) -> None:
    list(Client(settings).submit("b", [Job("http://a/x", "x")], [Pool.THREADS]))
    assert run(settings, "status").err == ""
    for _ in range(3):
        letters.keep(Pool.THREADS, b"hello", "no JSON")
    assert run(settings, "status").err == (
        "threads: 3 dead letters, no messages of Downpour; see `producer dead-letters threads`\n"
    )
    said = run(settings, "status", "b", "--json").json
    assert {pool: counts["dead_letters"] for pool, counts in said["pools"].items()} == {
        "prefork": 0,
        "threads": 3,
        "gevent": 0,
    }


def test_they_are_listed_printable_and_dropped_by_pool(letters: DeadLetters, settings: Settings) -> None:
    assert run(settings, "dead-letters").err == "no dead letters\n"
    letters.keep(Pool.THREADS, b"hello\x1b[2J\xff\n", "no JSON")
    letters.keep(Pool.THREADS, b"later", "no JSON")
    letters.keep(Pool.PREFORK, "ü".encode(), "of prefork")
    lines = run(settings, "dead-letters", "threads").out.splitlines()
    assert [line.partition("Z  ")[2] for line in lines] == [
        "threads  11 bytes  no JSON  'hello\\x1b[2J\\\\xff\\n'",
        "threads  5 bytes  no JSON  'later'",
    ]
    said = run(settings, "dead-letters", "--json").json
    elements = [[letter["element"] for letter in said[pool]] for pool in said]
    assert elements == [["ü"], ["hello\x1b[2J\\xff\n", "later"], []]
    assert run(settings, "dead-letters", "threads", "--drop").out == "2 dead letters removed\n"
    assert run(settings, "dead-letters", "--drop", "--json").json == {"prefork": 1, "threads": 0, "gevent": 0}
    assert run(settings, "dead-letters", "--json").json == {"prefork": [], "threads": [], "gevent": []}
