"""One leaf per kind, and one map from foreign exceptions to leaves."""

import errno
import socket
import ssl

import pytest

from download.errors import (
    LEAVES,
    CancelledError,
    ConnectError,
    DigestError,
    DiskError,
    DownloadError,
    Ended,
    HandedBackError,
    LeaseLostError,
    PermanentError,
    TransientError,
    transient,
    translate,
)
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
    assert kept == {FailureKind(kind) for kind in TRANSIENT} - {FailureKind.CHANGED, FailureKind.DISK_FULL}
    assert [end.keeps_partial for end in (CancelledError, HandedBackError, LeaseLostError)] == [False, True, True]


def test_an_interrupt_is_no_failure() -> None:
    for end in (CancelledError, HandedBackError, LeaseLostError):
        assert issubclass(end, Ended)
        assert not issubclass(end, DownloadError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "dns"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "connect"),
        (OSError(errno.EHOSTUNREACH, "no route"), "connect"),
        (OSError(errno.ENETUNREACH, "unreachable"), "connect"),
        (OSError(errno.EMFILE, "too many open files"), "machine"),
        (TimeoutError("timed out"), "timeout"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "reset"),
        (BrokenPipeError(errno.EPIPE, "pipe"), "reset"),
        (OSError(errno.ENOTCONN, "not connected"), "reset"),
        (ssl.SSLCertVerificationError(1, "bad certificate"), "tls"),
        (ssl.SSLEOFError(8, "eof"), "reset"),
        (ssl.SSLError(1, "wrong version number"), "protocol"),
        (OSError(errno.ENOSPC, "no space"), "disk-full"),
        (OSError(errno.EDQUOT, "quota"), "disk-full"),
        (OSError(errno.EROFS, "read-only"), "disk"),
        (PermissionError(errno.EACCES, "denied"), "disk"),
        (OSError(errno.ENAMETOOLONG, "long"), "disk"),
        (OSError(errno.EFBIG, "big"), "disk"),
        (FileNotFoundError(errno.ENOENT, "none"), "disk"),
        (OSError(errno.ESTALE, "stale"), "disk"),
        (MemoryError(), "machine"),
        (RuntimeError("can't start new thread"), "machine"),
        (ValueError("a bug"), "internal"),
        (KeyError("a bug"), "internal"),
    ],
)
def test_foreign_exceptions_become_leaves(error: Exception, kind: str) -> None:
    assert translate(error).kind == kind


def test_a_leaf_stays_what_it_is_and_a_message_is_one_line() -> None:
    leaf = DigestError("expected a, got b")
    assert translate(leaf) is leaf
    assert str(translate(TimeoutError("220 hello\r\nworld\r\n"), "h: ")) == "h: 220 hello world"
    assert str(translate(KeyError())) == "KeyError"
    assert isinstance(translate(OSError(errno.EACCES, "Permission denied", "/x")), DiskError)
    assert not issubclass(ConnectError, PermanentError)
