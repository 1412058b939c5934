"""Whatever the other side does, check() is asked and the deadline holds, in every phase."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from download.addresses import AddressPolicy
from download.connect import IDLE, _answered, in_order, remember
from download.errors import CancelledError, HandedBackError, LeaseLostError
from download.fetch import Fetcher, Wanted
from download.many import Transfer
from download.timeouts import Limits
from ledger.jobs import FailureKind
from tests.origin_process import OriginProcess
from tests.unit.download_kit import ChunkDesk, Desk, Reciter, ok, reciting, resolving, silent
from tests.waiting import wait_for

PATIENT: dict[str, Any] = {"connect_timeout": 60.0, "read_timeout": 60.0}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@contextmanager
def in_resolve() -> Iterator[str]:
    """A name server that never answers."""
    over = threading.Event()
    real = socket.getaddrinfo

    def never(host: str, *args: Any, **more: Any) -> Any:
        if host != "never.example":
            return real(host, *args, **more)
        over.wait(30)
        raise socket.gaierror("over")

    socket.getaddrinfo = never  # type: ignore[assignment]
    try:
        yield "http://never.example/"
    finally:
        socket.getaddrinfo = real
        over.set()


@contextmanager
def full_queue(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """The port of a listener whose queue is full: the kernel leaves further connections without an answer."""
    with socket.socket() as listener, ExitStack() as fillers:
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def in_connect() -> Iterator[str]:
    with full_queue() as port:
        yield f"http://127.0.0.1:{port}/"


@contextmanager
def in_tls() -> Iterator[str]:
    """A server that says nothing to a handshake."""
    with reciting(silent) as server:
        yield server.url(scheme="https")


ALONE = {each.__name__: each for each in (in_resolve, in_connect, in_tls)}
SERVED = {
    "before headers": "faults/slow-start/60/n",
    "in headers": "faults/drip-headers?every=0.1",
    "in a silent body": "faults/stall?after=1000",
    "in a dripping body": "faults/drip-body?every=0.1",
    "in a fast body": "paced/60/n?size=1200000000",
}


@pytest.fixture(params=[*ALONE, *SERVED])
def phase(request: pytest.FixtureRequest, origin: OriginProcess) -> Iterator[str]:
    if path := SERVED.get(request.param):
        yield f"{origin.url}/{path}"
        return
    with ALONE[request.param]() as url:
        yield url


def after(seconds: float, error: BaseException) -> Callable[[], None]:
    moment = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() >= moment:
            raise error

    return check


def test_the_deadline_ends_every_phase(desk: Desk, phase: str) -> None:
    begun = time.monotonic()
    error = desk.fails(phase, seconds=0.5, max_bytes=2**60, **PATIENT)
    assert error.kind is FailureKind.DEADLINE
    assert time.monotonic() - begun < 1.6
    assert bool(desk.leftovers()) == ("/paced/" in phase)  # the only one that a retry can continue


def test_a_cancel_ends_every_phase_and_check_is_asked_at_least_every_half_second(desk: Desk, phase: str) -> None:
    asked = [time.monotonic()]
    cancel = after(0.9, CancelledError("by request"))

    def check() -> None:
        asked.append(time.monotonic())
        cancel()

    with pytest.raises(CancelledError, match="by request"):
        desk.fetch(phase, check=check, max_bytes=2**60, **PATIENT)
    assert max(later - earlier for earlier, later in pairwise(asked)) < 0.8  # 0.5 and a noisy machine
    assert asked[-1] - asked[0] < 1.9
    assert desk.leftovers() == []


@pytest.mark.parametrize(
    ("phase", "kind"),
    [("in_resolve", FailureKind.DNS), ("in_connect", FailureKind.CONNECT), ("in_tls", FailureKind.CONNECT)],
    indirect=["phase"],
)
def test_a_connection_that_does_not_come_about_in_time_is_its_own_kind(
    desk: Desk, phase: str, kind: FailureKind
) -> None:
    begun = time.monotonic()
    assert desk.fails(phase, connect_timeout=0.5).kind is kind
    assert time.monotonic() - begun < 1.5


@contextmanager
def two_addresses(*others: str) -> Iterator[Reciter]:
    """A server on 127.0.0.1, and a host whose first address, 127.0.0.9, never answers on its port."""
    with (
        reciting(*[ok(b"hello", "Connection: close")] * 3) as server,
        full_queue("127.0.0.9", server.port),
        resolving(two=["127.0.0.9", *others]),
    ):
        yield server


ALL_OF_LOOPBACK = AddressPolicy(networks=(ip_network("127.0.0.0/8"),), ports=frozenset())


def test_an_address_that_is_silent_costs_a_moment_and_only_once(tmp_path: Path, way: type[Desk]) -> None:
    _answered.clear()
    desk, took = way(tmp_path, Fetcher(ALL_OF_LOOPBACK)), []
    with two_addresses("127.0.0.1") as server:
        for _ in range(2):
            begun = time.monotonic()
            assert desk.fetch(server.url(host="two.example"), connect_timeout=10.0).size == 5
            took.append(time.monotonic() - begun)
            assert _answered["two.example"][0] == "127.0.0.1"
    assert 0.15 < took[0] < 2  # if each of them had its share of the time: 5 s
    assert took[1] < 0.15


def test_where_no_address_answers_the_time_is_that_of_one(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Fetcher(ALL_OF_LOOPBACK))
    with two_addresses() as server:
        begun = time.monotonic()
        assert desk.fails(server.url(host="two.example"), connect_timeout=0.8).kind is FailureKind.CONNECT
        assert 0.7 < time.monotonic() - begun < 1.6
    with two_addresses("127.0.0.7") as server:
        error = desk.fails(server.url(host="two.example").replace(str(server.port), "9"))
    assert error.kind is FailureKind.CONNECT
    assert "127.0.0.9: Connection refused; 127.0.0.7: Connection refused" in str(error)


def test_both_families_have_their_turn_and_the_address_that_answered_is_the_first() -> None:
    _answered.clear()
    found = ["::1", "::2", "127.0.0.1"]
    assert in_order("h", found) == ["::1", "127.0.0.1", "::2"]
    remember("h", "::2")
    assert in_order("h", found) == ["::2", "::1", "127.0.0.1"]
    assert in_order("other", found) == ["::1", "127.0.0.1", "::2"]


def test_a_drip_is_too_slow(origin: OriginProcess, desk: Desk) -> None:
    """The server is never silent and always slow."""
    url = f"{origin.url}/faults/drip-body?every=0.1"
    error = desk.fails(url, low_speed=100, low_speed_window=1.0)
    assert error.kind is FailureKind.SLOW
    assert "expected 100 bytes/s" in str(error)


def test_a_server_that_paces_above_the_limit_is_not_too_slow(origin: OriginProcess, desk: Desk) -> None:
    fetched = desk.fetch(f"{origin.url}/paced/1/n?size=20000", low_speed=1000, low_speed_window=0.5, read_timeout=5.0)
    assert fetched.size == 20_000


@pytest.mark.parametrize(
    ("phase", "error"),
    [
        ("before headers", OSError("redis is away")),
        ("before headers", SystemExit(3)),
        ("in a silent body", TimeoutError("redis")),
        ("in a dripping body", ConnectionResetError("redis")),
        ("in a dripping body", KeyError("bug")),
    ],
    indirect=["phase"],
)
def test_whatever_check_raises_arrives_unchanged(desk: Desk, phase: str, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        desk.fetch(phase, check=after(0.2, error), **PATIENT)
    assert caught.value is error


def test_what_progress_raises_arrives_unchanged(origin: OriginProcess, desk: Desk) -> None:
    def progress(_size: int, _total: int | None) -> None:
        raise ConnectionError("redis is away")

    with pytest.raises(ConnectionError, match="redis is away"):
        desk.fetch(f"{origin.url}/files/n", progress=progress)


@pytest.mark.parametrize("end", [HandedBackError("drain"), LeaseLostError("away"), CancelledError("by request")])
def test_only_a_cancel_throws_away_what_can_be_continued(
    origin: OriginProcess, desk: Desk, end: HandedBackError | LeaseLostError | CancelledError
) -> None:
    with pytest.raises(type(end)) as caught:
        desk.fetch(f"{origin.url}/paced/30/n?size=100000", check=after(0.5, end))
    assert caught.value.status == 200
    kept = desk.temp.stat().st_size if desk.temp.exists() else 0
    assert kept == (0 if isinstance(end, CancelledError) else caught.value.received)


def test_progress_is_told_at_the_start_and_at_the_end(origin: OriginProcess, desk: Desk) -> None:
    told: list[tuple[int, int | None]] = []
    desk.fetch(f"{origin.url}/files/n?size=1000000", progress=lambda size, total: told.append((size, total)))
    assert told[0] == (0, 1_000_000)
    assert told[-1] == (1_000_000, 1_000_000)
    assert told == sorted(told)


def test_an_idle_connection_is_ended_after_a_moment(tmp_path: Path, way: type[Desk]) -> None:
    """Until then a server that serves one connection at a time hears nobody else."""
    ended: list[float] = []

    def serve(server: Reciter, connection: socket.socket) -> None:
        server.answer(connection, ok(b"hello"))
        begun = time.monotonic()
        silent(server, connection)
        ended.append(time.monotonic() - begun)

    desk = way(tmp_path)
    with reciting(serve, ok(b"hello")) as server, reciting(silent) as other:
        assert desk.fetch(server.url()).size == 5
        if isinstance(desk, ChunkDesk):  # while the group has something to do
            waits = Limits(read_timeout=IDLE + 2)
            desk.run([Transfer(Wanted(other.url()), tmp_path / "o", waits, lambda: None, user_agent="x")])
        wait_for(lambda: ended, seconds=15, what="the end of the connection")
        assert desk.fetch(server.url()).size == 5
    assert -0.3 < ended[0] - IDLE < 3
