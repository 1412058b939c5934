"""The loop of a group: many transfers at once in one thread, each with the limits and the patience of a single one."""

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from download.errors import CancelledError, DnsError, DownloadError
from download.fetch import Fetched, Wanted
from download.many import Transfer
from download.timeouts import Limits
from ledger.jobs import FailureKind
from tests.origin_process import OriginProcess
from tests.unit.download_kit import ChunkDesk, Reciter, ok, reciting, silent


@pytest.fixture
def desk(tmp_path: Path) -> ChunkDesk:
    return ChunkDesk(tmp_path)


def transfer(
    desk: ChunkDesk, url: str, number: int, check: Callable[[], None] = lambda: None, **limits: float
) -> Transfer:
    its = Limits(**{"connect_timeout": 2.0, "read_timeout": 10.0, "low_speed": 0, **limits})  # type: ignore[arg-type]
    return Transfer(Wanted(url), desk.folder / f"{number}.part", its, check, user_agent="x")


def test_idle_connections_that_have_all_ended_cost_no_attempt(origin: OriginProcess, desk: ChunkDesk) -> None:
    desk.run([transfer(desk, f"{origin.url}/paced/0.3/n{n}?size=1000", n) for n in range(16)])
    assert len(desk.loop.sockets) == 16
    for fd, _ in desk.loop.sockets.values():
        idle = socket.socket(fileno=fd)
        idle.shutdown(socket.SHUT_RDWR)
        idle.detach()
    transfers = [transfer(desk, f"{origin.url}/files/m{n}?size=1000", n) for n in range(16)]
    desk.run(transfers)
    assert [each.end for each in transfers if not isinstance(each.end, Fetched)] == []


def test_one_that_hangs_holds_up_nobody(origin: OriginProcess, desk: ChunkDesk) -> None:
    with reciting(silent) as server:
        hanging = transfer(desk, server.url(), 0, read_timeout=2.0)
        others = [transfer(desk, f"{origin.url}/files/n?size=1000", n) for n in range(1, 20)]
        feed = iter([hanging, *others])
        done: list[Transfer] = []
        while len(done) < len(others):
            done += desk.loop.turn(feed, 16, 0.4, 100)
        assert hanging not in done
        while hanging not in done:
            done += desk.loop.turn(feed, 16, 0.4, 100)
    assert isinstance(hanging.end, DownloadError)
    assert hanging.end.kind is FailureKind.TIMEOUT


def test_every_transfer_is_asked_twice_a_second_and_a_cancel_ends_only_its_own(desk: ChunkDesk) -> None:
    asked: dict[int, list[float]] = {0: [], 1: []}

    def check(number: int) -> None:
        asked[number].append(time.monotonic())
        if number == 0 and len(asked[0]) > 8:
            raise CancelledError("enough")

    with reciting(silent, silent) as server:
        transfers = [transfer(desk, server.url(f"/{n}"), n, partial(check, n), read_timeout=3.0) for n in range(2)]
        # The server serves one connection after the other: the second is heard only when the first has gone.
        desk.run(transfers)
    assert isinstance(transfers[0].end, CancelledError)
    assert isinstance(transfers[1].end, DownloadError)
    for moments in asked.values():
        assert max(later - sooner for sooner, later in pairwise(moments)) < 1.5  # 0.2 on a machine that is not busy


def test_bytes_after_the_end_are_noticed_whether_they_come_at_once_or_later(desk: ChunkDesk) -> None:
    """libcurl reads no further than the body, or drops the rest without a word."""

    def apart(server: Reciter, connection: socket.socket) -> None:
        server.hear(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
        connection.sendall(b"x" * 300_500)

    with reciting(apart, apart, ok(b"hello", length=4), ok(b"hello", length=4)) as server:
        for _ in range(2):
            assert desk.fails(server.url()).kind is FailureKind.PROTOCOL
    assert len(desk.again) == 2


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one(desk: ChunkDesk) -> None:
    """A server that sends two answers to one request could give the next file of that host any content."""
    sent = threading.Event()

    def two_for_one(server: Reciter, connection: socket.socket) -> None:
        server.hear(connection)
        connection.sendall(ok(b"hello"))
        sent.wait(10)
        connection.sendall(ok(b"forged"))
        read.set()
        silent(server, connection)

    read = threading.Event()
    with reciting(two_for_one) as server, reciting(ok(b"other")) as other:
        assert desk.fetch(server.url()).size == 5
        sent.set()
        assert read.wait(10)
        second = transfer(desk, server.url(), 1, read_timeout=1.0)
        desk.run([second])  # the server hears nobody else
        assert not isinstance(second.end, Fetched)
        assert desk.fetch(other.url()).size == 5


def test_servers_that_end_every_connection_are_believed_from_the_second_answer_on(desk: ChunkDesk) -> None:
    whole = ok(b"hello", "Connection: close")
    with reciting(whole, whole, whole, whole, whole, ok(b"hello!", "Connection: close", length=5), whole) as server:
        for _ in range(4):
            assert desk.fetch(server.url()).size == 5
        before = len(desk.again)
        assert desk.fetch(server.url()).size == 5  # the surplus was seen, and the single path got a good answer
        assert len(desk.again) == before + 1


def test_a_look_up_that_hangs_is_given_up_and_holds_up_nobody(
    origin: OriginProcess, desk: ChunkDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: Any, **more: Any) -> object:
        if host == "stuck.example":
            free.wait(30)
        return real("127.0.0.1", port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    stuck = transfer(desk, f"http://stuck.example:{origin.port}/files/n", 0, connect_timeout=1.0)
    other = transfer(desk, f"http://fine.example:{origin.port}/files/n?size=10", 1)
    desk.run([stuck, other])
    free.set()
    assert isinstance(stuck.end, DnsError)
    assert isinstance(other.end, Fetched)
