"""The ways a download ends without a file.

::

    Ended
    ├── Interrupted            no failure: nobody wants the file from this attempt any more
    │   ├── CancelledError     by request
    │   ├── HandedBackError    the worker drains; somebody else goes on
    │   └── LeaseLostError     the job belongs to another holder now
    └── DownloadError          has a FailureKind
        ├── TransientError     worth another attempt
        │   ├── DnsError ConnectError SilenceError SlowError ResetError TruncatedError
        │   ├── ProtocolError ServerError ChangedError DiskFullError
        │   └── LostError
        └── PermanentError     another attempt would fail in the same way
            ├── BadUrlError RefusedError TlsError StatusError RedirectError
            ├── EmptyError SizeError DigestError TooLargeError DeadlineError
            └── FileNameError DiskError StepError PoisonError InternalError

Each leaf stands for one kind. Foreign exceptions become leaves in ``translate`` and nowhere else.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import ClassVar

from ledger.jobs import FailureKind

_LONGEST = 500  # characters of a message: parts of it a server may have written, and it goes into the record


class Ended(Exception):  # noqa: N818 - not every end is an error
    """An attempt that brought no file, and how far it came."""

    keeps_partial: ClassVar[bool] = True  # what arrived stays on disk for a later attempt
    status: int | None = None  # the last HTTP status
    received: int = 0  # bytes, in this attempt
    first_byte: float | None = None  # time.monotonic() of the answer's first byte

    def __init__(self, message: str = "") -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…")


class Interrupted(Ended):
    """Raised by ``check()``; passes through a download unchanged."""


class CancelledError(Interrupted):
    keeps_partial = False


class HandedBackError(Interrupted):
    pass


class LeaseLostError(Interrupted):
    pass


class DownloadError(Ended):
    kind: ClassVar[FailureKind]


class TransientError(DownloadError):
    pass


class PermanentError(DownloadError):
    keeps_partial = False


class DnsError(TransientError):
    kind = FailureKind.DNS


class ConnectError(TransientError):
    kind = FailureKind.CONNECT


class SilenceError(TransientError):
    kind = FailureKind.TIMEOUT


class SlowError(TransientError):
    kind = FailureKind.SLOW


class ResetError(TransientError):
    kind = FailureKind.RESET


class TruncatedError(TransientError):
    kind = FailureKind.TRUNCATED


class ProtocolError(TransientError):
    kind = FailureKind.PROTOCOL


class ServerError(TransientError):
    kind = FailureKind.SERVER

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds from now, as the server asked; not capped


class ChangedError(TransientError):
    kind = FailureKind.CHANGED
    keeps_partial = False


class DiskFullError(TransientError):
    kind = FailureKind.DISK_FULL
    keeps_partial = False  # what it holds is the room that others need


class LostError(TransientError):
    kind = FailureKind.LOST


class BadUrlError(PermanentError):
    kind = FailureKind.BAD_URL


class RefusedError(PermanentError):
    kind = FailureKind.REFUSED


class TlsError(PermanentError):
    kind = FailureKind.TLS


class StatusError(PermanentError):
    kind = FailureKind.STATUS


class RedirectError(PermanentError):
    kind = FailureKind.REDIRECT


class EmptyError(PermanentError):
    kind = FailureKind.EMPTY


class SizeError(PermanentError):
    kind = FailureKind.SIZE


class DigestError(PermanentError):
    kind = FailureKind.DIGEST


class TooLargeError(PermanentError):
    kind = FailureKind.TOO_LARGE


class DeadlineError(PermanentError):
    kind = FailureKind.DEADLINE


class FileNameError(PermanentError):
    kind = FailureKind.NAME


class DiskError(PermanentError):
    kind = FailureKind.DISK


class StepError(PermanentError):
    kind = FailureKind.STEP


class PoisonError(PermanentError):
    kind = FailureKind.POISON


class InternalError(PermanentError):
    kind = FailureKind.INTERNAL


def _leaves(cls: type[DownloadError]) -> list[type[DownloadError]]:
    children = cls.__subclasses__()
    return [leaf for child in children for leaf in _leaves(child)] if children else [cls]


LEAVES: dict[FailureKind, type[DownloadError]] = {leaf.kind: leaf for leaf in _leaves(DownloadError)}


def transient(kind: FailureKind) -> bool:
    return issubclass(LEAVES[kind], TransientError)


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK = frozenset(
    {
        errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EFBIG, errno.EIO, errno.ENOENT,
        errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.EXDEV,
    }
)  # fmt: skip
_UNREACHABLE = frozenset(
    {
        errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN,
        errno.EMFILE, errno.ENFILE,  # our own limit, but it passes
    }
)  # fmt: skip


# The first match counts: subclasses stand before their bases.
_LEAF_OF: list[tuple[tuple[type[Exception], ...], type[DownloadError]]] = [
    ((socket.gaierror,), DnsError),
    ((ssl.SSLCertVerificationError,), TlsError),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), ResetError),
    ((ssl.SSLError,), ProtocolError),
    ((ConnectionResetError, ConnectionAbortedError, BrokenPipeError), ResetError),
    ((TimeoutError,), SilenceError),
]


def translate(error: Exception, prefix: str = "") -> DownloadError:
    """The leaf for an exception of ssl, socket or the file system.

    A refused *connection* with a disk's error number (a firewall answers EACCES) is the connecting
    code's to tell apart: here EACCES is a folder.
    """
    if isinstance(error, DownloadError):
        return error
    text = " ".join(str(error).split()) or type(error).__name__  # one line, whatever the server sent
    return _leaf(error)(prefix + text)


def _leaf(error: Exception) -> type[DownloadError]:
    for classes, leaf in _LEAF_OF:
        if isinstance(error, classes):
            return leaf
    if isinstance(error, OSError):
        return _leaf_of_errno(error.errno)
    return InternalError


def _leaf_of_errno(number: int | None) -> type[DownloadError]:
    if number in _FULL:
        return DiskFullError
    if number in _UNREACHABLE:
        return ConnectError
    return DiskError if number in _DISK else ResetError
