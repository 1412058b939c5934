"""When to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from download.errors import ResetError, ServerError, StatusError
from download.retry import Backoff, retry_after

BACKOFF = Backoff(attempts=4, base=0.5, cap=30.0)


def test_waits_double_with_full_jitter_up_to_the_cap() -> None:
    backoff = Backoff(attempts=100, base=0.5, cap=30.0)
    longest = [backoff.wait(n, ResetError("x"), lambda: 1.0) for n in range(1, 9)]
    assert longest == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.wait(5, ResetError("x"), lambda: 0.0) == 0
    assert Backoff(10_000).wait(5_000, ResetError("x"), lambda: 1.0) == 30


def test_attempts_are_bounded_and_permanent_failures_have_one() -> None:
    assert BACKOFF.wait(3, ResetError("x"), lambda: 1.0) is not None
    assert BACKOFF.wait(4, ResetError("x"), lambda: 1.0) is None
    assert BACKOFF.wait(1, StatusError("404"), lambda: 1.0) is None


def test_retry_after_is_a_lower_bound_and_capped() -> None:
    assert BACKOFF.wait(1, ServerError("503", 7.0), lambda: 0.0) == 7.0
    assert BACKOFF.wait(1, ServerError("503", 7.0), lambda: 1.0) == 7.5
    assert BACKOFF.wait(1, ServerError("503", 86_400.0), lambda: 0.0) == 30.0
    assert BACKOFF.wait(1, ServerError("503"), lambda: 1.0) == 0.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:16:50", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
    ],
)
def test_the_header_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=1000.0) == seconds


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Thu, 01 Jan 2026 00:00:00 GMT", 10.0),  # its clock is decades ahead of ours
        ("Thu, 01 Jan 2026 00:00:20 GMT", 0.0),
        ("soon", 1_767_225_610.0 - 1000.0),
        (None, 1_767_225_610.0 - 1000.0),
    ],
)
def test_a_date_is_one_of_the_servers_own_clock(said: str | None, seconds: float) -> None:
    assert retry_after("Thu, 01 Jan 2026 00:00:10 GMT", now=1000.0, said=said) == seconds


@given(st.text(), st.none() | st.text())
def test_no_header_breaks_it(header: str, said: str | None) -> None:
    seconds = retry_after(header, now=1000.0, said=said)
    assert seconds is None or seconds >= 0
