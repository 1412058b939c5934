"""One leaf per kind, one map from foreign exceptions to leaves, and when to try again."""

import errno
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from download.errors import (
    LEAVES,
    Backoff,
    CancelledError,
    ConnectError,
    DigestError,
    DiskError,
    DownloadError,
    Ended,
    HandedBackError,
    LeaseLostError,
    PermanentError,
    ResetError,
    ServerError,
    StatusError,
    TransientError,
    fit_to_show,
    transient,
    translate,
)
from download.validators import retry_after
from ledger.jobs import FailureKind

TRANSIENT = {
    "dns", "connect", "timeout", "slow", "reset", "truncated", "protocol", "server", "changed", "disk-full", "lost",
    "machine",
}  # fmt: skip


def test_each_kind_has_one_leaf_that_is_transient_or_permanent_as_the_contract_says() -> None:
    assert set(LEAVES) == set(FailureKind)
    for kind, leaf in LEAVES.items():
        assert transient(kind) == (kind.value in TRANSIENT) == issubclass(leaf, TransientError)
        assert issubclass(leaf, TransientError) != issubclass(leaf, PermanentError)


def test_what_is_kept_for_a_later_attempt() -> None:
    kept = {kind for kind, leaf in LEAVES.items() if leaf.keeps_partial}
    assert kept == {FailureKind(kind) for kind in TRANSIENT} - {FailureKind.CHANGED, FailureKind.DISK_FULL} | {
        FailureKind.DEADLINE
    }
    assert [end.keeps_partial for end in (CancelledError, HandedBackError, LeaseLostError)] == [False, True, True]


def test_an_interrupt_is_no_failure() -> None:
    for end in (CancelledError, HandedBackError, LeaseLostError):
        assert issubclass(end, Ended)
        assert not issubclass(end, DownloadError)


def os_errors(*names: str) -> list[Exception]:
    return [OSError(getattr(errno, name), name) for name in names]


FOREIGN: dict[str, list[Exception]] = {
    "dns": [socket.gaierror(socket.EAI_NONAME, "Name or service not known")],
    "connect": os_errors("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"),
    "timeout": [TimeoutError("timed out")],
    "reset": [*os_errors("ECONNRESET", "EPIPE", "ENOTCONN"), ssl.SSLEOFError(8, "eof")],
    "tls": [ssl.SSLCertVerificationError(1, "bad certificate")],
    "protocol": [ssl.SSLError(1, "wrong version number")],
    "disk-full": os_errors("ENOSPC", "EDQUOT"),
    "disk": os_errors("EROFS", "EACCES", "ENAMETOOLONG", "EFBIG", "ENOENT", "ESTALE"),
    "machine": [*os_errors("EMFILE"), MemoryError(), RuntimeError("can't start new thread")],
    "internal": [ValueError("a bug"), KeyError("a bug")],
}


@pytest.mark.parametrize(("error", "kind"), [(error, kind) for kind, errors in FOREIGN.items() for error in errors])
def test_foreign_exceptions_become_leaves(error: Exception, kind: str) -> None:
    assert translate(error).kind == kind


def test_a_leaf_stays_what_it_is_and_a_message_is_one_line() -> None:
    leaf = DigestError("expected a, got b")
    assert translate(leaf) is leaf
    assert str(translate(TimeoutError("220 hello\r\nworld\r\n"), "h: ")) == "h: 220 hello world"
    assert str(translate(KeyError())) == "KeyError"
    assert isinstance(translate(OSError(errno.EACCES, "Permission denied", "/x")), DiskError)
    assert not issubclass(ConnectError, PermanentError)


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("a loop at http://u:p@h/x?sig=abc&b=c, then no more", "a loop at http://***@h/x?*** then no more"),
        ("to /x#access_token=abc", "to /x#***"),
        ("at http://h/x;jsessionid=abc", "at http://h/x;jsessionid=***"),
        ("what? and #1; and so on", "what? and #*** and so on"),
        ("\x1b]0;title\x07 \x9b31m\u202e\n", "�]0;title� �31m�"),
        ("a\tb\r\n\x85c", "a b c"),
    ],
)
def test_a_message_hides_secrets_and_steers_no_terminal(text: str, fit: str) -> None:
    for error in (Ended(text), StatusError(text), translate(ValueError(text))):
        assert str(error) == fit


@given(st.text() | st.text("?#;=@:/ha\x9b").map("http://{}".format))
def test_what_is_fit_to_show_stays_as_it_is(text: str) -> None:
    fit = fit_to_show(text)
    assert fit.isprintable()
    assert len(fit) <= 501
    assert fit_to_show(fit) == fit


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


def test_retry_after_is_a_lower_bound() -> None:
    assert BACKOFF.wait(1, ServerError("503", 7.0), lambda: 0.0) == 7.0
    assert BACKOFF.wait(1, ServerError("503", 7.0), lambda: 1.0) == 7.5
    assert BACKOFF.wait(1, ServerError("503", 86_400.0), lambda: 0.0) == 86_400.0
    assert BACKOFF.wait(1, ServerError("503"), lambda: 1.0) == 0.5


AHEAD = "Thu, 01 Jan 2026 00:00:10 GMT"  # its clock is decades ahead of ours
FAR = 1_767_225_610.0 - 1000.0


@pytest.mark.parametrize(
    ("header", "said", "seconds"),
    [
        (None, None, None),
        ("120", None, 120.0),
        (" 0 ", None, 0.0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", None, 10.0),
        ("Thu, 01 Jan 1970 00:16:50", None, 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None, 0.0),
        *((text, None, None) for text in ("-5", "1.5", "soon", "", "٣")),
        (AHEAD, "Thu, 01 Jan 2026 00:00:00 GMT", 10.0),
        (AHEAD, "Thu, 01 Jan 2026 00:00:20 GMT", 0.0),
        (AHEAD, "soon", FAR),
        (AHEAD, None, FAR),
    ],
)
def test_retry_after_is_seconds_or_a_date_of_the_servers_own_clock(
    header: str | None, said: str | None, seconds: float | None
) -> None:
    assert retry_after(header, now=1000.0, said=said) == seconds


@given(st.text(), st.none() | st.text())
def test_no_header_breaks_it(header: str, said: str | None) -> None:
    seconds = retry_after(header, now=1000.0, said=said)
    assert seconds is None or seconds >= 0
