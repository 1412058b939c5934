"""What headers promise about bytes, and that whatever a server answers, no file is put together of two."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from download.errors import DownloadError
from download.validators import (
    ContentRange,
    Validators,
    content_range,
    mismatch,
    repr_sha256,
    strong_date,
    strong_etag,
)
from tests.unit.download_kit import Desk, ok, reciting

EARLIER, LATER = "Sat, 01 Feb 2025 00:00:00 GMT", "Sat, 01 Feb 2025 00:00:01 GMT"


@pytest.mark.parametrize(
    ("header", "strong"),
    [
        ('"a"', '"a"'),
        ('""', '""'),
        ('W/"a"', None),
        ("a", None),
        ('"a" "b"', None),
        ('"a\r\nX: y"', None),
        (None, None),
    ],
)
def test_only_a_strong_etag_counts(header: str | None, strong: str | None) -> None:
    assert strong_etag(header) == strong


@pytest.mark.parametrize(
    ("modified", "date", "strong"),
    [
        (EARLIER, LATER, EARLIER),
        (LATER, LATER, None),
        (LATER, EARLIER, None),
        (EARLIER, None, None),
        (None, LATER, None),
        ("x", "y", None),
    ],
)
def test_a_date_counts_only_when_it_is_older_than_the_answer(
    modified: str | None, date: str | None, strong: str | None
) -> None:
    assert strong_date(modified, date) == strong


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes 5-9/10", ContentRange(5, 9, 10)),
        ("Bytes 0-0/1", ContentRange(0, 0, 1)),
        ("bytes 5-9/*", None),
        ("bytes */10", None),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("items 5-9/10", None),
        ("bytes=5-9/10", None),
        (None, None),
    ],
)
def test_a_content_range_is_whole_or_nothing(header: str | None, part: ContentRange | None) -> None:
    assert content_range(header) == part


def test_a_part_fits_only_with_its_start_total_and_validator() -> None:
    tagged, dated = Validators("u", '"a"', EARLIER, 10), Validators("u", None, EARLIER, None)
    part = ContentRange(5, 9, 10)
    assert mismatch(tagged, {"ETag": '"a"'}, part, 5) is None
    assert mismatch(dated, {}, part, 5) is None
    assert mismatch(dated, {"Last-Modified": EARLIER}, part, 5) is None
    for validators, headers, offset, word in [
        (tagged, {"ETag": '"b"'}, 5, "ETag"),
        (tagged, {}, 5, "ETag"),
        (tagged, {"ETag": '"a"'}, 4, "from byte 4"),
        (Validators("u", '"a"', None, 11), {"ETag": '"a"'}, 5, "11 bytes"),
        (dated, {"Last-Modified": LATER}, 5, EARLIER),
    ]:
        assert word in (mismatch(validators, headers, part, offset) or "")


def test_a_repr_digest_is_found_among_others() -> None:
    digest = hashlib.sha256(b"x")
    text = base64.b64encode(digest.digest()).decode()
    for header in (f"sha-256=:{text}:", f"sha-512=:AAAA:, sha-256=:{text}:", f"sha-256=:{text}:;q=1,md5=:AA:"):
        assert repr_sha256(header) == digest.hexdigest()
    for useless in (None, "", "sha-256", f"sha-256={text}", f"x-sha-256=:{text}:", "sha-256=:AAAA:"):
        assert repr_sha256(useless) is None


@given(st.text())
def test_no_header_breaks_the_readers(header: str) -> None:
    for read in (strong_etag, content_range, repr_sha256, lambda text: strong_date(text, text)):
        read(header)


SIZE = 66_000  # worth keeping
OLD, NEW = bytes(SIZE), b"\xff" * SIZE
ETAGS = {'"old"': OLD, '"new"': NEW, 'W/"old"': NEW, "": NEW}  # what each stands for
numbers = st.integers(0, 10**18 - 1)


@given(numbers, numbers, numbers)
def test_a_content_range_means_what_it_says_or_nothing(first: int, last: int, total: int) -> None:
    part = content_range(f"bytes {first}-{last}/{total}")
    assert part == (ContentRange(first, last, total) if first <= last < total else None)
    assert part is None or part.length == last - first + 1 <= total


@given(st.text() | st.from_regex(r"(bytes|items)? ?-?\d{0,20}-\d{0,20}/(\d{0,20}|\*)", fullmatch=True))
def test_whatever_stands_in_a_content_range_is_read_back_as_it_is_or_not_at_all(header: str) -> None:
    part = content_range(header)
    if part is not None:
        numbers = "".join(each if each.isdigit() else " " for each in header).split()
        assert [int(number) for number in numbers] == [part.first, part.last, part.total]
        assert 0 <= part.first <= part.last < part.total


tags = st.none() | st.sampled_from(['"a"', '"b"', 'W/"a"'])
dates = st.none() | st.sampled_from(["Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"])
small = st.integers(0, 4)


@given(st.builds(Validators, st.just("u"), tags, dates, st.none() | small), tags, dates, st.tuples(small, small), small)
def test_only_the_same_entity_from_the_same_place_fits(
    kept: Validators, etag: str | None, date: str | None, part: tuple[int, int], offset: int
) -> None:
    first, total = part
    given_ = {"ETag": etag, "Last-Modified": date}
    headers = {name: text for name, text in given_.items() if text is not None}
    if mismatch(kept, headers, ContentRange(first, total - 1, total), offset) is None:
        assert first == offset
        assert kept.total in (None, total)
        assert kept.etag is None or etag == kept.etag
        assert kept.etag is not None or date in (None, kept.last_modified)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer to a request for the rest; its bytes are those of the entity that its ETag stands for."""
    etag = draw(st.sampled_from(list(ETAGS)))
    body, headers = ETAGS[etag], [f"ETag: {etag}"] if etag else []
    status = draw(st.sampled_from(["206 Partial Content", "200 OK", "416 Range Not Satisfiable"]))
    if status.startswith("416"):
        return ok(b"", f"Content-Range: bytes */{SIZE}", status=status)
    if status.startswith("200"):
        return ok(body, *headers)
    first = draw(st.sampled_from([0, 1, SIZE // 2 - 1, SIZE // 2, SIZE // 2 + 1, SIZE - 1]))
    last = draw(st.sampled_from([first, SIZE // 2, SIZE - 2, SIZE - 1]))
    total = draw(st.sampled_from([SIZE - 1, SIZE, SIZE + 1, "*"]))
    part = body[first : last + 1]
    length = len(part) + draw(st.sampled_from([0, 0, 0, -1, 1]))
    name = draw(st.sampled_from(["Content-Range", "Content-Range", "X-Content-Range"]))
    return ok(part, f"{name}: bytes {first}-{last}/{total}", *headers, length=max(0, length), status=status)


def whole(answer: bytes) -> set[bytes]:
    """The body of a 206 that says that it is all there is, which is the file if no part of it was asked for."""
    head, _, body = answer.partition(b"\r\n\r\n")
    size = b"%d" % len(body)
    says = b"Content-Length: " + size, b"\r\nContent-Range: bytes 0-%d/" % (len(body) - 1) + size
    return {body} if all(each in head for each in says) else set()


SHORT = ok(OLD[:-1], f"Content-Range: bytes 0-{SIZE - 2}/{SIZE - 1}", 'ETag: "old"', status="206 Partial Content")
REFUSED = ok(OLD[:1], f"Content-Range: bytes 0-0/{SIZE - 1}", 'ETag: "old"', status="206 Partial Content")


@settings(max_examples=150)
@example([REFUSED, SHORT])
@given(st.lists(answers(), min_size=1, max_size=2))
def test_no_answer_makes_a_file_of_two(second: list[bytes]) -> None:
    """If there is a file in the end, it is one that the server has, or says to have."""
    cut = ok(OLD[: SIZE // 2], 'ETag: "old"', length=SIZE)
    with reciting(cut, *second, ok(NEW, 'ETag: "new"')) as server, tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        desk.fails(server.url())
        assert desk.temp.stat().st_size == SIZE // 2
        for _ in range(len(second) + 1):
            try:
                content = desk.bring(server.url())
            except DownloadError:
                assert not desk.final.exists()
                continue
            assert content in {OLD, NEW}.union(*map(whole, second))
            break
        desk.fetcher.close()
        assert all("Accept-Encoding: identity" in request for request in server.requests)
        assert 'If-Range: "old"' in server.requests[1]
