"""Answers that were damaged, and URLs of all kinds: a file or an error of its own, never a bug and never a hang."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from download.addresses import AddressPolicy, Target
from download.errors import BadUrlError, DownloadError, RefusedError
from download.proxy import Proxy
from ledger.jobs import FailureKind
from tests.unit.download_kit import ChunkDesk, Desk, moved, ok, reciting

BODY = b"hello world, this is it"
HERE = Target.parse("http://host.example:8080/a/b?c=d")
OURS = {FailureKind.INTERNAL, FailureKind.DISK, FailureKind.NAME, FailureKind.DEADLINE}  # what no server can cause

LINES = [
    *(b"Content-Length: " + value for value in (b"23", b"22", b"23, 23", b"+23", b"23\xb2", b"9" * 30, b"")),
    *(b"Transfer-Encoding: " + value for value in (b"chunked", b"\x0bchunked", b"xchunked", b"chunked, identity")),
    *(
        b"Location: " + value
        for value in (b"//", b"http://[::1", b"\xff\xfe", b"http://a:99999/", b"http://xn--/", b"")
    ),
    *(b"Retry-After: " + value for value in (b"9" * 30, b"-1", b"Sun, 06 Nov 99999 08:49:37 GMT", b"\xb2")),
    *(b"Last-Modified: " + value for value in (b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 99999 08:49:37 GMT")),
    *(b"Date: Thu, 01 Jan 0000 00:00:00 GMT", b'ETag: "\x00"', b"ETag: x", b"Content-Range: bytes 0-22/23"),
    *(b"Content-Encoding: br, gzip", b"Repr-Digest: sha-256=:!!!!:", b"Connection: close"),
    b"Content-Disposition: attachment; filename*=UTF-8''%ff%fe",
    *(b"no colon", b": no name", b" folded", b"X: " + b"x" * 70_000),
]
ODD = (
    b"HTTP/1.0 200",
    b"HTTP/2 200",
    b"ICY 200 OK",
    b"HTTP/1.1 2oo",
    b"HTTP/1.1 -1",
    b"HTTP/1.1 1000 X",
    b"HTTP/1.1 099",
)
CODES = (101, 204, 206, 302, 304, 416, 418, 503)
STATUS = st.sampled_from([*[b"HTTP/1.1 200 OK"] * 4, *ODD, *(b"HTTP/1.1 %d X" % code for code in CODES)])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(st.sampled_from(LINES), max_size=5))
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    raw = bytearray(end.join([draw(STATUS), *lines, b"", b""]) + BODY)
    for at, piece, length in draw(
        st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=5), st.integers(0, 5)), max_size=2)
    ):
        raw[at : at + length] = piece
    return bytes(raw)


@pytest.mark.parametrize("way", [Desk, ChunkDesk], ids=["single", "chunk"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(answers())
def test_a_damaged_answer_is_a_file_or_an_error_of_its_own(way: type[Desk], answer: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, reciting(*[answer] * 3) as server:
        desk = way(Path(folder))
        kind = None
        try:
            fetched = desk.fetch(server.url(), seconds=20)
            assert fetched.size == desk.temp.stat().st_size
        except DownloadError as error:
            kind = error.kind
        desk.fetcher.close()
        assert kind not in OURS


@pytest.mark.parametrize("location", ["http://[::1", "http://[/", "//[x]/", "http://\uff0fa/"])
def test_a_redirect_to_what_is_no_url_is_said(desk: Desk, location: str) -> None:
    with pytest.raises(BadUrlError):
        HERE.join(location)
    if location.isascii():
        with reciting(moved(location), moved(location)) as server:
            assert desk.fails(server.url()).kind is FailureKind.BAD_URL


@pytest.mark.parametrize("location", ["ftp://a/", "http://169.254.169.254/", "http://u@a/", "http://[", "http://a b/"])
def test_a_server_cannot_make_a_reason_long(desk: Desk, location: str) -> None:
    answer = moved(location + "x" * 60_000)
    with reciting(answer, answer) as server:
        error = desk.fails(server.url())
    assert error.kind in (FailureKind.BAD_URL, FailureKind.REFUSED, FailureKind.PROTOCOL)
    assert 20 < len(str(error)) <= 501


def test_a_server_cannot_make_a_note_long(desk: Desk) -> None:
    answer = ok(BODY, f"Content-Encoding: gzip{'x' * 60_000}")
    with reciting(answer, answer) as server:
        (note,) = desk.fetch(server.url()).notes
    assert note.startswith("content-encoding: gzipx")
    assert len(note) < 100


urls = st.one_of(
    st.text(max_size=60),
    st.text(max_size=40).map("http://{}/".format),
    st.from_regex(r"https?://[^/]{1,20}.*"),
    st.from_regex(r"(https?:)?/{0,3}[\[\]@:%a-z0-9.\\ \x00-\xff-]{0,20}(:[0-9]{0,6})?(/[^\n]{0,10})?", fullmatch=True),
)


@given(urls)
def test_any_text_is_a_target_that_reads_itself_back_or_a_bad_url(text: str) -> None:
    for read in (Target.parse, HERE.join):
        try:
            target = read(text)
        except BadUrlError:
            continue
        assert Target.parse(target.url) == target
        assert target.url.isascii()
        assert not set(target.url) & set("\\ \r\n\t\x00")
        with suppress(RefusedError):  # and nothing else
            AddressPolicy().admit(target)
            Proxy("p", 1).admit(target, AddressPolicy())
