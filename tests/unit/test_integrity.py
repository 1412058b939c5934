"""What headers promise about bytes."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from download.errors import ChangedError, DigestError, EmptyError, SizeError, TruncatedError
from download.validators import (
    ContentRange,
    Validators,
    content_range,
    mismatch,
    repr_sha256,
    strong_date,
    strong_etag,
    verify_sha256,
    verify_size,
    verify_unframed,
)

OLD, NEW = "Sat, 01 Feb 2025 00:00:00 GMT", "Sat, 01 Feb 2025 00:00:01 GMT"


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
    [(OLD, NEW, OLD), (NEW, NEW, None), (NEW, OLD, None), (OLD, None, None), (None, NEW, None), ("x", "y", None)],
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
    tagged, dated = Validators("u", '"a"', OLD, 10), Validators("u", None, OLD, None)
    part = ContentRange(5, 9, 10)
    assert mismatch(tagged, {"ETag": '"a"'}, part, 5) is None
    assert mismatch(dated, {}, part, 5) is None
    assert mismatch(dated, {"Last-Modified": OLD}, part, 5) is None
    for validators, headers, offset, word in [
        (tagged, {"ETag": '"b"'}, 5, "ETag"),
        (tagged, {}, 5, "ETag"),
        (tagged, {"ETag": '"a"'}, 4, "from byte 4"),
        (Validators("u", '"a"', None, 11), {"ETag": '"a"'}, 5, "11 bytes"),
        (dated, {"Last-Modified": NEW}, 5, OLD),
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


def test_the_last_word_on_a_file() -> None:
    verify_size(5, announced=5, wanted=5)
    verify_size(5, announced=None, wanted=None)
    verify_unframed(5, ragged=False)
    verify_sha256("ab", "AB", "x", resumed=True)
    verify_sha256("ab", None, "x", resumed=False)
    with pytest.raises(TruncatedError):
        verify_size(5, announced=6, wanted=5)
    with pytest.raises(SizeError):
        verify_size(5, announced=None, wanted=6)
    with pytest.raises(EmptyError):
        verify_unframed(0, ragged=False)
    with pytest.raises(TruncatedError):
        verify_unframed(5, ragged=True)
    with pytest.raises(DigestError):
        verify_sha256("ab", "cd", "x", resumed=False)
    with pytest.raises(ChangedError):
        verify_sha256("ab", "cd", "x", resumed=True)
