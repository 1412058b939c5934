"""How long a caller of Redis is kept waiting while Redis is away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
import redis
from redis.connection import Connection, DefaultParser

from ledger.redis_client import AWAY, RedisClock, connect, once
from ledger.settings import Settings


@pytest.fixture
def nobody() -> Iterator[Settings]:
    """An address at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        yield Settings(redis_url=f"redis://127.0.0.1:{taken.getsockname()[1]}/0")


def noting(asked: list[int], *, yes_at: int) -> Callable[[], bool]:
    """A ``stop`` that notes each time it is asked, and says yes that time."""

    def stop() -> bool:
        asked.append(1)
        return len(asked) == yes_at

    return stop


@pytest.mark.parametrize(
    ("patience", "context", "asks"),
    [
        (0, nullcontext, 0),
        (3600, nullcontext, 3),  # connecting adds no tries
        (3600, once, 0),
    ],
    ids=["without patience", "with patience", "once"],
)
def test_a_call_is_repeated_while_its_caller_is_patient(
    nobody: Settings, patience: float, context: Callable[[], AbstractContextManager[object]], asks: int
) -> None:
    """Given a client that is told to stop after its third try."""
    asked: list[int] = []
    stop = noting(asked, yes_at=3)
    with connect(nobody, patience=patience, stop=stop) as client, context(), pytest.raises(redis.ConnectionError):
        client.ping()
    assert len(asked) == asks


def test_patience_is_back_after_a_call_that_was_made_once(nobody: Settings) -> None:
    asked: list[int] = []
    with connect(nobody, patience=3600, stop=noting(asked, yes_at=2)) as client:
        with once(), pytest.raises(redis.ConnectionError):
            client.ping()
        with pytest.raises(redis.ConnectionError):
            client.ping()
    assert len(asked) == 2


def test_patience_covers_a_connection_that_is_made_and_closed_again(
    nobody: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a load balancer whose Redis is away: redis-py looks at a connection before it asks with patience."""
    tries: list[int] = []  # threads; those of processes that other tests began go on to look for their Redis

    def closed(_connection: Connection, _timeout: float = 0) -> bool:
        tries.append(threading.get_ident())
        raise redis.ConnectionError("Connection closed by server.")

    monkeypatch.setattr(Connection, "connect", lambda _connection: None)
    monkeypatch.setattr(Connection, "can_read", closed)
    asked: list[int] = []
    with pytest.raises(redis.ConnectionError), connect(nobody, patience=3600, stop=noting(asked, yes_at=3)) as client:
        client.ping()
    assert len(asked) == 3
    assert tries.count(threading.get_ident()) == 6  # each time redis-py connects once more itself


def parsed(answer: str) -> redis.RedisError:
    error = DefaultParser.parse_error(answer)  # type: ignore[no-untyped-call]
    assert isinstance(error, redis.RedisError)
    return error


@pytest.mark.parametrize(
    "answer", ["BUSYGROUP Consumer Group name already exists", "WRONGTYPE Operation against a key"]
)
def test_an_error_of_a_command_is_not_away(answer: str) -> None:
    assert not isinstance(parsed(answer), AWAY)


DIFFERENCE = 1_700_000_000.0  # seconds between the two clocks of these tests


def learn(clock: RedisClock, asked: float, to: float, back: float, *, jumped: float = 0.0) -> float:
    """The answer to a question that was so many seconds on its way there and back: how wrong it is, in seconds."""
    told = int((DIFFERENCE + jumped + asked + to) * 1000) / 1000
    return clock.learn(told, asked, asked + to + back) - DIFFERENCE - jumped


def test_answers_that_are_late_do_not_make_a_clock_worse() -> None:
    clock = RedisClock()
    assert learn(clock, 1.0, 0.0002, 0.2) == pytest.approx(-0.2, abs=0.002)  # all that can be known so far
    assert learn(clock, 2.0, 0.0002, 0.0005) == pytest.approx(0, abs=0.002)
    assert learn(clock, 3.0, 0.0002, 0.5) == pytest.approx(0, abs=0.002)
    assert learn(clock, 4.0, 0.5, 0.0005) == pytest.approx(0, abs=0.002)
    assert learn(clock, 5.0, 20.0, 0.5) == pytest.approx(0, abs=0.002)  # Redis was away: asked again and again


@pytest.mark.parametrize("jumped", [-3600.0, -0.1, 0.1, 1800.0])
def test_a_clock_that_jumps_is_followed_by_the_next_answer(jumped: float) -> None:
    clock = RedisClock()
    learn(clock, 1.0, 0.0005, 0.0005)
    assert learn(clock, 2.0, 0.0005, 0.0005, jumped=jumped) == pytest.approx(0, abs=0.002)


def test_a_clock_that_drifts_is_followed() -> None:
    """Given a drift of 0.1 %, either way, for ten minutes, I expect what is known to stay right to the answers' way."""
    for drift in (-0.001, 0.001):
        clock = RedisClock()
        for second in range(600):
            assert learn(clock, float(second), 0.001, 0.001, jumped=drift * second) == pytest.approx(0, abs=0.003)
