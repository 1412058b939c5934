"""What a record keeps of a server's ETag and Last-Modified comes back as the server wrote it, or not at all."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.records import LONGEST_ETAG, decode_validators, encode_validators

DATE = "Sun, 06 Apr 2025 15:43:12 GMT"
etags = st.text(st.characters(codec="latin-1", exclude_characters='"', categories=["L", "N", "P", "S"]), max_size=60)


@given(etags, st.booleans(), st.none() | st.integers(0, 2**37).map(lambda seconds: formatdate(seconds, usegmt=True)))
def test_what_is_kept_comes_back(tag: str, weak: bool, date: str | None) -> None:
    etag = f'{"W/" if weak else ""}"{tag}"'
    assert decode_validators(encode_validators(etag, date)) == (etag, date)
    assert decode_validators(encode_validators(None, date)) == (None, date)


@given(st.text() | st.none(), st.text() | st.none())
def test_whatever_a_server_sends_comes_back_or_is_left_out(etag: str | None, date: str | None) -> None:
    kept_etag, kept_date = decode_validators(encode_validators(etag, date))
    assert kept_etag in (None, etag)
    assert kept_date in (None, date)
    assert len(encode_validators(etag, date)) <= LONGEST_ETAG + 8


@pytest.mark.parametrize(
    ("etag", "date", "stored"),
    [
        ('"67f2a1b0-f4240"', DATE, 'suazo0"67f2a1b0-f4240'),
        ('W/"1"', None, 'W/"1'),
        ('""', DATE, 'suazo0"'),
        (f'"{"a" * 64}"', None, f'"{"a" * 64}'),
        (f'"{"a" * 71}"', DATE, "suazo0"),  # too long
        ("67f2", DATE, "suazo0"),  # no ETag
        (None, "Sun, 6 Apr 2025 15:43:12 GMT", ""),  # no HTTP-date
        (None, "Thu, 01 Jan 1970 00:00:00 GMT", "0"),
        (None, None, ""),
    ],
)
def test_as_few_bytes_as_they_take(etag: str | None, date: str | None, stored: str) -> None:
    assert encode_validators(etag, date) == stored
