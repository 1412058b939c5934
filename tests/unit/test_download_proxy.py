"""Through a proxy: the same file, the same care, and no look-up of our own. The proxy is a process of its own."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from download.addresses import AddressPolicy, Target
from download.fetch import Fetcher
from download.proxy import Proxy, literal
from ledger.jobs import FailureKind
from origin.content import Entity
from tests.origin_process import OriginProcess
from tests.proxy_process import ProxyProcess
from tests.unit.download_kit import LOOPBACK, Desk, Reciter, Script, ok, reciting, silent

SIZE = 100_000
WHOLE = Entity("n", SIZE).read(0, SIZE)
ONLY_THE_PROXY = AddressPolicy(hosts=frozenset({"127.0.0.1"}))  # by that very name


@pytest.fixture(scope="module")
def proxy(origin: OriginProcess) -> Iterator[ProxyProcess]:
    names = {"files.example": origin.port, "other.example": origin.port}
    with ProxyProcess(names, credentials="me:s3cret%40", deny=("denied.example",)) as process:
        yield process


def through(
    url: str, folder: Path, policy: AddressPolicy = LOOPBACK, *, direct: str = "", ca_file: Path | None = None
) -> Desk:
    return Desk(folder, Fetcher(policy, proxy=Proxy.parse(url, frozenset(direct.split())), ca_file=ca_file))


@pytest.fixture
def desk(proxy: ProxyProcess, tmp_path: Path) -> Desk:
    # The proxy compares with what it was given; in a URL the password is percent-encoded.
    return through(proxy.url.replace("%40", "%2540"), tmp_path)


def test_a_name_that_only_the_proxy_knows_is_downloaded_from(proxy: ProxyProcess, desk: Desk) -> None:
    fetched = desk.fetch(f"http://files.example/files/n?size={SIZE}")
    assert desk.temp.read_bytes() == WHOLE
    assert "via proxy" in fetched.notes
    assert proxy.requests()[-1] == {"line": f"GET http://files.example/files/n?size={SIZE} HTTP/1.1", "known": True}


def test_a_resume_goes_through_it_too(origin: OriginProcess, desk: Desk) -> None:
    url = f"http://files.example/faults/resume?key=proxied&name=n&size={SIZE}"
    assert desk.fails(url).kind is FailureKind.TRUNCATED
    assert desk.bring(url) == WHOLE
    origin.wait_for_request(lambda each: each["range"] == f"bytes={SIZE // 2}-")  # it is noted when it has ended


@pytest.mark.parametrize("fault", ["cut-body", "cut-chunked", "cut-headers", "wrong-length-long"])
def test_a_cut_behind_the_proxy_is_a_cut(desk: Desk, fault: str) -> None:
    assert desk.fails(f"http://files.example/faults/{fault}?size={SIZE}").kind is FailureKind.TRUNCATED


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/",
        "http://2852039166/",
        "http://0x7f.1/",
        "http://127.0.0.2/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://0177.1/",
        "http://1.2.3.4.5/",
        "http://localhost/",
        "http://any.localhost./",
        "http://metadata.google.internal/",
        "http://files.example:22/",
    ],
)
def test_what_a_name_alone_gives_away_is_refused_and_the_proxy_not_asked(
    proxy: ProxyProcess, tmp_path: Path, url: str
) -> None:
    before = len(proxy.requests())
    desk = through(proxy.url, tmp_path, ONLY_THE_PROXY)
    assert desk.fails(url).kind is FailureKind.REFUSED
    assert len(proxy.requests()) == before


def test_each_hop_is_judged(proxy: ProxyProcess, desk: Desk) -> None:
    for location, kind in (("http://169.254.169.254/", FailureKind.REFUSED), ("http://u:p@a/", FailureKind.BAD_URL)):
        before = len(proxy.requests())
        error = desk.fails(f"http://files.example/faults/redirect-to?url={quote(location, safe='')}")
        assert error.kind is kind
        assert len(proxy.requests()) == before + 1
    near = f"http://files.example/faults/redirect-to?url={quote(f'http://other.example/files/n?size={SIZE}', safe='')}"
    assert desk.bring(near) == WHOLE


def test_wrong_credentials_are_said_without_being_repeated(
    proxy: ProxyProcess,
    tmp_path: Path,
    server_side: ssl.SSLContext,
) -> None:
    desk = through(f"http://me:wr0ng@127.0.0.1:{proxy.port}", tmp_path)
    plain = desk.fails("http://files.example/files/n")
    assert (plain.kind, plain.status) == (FailureKind.STATUS, 407)
    tunnelled = desk.fails("https://files.example/files/n")
    assert tunnelled.kind is FailureKind.REFUSED
    assert "407; it wants a user and a password" in str(tunnelled)
    for said in (str(plain), str(tunnelled), repr(desk.fetcher.proxy)):
        assert "wr0ng" not in said
        assert "Basic" not in said


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://denied.example/", FailureKind.STATUS),
        ("https://denied.example/", FailureKind.REFUSED),
        ("https://127.0.0.1:9/", FailureKind.CONNECT),
        ("http://127.0.0.1:9/", FailureKind.SERVER),
    ],
)
def test_what_the_proxy_denies_or_cannot_reach_has_its_kind(desk: Desk, url: str, kind: FailureKind) -> None:
    assert desk.fails(url).kind is kind


def test_a_proxy_that_is_not_allowed_or_not_there_is_said(proxy: ProxyProcess, tmp_path: Path) -> None:
    error = through(proxy.url, tmp_path, AddressPolicy()).fails("http://files.example/")
    assert error.kind is FailureKind.REFUSED
    assert "the proxy is not allowed by DOWNPOUR_ALLOW_HOSTS or _NETWORKS: 127.0.0.1 is" in str(error)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert through(f"http://127.0.0.1:{port}", tmp_path).fails("http://files.example/").kind is FailureKind.CONNECT


def test_https_goes_through_connect_and_the_certificate_is_the_target_s(
    tmp_path: Path,
    authority: Path,
    server_side: ssl.SSLContext,
) -> None:
    with (
        reciting(ok(WHOLE), ok(WHOLE), tls=server_side) as server,
        ProxyProcess({"good.example": server.port, "bad.example": server.port}) as proxy,
    ):
        desk = through(proxy.url, tmp_path, ca_file=authority / "ca.pem")
        fetched = desk.fetch("https://good.example/f")
        assert desk.temp.read_bytes() == WHOLE
        assert "via proxy" in fetched.notes
        assert desk.fails("https://bad.example/f").kind is FailureKind.TLS
        assert [each["line"] for each in proxy.requests()] == [
            "CONNECT good.example:443 HTTP/1.1",
            "CONNECT bad.example:443 HTTP/1.1",
        ]
        assert server.requests[0].startswith("GET /f HTTP/1.1\r\n")
        assert "proxy-" not in server.requests[0].lower()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\n\r\nand more", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\n\r\n\r\n\r\n", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000, FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\n", FailureKind.CONNECT),
        (b"", FailureKind.CONNECT),
        (b"HTTP/1.1 503 Busy\r\n\r\n", FailureKind.CONNECT),
        (b"HTTP/1.1 302 Found\r\nLocation: http://a/\r\n\r\n", FailureKind.REFUSED),
    ],
)
def test_a_proxy_that_answers_connect_oddly_has_its_kind(tmp_path: Path, answer: bytes, kind: FailureKind) -> None:
    with reciting(answer) as server:
        assert through(server.url(""), tmp_path).fails("https://files.example/").kind is kind


def _dripping(server: Reciter, connection: socket.socket) -> None:
    server.hear(connection)
    while not select.select([connection], [], [], 0.05)[0]:  # until it hangs up
        connection.sendall(b"x")


@pytest.mark.parametrize("script", [silent, _dripping])
def test_a_proxy_that_never_answers_meets_the_connect_timeout_and_the_deadline(tmp_path: Path, script: Script) -> None:
    for more, kind in (({"connect_timeout": 0.5}, FailureKind.CONNECT), ({"seconds": 0.5}, FailureKind.DEADLINE)):
        with reciting(script) as server:
            begun = time.monotonic()
            assert through(server.url(""), tmp_path).fails("https://files.example/", **more).kind is kind
            assert time.monotonic() - begun < 1.6


def test_hosts_that_are_named_are_asked_without_it(origin: OriginProcess, tmp_path: Path) -> None:
    desk = through("http://127.0.0.1:9", tmp_path, direct="127.0.0.0/8")
    fetched = desk.fetch(f"{origin.url}/files/n?size={SIZE}")
    assert "via proxy" not in fetched.notes
    proxy = Proxy.parse("http://127.0.0.1:9", frozenset({"example.org", ".inner.test", "10.0.0.0/8"}))
    assert proxy is not None
    for host, served in {
        "example.org": False,
        "a.example.org.": False,
        "notexample.org": True,
        "inner.test": False,
        "10.1.2.3": False,
        "0x0a.1": False,
        "11.1.2.3": True,
    }.items():
        assert proxy.serves(Target.parse(f"http://{host}/")) is served, host


@pytest.mark.parametrize(
    "text",
    ["proxy:3128", "https://u:s3cret@a:1", "socks5://u:s3cret@a:1", "http://u:s3cret@a", "http://u:s3cret@a:1/path",
     "http://u:s3cret@a:99999", "http://u:s3cret@a b:1", "http://u:s3cret@[::1:1", "http://", "u:s3cret@a:1", "u:s3cret@a://b"],
)  # fmt: skip
def test_what_is_no_proxy_is_said_without_its_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"DOWNPOUR_PROXY: expected http://\[user:password@\]host:port") as caught:
        Proxy.parse(text)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_text_is_no_proxy_and_a_network_that_is_none_is_said() -> None:
    assert Proxy.parse("") is None
    with pytest.raises(ValueError, match=r"DOWNPOUR_NO_PROXY: expected names, .* got '10"):
        Proxy.parse("http://a:1", frozenset({"10.0.0.0/99"}))


@pytest.mark.parametrize(
    ("name", "address"),
    [("2130706433", "127.0.0.1"), ("0x7f.1", "127.0.0.1"), ("0177.0.0.1", "127.0.0.1"), ("127.1", "127.0.0.1"),
     ("::1", "::1"), ("fe80::1%eth0", "fe80::1%eth0"), ("1.2.3.4.5", None),
     ("256.1.1.1", None),
     ("a.1x", None), ("a", None)],
)  # fmt: skip
def test_every_spelling_of_an_address_is_seen(name: str, address: str | None) -> None:
    assert literal(name) == address
