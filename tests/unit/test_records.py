"""What is written into Redis is read back as it was."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.jobs import Attempt, Executor, FailureKind, Job, Ref, check_batch_name
from ledger.records import (
    LONGEST_ETAG,
    decode_attempts,
    decode_job,
    decode_validators,
    encode_attempt,
    encode_job,
    encode_validators,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
URLS = st.sampled_from(["http://a/", "http://a/b", "http://a/b?c/d", "http://a/0"])
DIGESTS = st.binary(min_size=31, max_size=33).map(bytes.hex) | st.just("AB" * 32)
WORKERS = st.sampled_from(["threads@host", "@host", "@thost", "@=", "prefork@", "gevent@a@b", "second@host", "t@host"])
LATER = st.integers(0, 10**8)
DATE = "Sun, 06 Apr 2025 15:43:12 GMT"
ETAGS = st.text(st.characters(codec="latin-1", exclude_characters='"', categories=["L", "N", "P", "S"]), max_size=60)


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    started_ms = draw(st.integers(10**12, 4 * 10**12))
    first = draw(st.none() | LATER)
    return Attempt(
        executor=draw(
            st.none() | st.builds(Executor, TEXT | WORKERS, st.integers(1), st.integers(1), st.none() | st.integers(0))
        ),
        started=started_ms / 1000,
        finished=(started_ms + draw(LATER)) / 1000,
        first_byte=None if first is None else (started_ms + first) / 1000,
        bytes=draw(st.integers(0, 2**50)),
        status=draw(st.none() | st.integers(100, 599)),
        kind=draw(st.none() | st.sampled_from(FailureKind)),
        reason=draw(st.none() | TEXT),
    )


@given(st.builds(Job, TEXT | URLS, TEXT, st.none() | TEXT | DIGESTS, st.none() | st.integers(0)))
def test_a_job_is_read_back_as_it_was_written(job: Job) -> None:
    assert decode_job(encode_job(job)) == job


@given(st.text())
def test_the_short_way_for_a_url_alone_writes_the_same_text(url: str) -> None:
    name = url.partition("?")[0].rpartition("/")[2]
    assert encode_job(Job(url, name)) == json.dumps([url], separators=(",", ":"), ensure_ascii=False)


@given(st.lists(attempts(), max_size=4), st.integers(10**12, 4 * 10**12))
def test_attempts_are_read_back_as_they_were_written(written: list[Attempt], queued_ms: int) -> None:
    queued = queued_ms / 1000
    assert decode_attempts(",".join(encode_attempt(each, queued) for each in written), queued) == tuple(written)


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (Job("http://a/b?c", "b.bin"), '["http://a/b?c","b.bin"]'),
        # A filename that the URL says, and a digest, take little room.
        (Job("http://a/b?c", "b", "0a" * 32), '["http://a/b?c",0,"CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo"]'),
        # The version before passes over a digest of another algorithm.
        (Job("http://a/b?c", "b", digest="md5:0a"), '["http://a/b?c",0,null,null,{"d":"md5:0a"}]'),
    ],
)
def test_a_job_takes_no_room_for_what_is_not_expected_of_it(job: Job, text: str) -> None:
    assert encode_job(job) == text
    assert decode_job(text) == job


@pytest.mark.parametrize("text", ["b.0", "b.7-9", "2026-x_Y.123456789"])
def test_a_ref_is_read_back_as_it_was_written(text: str) -> None:
    assert str(Ref.parse(text)) == text


@pytest.mark.parametrize("text", ["", "b", "b.", ".1", "b.1-", "b.2-1", "b.-1", "a.b.1", "b.1\n", "b.1;DROP", "b.٣"])
def test_what_is_not_a_ref_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Ref.parse(text)


def test_a_ref_names_at_most_as_many_jobs_as_a_message_carries() -> None:
    assert len(Ref.parse("b.1-500").ordinals) == 500
    with pytest.raises(ValueError, match=r"expected at most 500 jobs from FIRST to LAST, got 'b.0-500'"):
        Ref.parse("b.0-500")
    assert Ref.parse("b.0-999999999", most=None).last == 999_999_999


@pytest.mark.parametrize("name", ["", "-a", "a.b", "a b", "ü", "x" * 65, "a/b"])
def test_a_batch_name_that_would_break_a_key_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 64"):
        check_batch_name(name)


@given(ETAGS, st.booleans(), st.none() | st.integers(0, 2**37).map(lambda seconds: formatdate(seconds, usegmt=True)))
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
