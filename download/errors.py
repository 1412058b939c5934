"""The ways a download ends without a file, and when it is tried again.

::

    Ended
    ├── Interrupted            no failure: the file is not wanted from this attempt any more
    │   ├── CancelledError     by request
    │   ├── HandedBackError    the worker stops; another one goes on
    │   └── LeaseLostError     the job belongs to another holder now
    ├── TempLostError          the temp file was removed, replaced or locked; the file can be restarted
    └── DownloadError          has a FailureKind, one class per kind
        ├── TransientError     worth another attempt
        └── PermanentError     another attempt would fail in the same way

Foreign exceptions become these in ``translate`` and nowhere else.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, TypeVar

from ledger.jobs import FailureKind

Leaf = TypeVar("Leaf", bound="DownloadError")

_LONGEST = 500  # characters of a message
# What is redacted may come from a hostile server: each pattern reads a character a bounded number of times.
_USERINFO = re.compile(r"(?i)([a-z][a-z0-9+.-]{0,30}://)[^/?#\s]*@")
_TAIL = re.compile(r"([?#]|;[^?#;=\s]{1,40}=)\S+")
_PARAMETER = re.compile(r"([?&;#][^?=&;#]*=)[^&;#\s]*")
_SECRET = re.compile(
    r"(?i)token|sig|secret|passw|pwd|key|cred|auth|access|jwt|code|session"
    r"|[?&;#](s[eiprtv]|sip|spr|sk(oid|tid|[estv])|sid|hash|hmac|ticket)="  # most of them of Azure's signed URLs
)


def fit_to_show(text: str) -> str:
    """What others may have written, for a record, a log, a page or a screen.

    One short line, without passwords, without the queries of URLs, and nothing in it steers a terminal. The message of
    each ``Ended`` is such a text from the beginning, so no reader needs to make it one.
    """
    text = printable(_TAIL.sub(r"\1***", _USERINFO.sub(r"\1***@", " ".join(text.split()))))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def redact(url: str) -> str:
    """A URL, or a text with some, without passwords and the values of parameters that sound secret."""
    return _PARAMETER.sub(_without_secret, _USERINFO.sub(r"\1***@", url) if "@" in url else url)


def _without_secret(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}***" if _is_secret(parameter[1]) else parameter[0]


@lru_cache(1000)  # a manifest's URLs have few names of parameters
def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None


def shown(text: str, most: int = 120) -> str:
    """Quoted for a message: without secrets even if it is no URL, on one line, not too long."""
    clean = redact(text)
    begins, ends = clean.find("://"), clean.rfind("@")
    if 0 <= begins < ends:
        clean = f"{clean[:begins]}://***{clean[ends:]}"
    return ascii(clean[:most] + "…") if len(clean) > most else repr(clean)


class Ended(Exception):  # noqa: N818 - not every end is an error
    """An attempt that brought no file, and how far it came."""

    keeps_partial: ClassVar[bool] = True  # what arrived stays on disk for a later attempt
    status: int | None = None  # the last HTTP status
    received: int = 0  # bytes, in this attempt
    gained: int = 0  # bytes on disk beyond those of an earlier attempt that it continued
    first_byte: float | None = None  # time.monotonic() of the answer's first byte
    errno: int | None = None  # of the operating system's error that became this one

    def __init__(self, message: str = "") -> None:
        super().__init__(fit_to_show(message))


class Interrupted(Ended):
    """Raised by ``check()``; passes through a download unchanged."""


class CancelledError(Interrupted):
    keeps_partial = False


class HandedBackError(Interrupted):
    pass


class LeaseLostError(Interrupted):
    pass


class TempLostError(Ended):
    keeps_partial = False


class DownloadError(Ended):
    kind: ClassVar[FailureKind]
    need = 0  # bytes that the file takes, as far as that is known, of one that the disk had no room for

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds from now, as the server asked; not capped


class TransientError(DownloadError):
    pass


class PermanentError(DownloadError):
    keeps_partial = False


LEAVES: dict[FailureKind, type[DownloadError]] = {}


def _one(base: type[Leaf], name: str, kind: FailureKind, **more: bool) -> type[Leaf]:
    leaf: type[Leaf] = type(name, (base,), {"kind": kind, "__module__": __name__, **more})
    LEAVES[kind] = leaf
    return leaf


DnsError = _one(TransientError, "DnsError", FailureKind.DNS)
ConnectError = _one(TransientError, "ConnectError", FailureKind.CONNECT)
SilenceError = _one(TransientError, "SilenceError", FailureKind.TIMEOUT)
SlowError = _one(TransientError, "SlowError", FailureKind.SLOW)
ResetError = _one(TransientError, "ResetError", FailureKind.RESET)
TruncatedError = _one(TransientError, "TruncatedError", FailureKind.TRUNCATED)
ProtocolError = _one(TransientError, "ProtocolError", FailureKind.PROTOCOL)
ServerError = _one(TransientError, "ServerError", FailureKind.SERVER)
ChangedError = _one(TransientError, "ChangedError", FailureKind.CHANGED, keeps_partial=False)
# What a full disk's file holds is the room that others need.
DiskFullError = _one(TransientError, "DiskFullError", FailureKind.DISK_FULL, keeps_partial=False)
LostError = _one(TransientError, "LostError", FailureKind.LOST)
MachineError = _one(TransientError, "MachineError", FailureKind.MACHINE)

BadUrlError = _one(PermanentError, "BadUrlError", FailureKind.BAD_URL)
RefusedError = _one(PermanentError, "RefusedError", FailureKind.REFUSED)
TlsError = _one(PermanentError, "TlsError", FailureKind.TLS)
StatusError = _one(PermanentError, "StatusError", FailureKind.STATUS)
RedirectError = _one(PermanentError, "RedirectError", FailureKind.REDIRECT)
EmptyError = _one(PermanentError, "EmptyError", FailureKind.EMPTY)
SizeError = _one(PermanentError, "SizeError", FailureKind.SIZE)
DigestError = _one(PermanentError, "DigestError", FailureKind.DIGEST)
TooLargeError = _one(PermanentError, "TooLargeError", FailureKind.TOO_LARGE)
DeadlineError = _one(PermanentError, "DeadlineError", FailureKind.DEADLINE, keeps_partial=True)
FileNameError = _one(PermanentError, "FileNameError", FailureKind.NAME)
DiskError = _one(PermanentError, "DiskError", FailureKind.DISK)
StepError = _one(PermanentError, "StepError", FailureKind.STEP)
PoisonError = _one(PermanentError, "PoisonError", FailureKind.POISON)
InternalError = _one(PermanentError, "InternalError", FailureKind.INTERNAL)


def transient(kind: FailureKind) -> bool:
    return issubclass(LEAVES[kind], TransientError)


# The first match counts: subclasses stand before their bases.
_LEAF_OF: list[tuple[type[Exception] | tuple[type[Exception], ...], type[DownloadError]]] = [
    (socket.gaierror, DnsError),
    (ssl.SSLCertVerificationError, TlsError),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), ResetError),
    (ssl.SSLError, ProtocolError),
    ((ConnectionResetError, ConnectionAbortedError, BrokenPipeError), ResetError),
    (TimeoutError, SilenceError),
    (MemoryError, MachineError),
]
_LEAF_OF_ERRNO: dict[int | None, type[DownloadError]] = {  # any other: ResetError
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), DiskFullError),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS), MachineError),
    **dict.fromkeys((errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN), ConnectError),
    **dict.fromkeys(
        (
            errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EFBIG, errno.EIO, errno.ENOENT,
            errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.EXDEV, errno.ESTALE, errno.ENODEV,
            errno.ENXIO,
        ),
        DiskError,
    ),
}  # fmt: skip


# OpenSSL's names for what another attempt would not change: no common version or cipher, a certificate that is wanted.
_NO_TLS_WITH_US = re.compile(
    "ALERT_(HANDSHAKE_FAILURE|PROTOCOL_VERSION|INSUFFICIENT_SECURITY|ACCESS_DENIED|UNKNOWN_CA)|CERTIFICATE"
    "|UNRECOGNIZED_NAME|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE|KEY_TOO_SMALL|UNSAFE_LEGACY_RENEGOTIATION"
)


def translate(error: Exception, prefix: str = "") -> DownloadError:
    """The leaf for an exception of ssl, socket or the file system.

    A refused *connection* with a disk's error number (a firewall answers EACCES) is the connecting
    code's to tell apart: here EACCES is a folder.
    """
    if isinstance(error, DownloadError):
        return error
    text = " ".join(str(error).split()) or type(error).__name__  # one line, whatever the server sent
    leaf = next((leaf for classes, leaf in _LEAF_OF if isinstance(error, classes)), None)
    if leaf is ProtocolError and _NO_TLS_WITH_US.search(getattr(error, "reason", None) or ""):
        leaf = TlsError
        text += "; if the server wants a client certificate: DOWNPOUR_CLIENT_CERT"
    if leaf is None and isinstance(error, OSError):
        leaf = _LEAF_OF_ERRNO.get(error.errno, ResetError)
    elif leaf is None:
        no_thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
        leaf = MachineError if no_thread else InternalError
    end = leaf(prefix + text)
    end.errno = error.errno if isinstance(error, OSError) else None
    return end


LONGEST_PAUSE = 86_400.0  # seconds that a server may ask for


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to try again: exponential back-off with full jitter.

    The n-th wait is anywhere between 0 and ``base * 2**(n-1)``, so a thousand jobs that failed together do not come
    back together. A server's Retry-After is a lower bound on top of which the jitter goes; a job's deadline bounds
    it, and after a day the server is asked again.
    """

    attempts: int = 4  # of a job, the first one included
    base: float = 0.5  # seconds; doubles with each attempt
    cap: float = 30.0  # seconds; of a back-off

    def wait(self, attempt: int, error: DownloadError, random: Callable[[], float]) -> float | None:
        """Seconds until the attempt after ``attempt`` (counted from 1); None: there is none.

        Args:
            random: a number from 0 to 1, ``random.random``.
        """
        return self.pause(attempt, error, random) if isinstance(error, TransientError) else None

    def pause(self, attempt: int, error: DownloadError, random: Callable[[], float]) -> float | None:
        """The same for whatever error: for a job that has other servers left to ask."""
        if attempt >= self.attempts:
            return None
        # 2**1024 overflows a float; long before that the cap decides.
        jitter = random() * min(self.cap, self.base * 2.0 ** min(attempt - 1, 62))
        if error.retry_after is None:
            return jitter
        return min(error.retry_after, LONGEST_PAUSE) + min(jitter, self.base)
