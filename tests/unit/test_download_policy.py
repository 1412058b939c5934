"""No request goes to an address that the policy denies, on any hop, whatever a name resolves to."""

import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from download.addresses import AddressPolicy
from download.fetch import Fetcher
from ledger.jobs import FailureKind
from tests.origin_process import OriginProcess
from tests.unit.download_kit import ChunkDesk, Desk, Reciter, in_turn, moved, ok, reciting, resolving


@pytest.fixture
def lookups() -> Iterator[list[str]]:
    with resolving(good=["127.0.0.1"], mixed=["127.0.0.1", "10.0.0.1"], inner=["10.0.0.1"], unknown=[]) as asked:
        yield asked


def to(origin: OriginProcess, location: str) -> str:
    return f"{origin.url}/faults/redirect-to?url={quote(location, safe='')}"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/files/n",
        "http://0x7f.0.0.2:{port}/files/n",
        "http://2130706434:{port}/files/n",
        "http://[::1]:{port}/files/n",
        "http://[::ffff:127.0.0.1]:{port}/files/n",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/",
        "http://inner.example/",
        "http://mixed.example:{port}/files/n",
    ],
)
def test_a_redirect_to_a_denied_address_is_refused(
    origin: OriginProcess, desk: Desk, lookups: list[str], location: str
) -> None:
    key = f"key={random.random()}"
    error = desk.fails(f"{to(origin, location.format(port=origin.port))}&{key}")
    assert error.kind is FailureKind.REFUSED, error
    origin.wait_for_request(lambda record: key in record["path"])  # it is noted when it has ended
    asked = [record["path"] for record in origin.requests()]
    assert sum(key in path for path in asked) == 1
    assert all("redirect-to" in path for path in asked)


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/", "file:///etc/passwd", "http://user:secret@127.0.0.1/", "http://127.0.0.1\\@good.example/"],
)
def test_a_redirect_to_no_acceptable_url_is_refused_and_no_secret_repeated(
    origin: OriginProcess, desk: Desk, location: str
) -> None:
    error = desk.fails(to(origin, location))
    assert error.kind is FailureKind.BAD_URL
    assert "secret" not in str(error)


@pytest.mark.parametrize("host", ["mixed.example", "inner.example", "169.254.169.254", "unknown.example"])
def test_a_denied_address_and_a_name_without_one_have_their_kind(desk: Desk, lookups: list[str], host: str) -> None:
    assert desk.fails(f"http://{host}/").kind is (FailureKind.DNS if "unknown" in host else FailureKind.REFUSED)
    assert not isinstance(desk, ChunkDesk) or desk.again == []  # the group's loop has judged it itself


def test_a_port_that_is_not_allowed_is_refused_before_any_look_up(
    tmp_path: Path, desk: Desk, lookups: list[str]
) -> None:
    desk = type(desk)(tmp_path, Fetcher(AddressPolicy()))
    error = desk.fails("http://good.example:22/")
    assert error.kind is FailureKind.REFUSED
    assert str(error) == (
        "port 22 is not allowed; workers with DOWNPOUR_ALLOW_PORTS=80,443,8000,8080,8443,22 allow it, "
        "then `producer retry BATCH --kind refused`"
    )
    assert lookups == []


def test_without_an_exception_loopback_is_refused(origin: OriginProcess, desk: Desk, tmp_path: Path) -> None:
    desk = type(desk)(tmp_path, Fetcher(AddressPolicy(ports=frozenset())))
    error = desk.fails(f"{origin.url}/files/n")
    assert error.kind is FailureKind.REFUSED
    assert "loopback (127.0.0.0/8); workers with DOWNPOUR_ALLOW_NETWORKS=127.0.0.1 allow it" in str(error)
    assert origin.requests() == [] or all(record.get("path") != "/files/n" for record in origin.requests())


def test_a_name_is_resolved_once_and_the_judged_address_is_used(desk: Desk, lookups: list[str]) -> None:
    """A name server that answers differently a moment later gains nothing, as nobody asks again."""
    with reciting(ok(b"hello")) as server:
        assert desk.bring(server.url(host="good.example")) == b"hello"
        assert lookups == ["good.example"]
        assert f"host: good.example:{server.port}" in server.requests[0].lower()


def test_a_name_that_ends_in_a_dot_is_the_same_host(tmp_path: Path, lookups: list[str]) -> None:
    with reciting(ok(b"hello")) as server:
        assert Desk(tmp_path).bring(server.url(host="good.example.")) == b"hello"
        assert f"host: good.example:{server.port}" in server.requests[0].lower()


def test_an_allowed_host_opens_private_addresses_for_itself_only(
    tmp_path: Path, desk: Desk, lookups: list[str]
) -> None:
    desk = type(desk)(tmp_path, Fetcher(AddressPolicy(hosts=frozenset({"good.example"}), ports=frozenset())))
    with reciting(ok(b"hello")) as server:
        error = desk.fails(server.url(host="localhost"))
        assert error.kind is FailureKind.REFUSED
        assert "workers with DOWNPOUR_ALLOW_HOSTS=good.example,localhost allow it" in str(error)
        assert desk.bring(server.url(host="good.example")) == b"hello"


def test_headers_meant_for_one_origin_are_not_shown_to_another(desk: Desk) -> None:
    own = {"Authorization": "Bearer s", "Cookie": "s=1", "X-Api-Key": "s", "Accept-Language": "de", "Host": "evil"}
    with reciting(ok(b"hello")) as other:
        with reciting(moved("/next"), moved(other.url())) as server:
            desk.fetch(server.url(), headers=own)
        for request in server.requests:
            assert "Bearer s" in request
            assert "X-Api-Key: s" in request
            assert "evil" not in request
        assert "s" not in [line.partition(": ")[2] for line in other.requests[0].splitlines()]
        assert "Bearer" not in other.requests[0]
        assert "Cookie" not in other.requests[0]
        assert "Accept-Language: de" in other.requests[0]


def cookies(server: Reciter) -> list[str]:
    return [request.partition("Cookie: ")[2].partition("\r\n")[0] for request in server.requests]


def test_cookies_live_for_the_hops_of_one_attempt_and_go_where_they_belong(desk: Desk) -> None:
    expired = "Set-Cookie: old=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    own = {"Cookie": "own=1"} if type(desk) is Desk else {}  # no job of a group has headers of its own
    with reciting(ok(b"hello")) as other:
        away = moved(other.url(host="localhost"), "Set-Cookie: more=2; Path=/", "Set-Cookie: far=3; Path=/other")
        with reciting(moved("/in", "Set-Cookie: tok=a!; Path=/; HttpOnly", expired), away, ok(b"hello")) as server:
            fetched = desk.fetch(server.url(), headers=own)
            assert fetched.url == other.url(host="localhost")
            assert desk.fetch(server.url("/in?token=1")).url is None
    assert cookies(server) == [own.get("Cookie", ""), "; ".join([*own.values(), "tok=a!"]), ""]
    assert cookies(other) == [""]


def test_a_redirect_to_the_same_url_is_no_loop_while_cookies_change(desk: Desk) -> None:
    again = moved("/f", "Set-Cookie: n=1\xe9; Path=/")
    with reciting(again, moved("/f", "Set-Cookie: n=2; Path=/"), ok(b"hello")) as server:
        assert desk.bring(server.url()) == b"hello"
        assert cookies(server) == ["", "n=1\xc3\xa9", "n=2"]  # bytes of UTF-8, read as Latin-1
    desk.final.unlink()
    with reciting(again, again, again) as server:
        assert desk.fails(server.url()).kind is FailureKind.REDIRECT


def test_where_a_redirect_led_and_what_came_is_told(desk: Desk) -> None:
    with reciting(moved("/in a?token=secret"), ok(b"hello", "Content-Type: text/html; charset=utf-8")) as server:
        fetched = desk.fetch(server.url())
        assert (fetched.url, fetched.content_type) == (server.url("/in%20a"), "text/html; charset=utf-8")
        assert "GET /in%20a?token=secret HTTP" in server.requests[1]


def test_a_connection_kept_from_one_hop_survives_the_failure_of_the_next(desk: Desk) -> None:
    """It may serve another thread by then."""
    away = ok(b"", "Location: http://127.0.0.2/", status="302 Found")
    with reciting(in_turn(away, ok(b"hello"))) as server:
        assert desk.fails(server.url()).kind is FailureKind.REFUSED
        assert desk.bring(server.url()) == b"hello"
        assert server.connections == 1


def test_environment_proxies_are_ignored(origin: OriginProcess, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert desk.fetch(f"{origin.url}/files/n").status == 200
