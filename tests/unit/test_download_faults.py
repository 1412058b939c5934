"""Whatever a server does to a body or its headers: the file is whole, or the attempt says what was wrong.

``test_golden`` asks for each row of the origin's table of faults; here is what the table does not have.
"""

import base64
import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from download.errors import LEAVES, ServerError
from ledger.jobs import FailureKind
from origin.content import Entity
from tests.origin_process import OriginProcess
from tests.unit.download_kit import Desk, Reciter, Script, moved, ok, reciting, reset, silent

SIZE = 100_000
WHOLE = Entity("n", SIZE).read(0, SIZE)
SHA256 = hashlib.sha256(WHOLE).hexdigest()
QUERY = f"?name=n&size={SIZE}"

FAULTS = {
    FailureKind.DEADLINE: ("drip-body",),
    FailureKind.STATUS: ("status/410", "status/204", "status/304"),
    FailureKind.SERVER: ("status/408", "status/425", "status/429", "status/500"),
    FailureKind.REDIRECT: ("redirect-chain/21",),
}


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for kind, paths in FAULTS.items() for path in paths])
def test_each_fault_has_its_kind_and_nothing_gets_the_final_name(
    origin: OriginProcess, desk: Desk, path: str, kind: FailureKind
) -> None:
    error = desk.fails(f"{origin.url}/faults/{path}{QUERY}", seconds=2.5)
    assert error.kind is kind, error
    if not LEAVES[kind].keeps_partial:
        assert desk.leftovers() == []


@pytest.mark.parametrize("path", ["files/n", "faults/chunked", "faults/no-length", "faults/redirect-chain/20"])
def test_an_honest_answer_becomes_a_file(origin: OriginProcess, desk: Desk, path: str) -> None:
    assert desk.bring(f"{origin.url}/{path}{QUERY}", sha256=SHA256.upper(), size=SIZE) == WHOLE
    assert desk.leftovers() == []


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha512"])
def test_a_further_digest_is_verified_whatever_its_algorithm(origin: OriginProcess, desk: Desk, algorithm: str) -> None:
    url, digest = f"{origin.url}/files/n{QUERY}", hashlib.new(algorithm, WHOLE).hexdigest()
    assert f"{algorithm}: verified" in desk.fetch(url, digest=f"{algorithm}:{digest}").notes
    assert desk.bring(url, digest=f"{algorithm}:{digest}", sha256=SHA256) == WHOLE
    desk.final.unlink()
    other = digest.translate(str.maketrans("0123", "1230"))
    error = desk.fails(url, digest=f"{algorithm}:{other}", sha256=SHA256)
    assert error.kind is FailureKind.DIGEST
    assert str(error) == f"expected {algorithm} {other} by the manifest, got {digest}"
    assert desk.leftovers() == []


def test_retry_after_comes_with_the_error(origin: OriginProcess, desk: Desk) -> None:
    for form, least, status in (("seconds", 7.0, 503), ("date", 5.0, 503), ("seconds", 7.0, 202), ("date", 5.0, 403)):
        key = f"{form}-{status}-{type(desk).__name__}"
        error = desk.fails(f"{origin.url}/faults/retry-after/7?key={key}&form={form}&status={status}")
        assert isinstance(error, ServerError)
        assert error.retry_after is not None
        assert least <= error.retry_after <= 8  # a date has whole seconds
        assert error.status == status


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (moved("?user=s3cret"), FailureKind.REDIRECT),
        (moved("ftp://h/?user=s3cret"), FailureKind.BAD_URL),
        (moved("/a?user=one s3cret"), FailureKind.REDIRECT),
        (moved("http://me:a s3cret@h/"), FailureKind.BAD_URL),
        (moved("http://me:s3cret@h:port/"), FailureKind.BAD_URL),
        (moved("http://me:x/s3cret@h/"), FailureKind.BAD_URL),
        (b"220 \x1b]0;title\x07 \x9b31m see http://h/?s3cret\r\n\r\n", FailureKind.PROTOCOL),
        (ok(b"x", "Transfer-Encoding: \x1b[31m").replace(b"Content-Length", b"X"), FailureKind.PROTOCOL),
    ],
)
def test_what_a_server_wrote_is_fit_to_be_shown(desk: Desk, answer: bytes, kind: FailureKind) -> None:
    with reciting(answer, answer) as server:
        error = desk.fails(server.url("/f?user=s3cret"))
    assert error.kind is kind
    assert "s3cret" not in str(error)
    assert str(error).isprintable()


def test_a_note_of_what_a_server_wrote_is_fit_to_be_shown(desk: Desk) -> None:
    with reciting(ok(b"x", "Content-Encoding: \x1b[31m")) as server:
        assert desk.fetch(server.url()).notes == ("content-encoding: �[31m, stored raw",)


def test_an_error_says_how_far_the_attempt_came(origin: OriginProcess, desk: Desk) -> None:
    error = desk.fails(f"{origin.url}/faults/cut-body{QUERY}")
    assert (error.status, error.received) == (200, SIZE // 2)
    assert error.first_byte is not None
    assert f"expected {SIZE} bytes, got the end after {SIZE // 2} bytes" in str(error)


PART = ok(b"a" * 1000, length=10_000)


@pytest.mark.parametrize("then", [silent, lambda _, connection: reset(connection)], ids=["silence", "reset"])
def test_what_came_with_the_headers_counts_although_nothing_follows(desk: Desk, then: Script) -> None:
    def script(server: Reciter, connection: socket.socket) -> None:
        server.answer(connection, PART)
        then(server, connection)

    with reciting(script) as server:
        assert desk.fails(server.url(), read_timeout=0.3).received == 1000


@pytest.mark.parametrize(
    ("path", "more", "kind"),
    [
        ("files/n", {"sha256": "0" * 64}, FailureKind.DIGEST),
        ("files/n", {"size": SIZE - 1}, FailureKind.SIZE),
        ("faults/chunked", {"size": SIZE - 1}, FailureKind.SIZE),
        ("faults/chunked", {"size": SIZE + 1}, FailureKind.SIZE),
        ("files/n", {"max_bytes": SIZE - 1}, FailureKind.TOO_LARGE),
        ("faults/chunked", {"max_bytes": SIZE - 1}, FailureKind.TOO_LARGE),
    ],
)
def test_another_file_than_wanted_is_refused(
    origin: OriginProcess, desk: Desk, path: str, more: dict[str, object], kind: FailureKind
) -> None:
    assert desk.fails(f"{origin.url}/{path}{QUERY}", **more).kind is kind
    assert desk.leftovers() == []


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (CHUNKED + b"5\r\nhello\r\n0", FailureKind.TRUNCATED),  # of "0005"
        (CHUNKED + b"5\r\nhello\r\n", FailureKind.TRUNCATED),
        (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", FailureKind.PROTOCOL),
        (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 9\r\n\r\nhello", FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5", FailureKind.TRUNCATED),
        (b"HTTP/1.1 200", FailureKind.TRUNCATED),
        (b"", FailureKind.RESET),
        (ok(b"hello", "Content-Range: bytes 0-4/6", status="206 Partial Content"), FailureKind.PROTOCOL),
        (ok(b"hello", "Content-Range: bytes 0-5/6", status="206 Partial Content"), FailureKind.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"Content-Length: 5\r\n\r\nhello", FailureKind.PROTOCOL),
        (ok(b"hello", f"Repr-Digest: sha-256=:{base64.b64encode(bytes(32)).decode()}:"), FailureKind.DIGEST),
        (ok(b"", status="302 Found"), FailureKind.STATUS),
        (moved("ftp://example.org/"), FailureKind.BAD_URL),
    ],
)
def test_framing_that_cannot_be_trusted_is_an_error(desk: Desk, answer: bytes, kind: FailureKind) -> None:
    with reciting(answer, answer) as server:
        assert desk.fails(server.url()).kind is kind


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"X: " + b"x" * 60_000 + b"\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"".join(b"X%d: %s\r\n" % (n, b"y" * 1000) for n in range(90)) + b"Content-Length: 5\r\n\r\nhello",
        OK + b"X: y\r\n" * 6000 + b"Content-Length: 5\r\n\r\nhello",
        OK + b"X: caf\xe9\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Transfer-Encoding: Chunked\r\nContent-Length: 99\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        CHUNKED + b"3;a=b\r\nhel\r\n2 \r\nlo\r\n0\r\nA: b\r\n\r\n",  # extensions, blanks and trailers
        CHUNKED + b"5\nhello\n0\n\n",
    ],
)
def test_an_unusual_answer_that_is_clear_becomes_a_file(desk: Desk, answer: bytes) -> None:
    with reciting(answer, answer) as server:
        assert desk.bring(server.url()) == b"hello"


def test_surplus_bytes_are_forgiven_where_a_digest_vouches_for_the_rest(desk: Desk) -> None:
    stray = ok(b"hello\r\n", length=5)
    longer = ok(b"hello", length=4)
    with reciting(longer, longer, stray, stray) as server:
        assert desk.bring(server.url(), sha256=hashlib.sha256(b"hell").hexdigest()) == b"hell"
        desk.final.unlink()
        assert desk.bring(server.url(), digest=f"md5:{hashlib.md5(b'hell').hexdigest()}") == b"hell"  # noqa: S324
        desk.final.unlink()
        assert desk.bring(server.url()) == b"hello"  # a stray line end is no content


def test_a_connection_is_used_again_and_one_that_went_away_is_no_failure(desk: Desk) -> None:
    def twice_then_away(server: Reciter, connection: socket.socket) -> None:
        server.answer(connection, ok(b"hello"), ok(b"hello"))
        server.hear(connection)  # and no answer

    with reciting(twice_then_away, ok(b"hello")) as server:
        for expected_connections in (1, 1, 2):
            assert desk.fetch(server.url()).size == 5
            assert server.connections == expected_connections


def test_many_threads_share_one_fetcher(origin: OriginProcess, tmp_path: Path) -> None:
    shared = Desk(tmp_path).fetcher

    def bring(number: int) -> bool:
        size = 1000 + number * 7919
        return Desk(tmp_path / str(number), shared).bring(f"{origin.url}/files/n{number}?size={size}") == Entity(
            f"n{number}", size
        ).read(0, size)

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(bring, range(100)))
