"""TLS with a local authority: names and certificates count, a cut without a goodbye is no end."""

import hashlib
import socket
import ssl
from pathlib import Path

import pytest

from download.fetch import Fetcher, tls_context
from ledger.jobs import FailureKind
from tests.unit.download_kit import LOOPBACK, Desk, Reciter, Script, in_turn, moved, ok, reciting, reset

BODY = bytes(range(256)) * 1000


@pytest.fixture
def desk(tmp_path: Path, authority: Path, way: type[Desk]) -> Desk:
    return way(tmp_path, Fetcher(LOOPBACK, ca_file=authority / "ca.pem"))


def test_a_trusted_server_is_downloaded_from_and_its_connection_used_again(
    desk: Desk, server_side: ssl.SSLContext
) -> None:
    with reciting(in_turn(ok(BODY), ok(BODY)), tls=server_side) as server:
        for _ in range(2):
            desk.final.unlink(missing_ok=True)
            assert desk.bring(server.url(scheme="https")) == BODY
        assert server.connections == 1


def test_an_unknown_authority_is_refused(tmp_path: Path, server_side: ssl.SSLContext) -> None:
    with reciting(ok(BODY), tls=server_side) as server:
        error = Desk(tmp_path).fails(server.url(scheme="https"))
        assert error.kind is FailureKind.TLS
        assert server.requests == []


def test_a_certificate_for_another_name_is_refused(desk: Desk, server_side: ssl.SSLContext) -> None:
    with reciting(ok(BODY), tls=server_side) as server:
        error = desk.fails(server.url(scheme="https", host="localhost"))
        assert error.kind is FailureKind.TLS
        assert "localhost" in str(error)


def test_a_server_without_tls_is_a_protocol_error(desk: Desk) -> None:
    def greet(_server: Reciter, connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n" * 10)

    with reciting(greet, greet) as server:
        assert desk.fails(server.url(scheme="https")).kind in (FailureKind.PROTOCOL, FailureKind.RESET)


def cut(head: bytes) -> Script:
    """Send, and end TCP without ending TLS."""

    def script(server: Reciter, connection: socket.socket) -> None:
        server.hear(connection)
        connection.sendall(head + BODY)
        socket.socket(fileno=connection.detach()).close()

    return script


def test_a_body_that_ends_with_a_cut_of_tls_is_truncated_unless_a_digest_proves_it(
    desk: Desk, server_side: ssl.SSLContext
) -> None:
    script = cut(b"HTTP/1.1 200 OK\r\n\r\n")
    with reciting(*[script] * 6, tls=server_side) as server:
        url = server.url(scheme="https")
        for digest in (None, "00" * 32):  # another time there may be more
            assert desk.fails(url, sha256=digest).kind is FailureKind.TRUNCATED
        assert desk.bring(url, sha256=hashlib.sha256(BODY).hexdigest()) == BODY


def test_bytes_after_the_end_are_noticed_in_the_record_that_ends_the_body(
    tmp_path: Path, authority: Path, server_side: ssl.SSLContext
) -> None:
    """Decrypted already, they wait in no socket. libcurl does not tell."""
    desk = Desk(tmp_path, Fetcher(LOOPBACK, ca_file=authority / "ca.pem"))
    with reciting(ok(BODY, length=len(BODY) - 1), tls=server_side) as server:
        assert desk.fails(server.url(scheme="https")).kind is FailureKind.PROTOCOL


def test_a_whole_body_needs_no_goodbye(desk: Desk, server_side: ssl.SSLContext) -> None:
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    with reciting(cut(head), cut(head), tls=server_side) as server:
        assert desk.bring(server.url(scheme="https")) == BODY


def test_https_does_not_step_down_to_http(desk: Desk, server_side: ssl.SSLContext) -> None:
    with reciting(moved("http://127.0.0.1/"), tls=server_side) as server:
        error = desk.fails(server.url(scheme="https"))
        assert error.kind is FailureKind.REDIRECT
        assert "https to stay https" in str(error)


@pytest.mark.parametrize("name", ["sha256", "sha512", "sha1"])
def test_https_may_step_down_to_http_where_a_strong_digest_is_expected(
    desk: Desk, server_side: ssl.SSLContext, name: str
) -> None:
    digest = hashlib.new(name, BODY).hexdigest()
    wanted = {"sha256": digest} if name == "sha256" else {"digest": f"{name}:{digest}"}
    with reciting(ok(BODY), ok(BODY)) as plain:
        answer = moved(plain.url(), "Set-Cookie: s=1; Secure; Path=/")
        with reciting(answer, tls=server_side) as server:
            if name == "sha1":  # it can be forged
                assert desk.fails(server.url(scheme="https"), **wanted).kind is FailureKind.REDIRECT
                return
            assert desk.bring(server.url(scheme="https"), **wanted) == BODY
        assert "Cookie" not in plain.requests[0]


def test_a_server_that_wants_a_certificate_is_shown_ours_if_it_is_meant_to_see_it(
    tmp_path: Path, way: type[Desk], authority: Path
) -> None:
    ours, ca_file = tmp_path / "ours.pem", authority / "ca.pem"
    ours.write_text((authority / "server.pem").read_text() + (authority / "server.key").read_text())
    demanding = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca_file)
    demanding.verify_mode = ssl.CERT_REQUIRED
    demanding.load_cert_chain(ours)
    for hosts in (frozenset({"127.0.0.1"}), frozenset({"good.example"})):
        desk = way(tmp_path, Fetcher(LOOPBACK, ca_file=ca_file, client_cert=ours, client_cert_hosts=hosts))
        with reciting(ok(BODY), ok(BODY), tls=demanding) as server:
            if "127.0.0.1" in hosts:
                assert desk.bring(server.url(scheme="https")) == BODY
                desk.final.unlink()
            else:
                error = desk.fails(server.url(scheme="https"))
                assert error.kind is FailureKind.TLS, error
                assert "DOWNPOUR_CLIENT_CERT" in str(error)


def test_a_server_whose_tls_is_too_old_is_no_matter_of_another_attempt(desk: Desk) -> None:
    def refuse(_server: Reciter, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")  # an alert, fatal: protocol_version

    with reciting(refuse, refuse) as server:
        assert desk.fails(server.url(scheme="https")).kind is FailureKind.TLS


@pytest.mark.parametrize("content", ["", "no certificate"])
def test_a_file_that_tls_cannot_use_is_said(tmp_path: Path, authority: Path, content: str) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text(content)
    for files, setting in (((bad, None), "DOWNPOUR_CA_FILE"), ((authority / "ca.pem", bad), "DOWNPOUR_CLIENT_CERT")):
        with pytest.raises(ValueError, match=rf"{setting}: expected .*PEM.*got {bad}"):
            tls_context(*files)


def test_a_reset_in_the_handshake_is_transient(desk: Desk) -> None:
    def script(_server: Reciter, connection: socket.socket) -> None:
        connection.recv(1)
        reset(connection)

    with reciting(script, script) as server:
        assert desk.fails(server.url(scheme="https")).kind is FailureKind.RESET
