"""Whatever the other side does, check() is asked and the deadline holds, in every phase."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from download.errors import CancelledError, HandedBackError, LeaseLostError
from ledger.jobs import FailureKind
from tests.origin_process import OriginProcess
from tests.unit.download_kit import Desk, reciting, silent

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
def in_connect() -> Iterator[str]:
    """A listener whose queue is full: the kernel leaves further connections without an answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def in_tls() -> Iterator[str]:
    """A server that says nothing to a handshake."""
    with reciting(silent) as server:
        yield server.url(scheme="https")


@contextmanager
def in_headers(origin: OriginProcess) -> Iterator[str]:
    yield f"{origin.url}/faults/drip-headers?every=0.1"


@contextmanager
def before_headers(origin: OriginProcess) -> Iterator[str]:
    yield f"{origin.url}/faults/slow-start/60/n"


@contextmanager
def in_silent_body(origin: OriginProcess) -> Iterator[str]:
    yield f"{origin.url}/faults/stall?after=1000"


@contextmanager
def in_dripping_body(origin: OriginProcess) -> Iterator[str]:
    yield f"{origin.url}/faults/drip-body?every=0.1"


@contextmanager
def in_fast_body(origin: OriginProcess) -> Iterator[str]:
    yield f"{origin.url}/paced/60/n?size=1200000000"


ALONE = [in_resolve, in_connect, in_tls]
SERVED = [before_headers, in_headers, in_silent_body, in_dripping_body, in_fast_body]


@pytest.fixture(params=[*ALONE, *SERVED], ids=lambda phase: phase.__name__)
def phase(request: pytest.FixtureRequest, origin: OriginProcess) -> Iterator[str]:
    with request.param(*([origin] if request.param in SERVED else [])) as url:
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
    assert desk.leftovers() == []


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
    ("phase_of", "kind"),
    [(in_resolve, FailureKind.DNS), (in_connect, FailureKind.CONNECT), (in_tls, FailureKind.CONNECT)],
)
def test_a_connection_that_does_not_come_about_in_time_is_its_own_kind(
    desk: Desk, phase_of: Callable[[], AbstractContextManager[str]], kind: FailureKind
) -> None:
    with phase_of() as url:
        begun = time.monotonic()
        assert desk.fails(url, connect_timeout=0.5).kind is kind
        assert time.monotonic() - begun < 1.5


def test_nobody_listening_is_a_failure_to_connect(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = desk.fails(f"http://127.0.0.1:{port}/")
    assert error.kind is FailureKind.CONNECT
    assert "Connection refused" in str(error)


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
    ("phase_of", "error"),
    [
        (before_headers, OSError("redis is away")),
        (before_headers, SystemExit(3)),
        (in_silent_body, TimeoutError("redis")),
        (in_dripping_body, ConnectionResetError("redis")),
        (in_dripping_body, KeyError("bug")),
    ],
)
def test_whatever_check_raises_arrives_unchanged(
    origin: OriginProcess,
    desk: Desk,
    phase_of: Callable[[OriginProcess], AbstractContextManager[str]],
    error: BaseException,
) -> None:
    with phase_of(origin) as url, pytest.raises(type(error)) as caught:
        desk.fetch(url, check=after(0.2, error), **PATIENT)
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
