"""One URL on one of libcurl's handles: the same attempt as ``download.fetch``, told of its bytes instead of asking.

What libcurl says clearly becomes the same result or error as in the single path. What it does not say clearly
(``Again``) is left to the single path, which asks the server once more and judges for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from download.addresses import Target
from download.errors import (
    ConnectError,
    Ended,
    ProtocolError,
    ResetError,
    SilenceError,
    TlsError,
    TruncatedError,
    translate,
)
from download.fetch import SETTLE, SETTLE_TIME, Attempt, Fetched, Progress, Trail, Wanted
from download.http1 import Head, is_complete
from download.tempfile import TempFile
from download.timeouts import Limits, Timeouts


class Again(Exception):  # noqa: N818 - nothing failed
    """The single path must look at this one."""


# libcurl's codes, as far as they say one thing.
_CLEAR: dict[int, type[ProtocolError | TlsError]] = {
    1: ProtocolError,  # a scheme of its own in the status line: HTTP/0.9
    8: ProtocolError,  # a reply that makes no sense
    60: TlsError,
    61: ProtocolError,  # a transfer coding that nobody asked for
    100: ProtocolError,  # headers too large
}
CANNOT_CONNECT = 7
PARTIAL_FILE = 18
TIMED_OUT = 28


class Transfer(Attempt):
    """``end`` says what came of it, once it is over."""

    def __init__(
        self,
        wanted: Wanted,
        temp: Path | str,
        limits: Limits,
        check: Callable[[], None],
        progress: Progress = lambda _size, _total: None,
        *,
        user_agent: str,
    ) -> None:
        """
        Raises:
            BadUrlError: the URL is none that we accept.
        """
        file = TempFile(temp, max_bytes=limits.max_bytes, expected=wanted.size, late=True)
        super().__init__(wanted, file, Timeouts(limits, check), user_agent, progress)
        self.end: Fetched | Ended | Again | None = None
        self.trail = Trail((self.first,))
        self.lines: list[bytes] = []  # of the headers; libcurl appends to it
        self.head: Head | None = None
        self.waiting = True  # for a connection
        self._unwanted = 0  # bytes of a body that is no file
        self._error: BaseException | None = None  # what ended it from within

    @property
    def target(self) -> Target:
        return self.trail.target

    def hop(self) -> dict[str, str]:
        """Begin with the present target; the headers to send."""
        self.lines.clear()
        self.head, self.waiting, self._unwanted = None, True, 0
        self.timeouts.first_byte = None
        self.timeouts.connecting(self.target.host)
        return self.headers(self.target)

    # -- what libcurl calls

    def write(self, piece: bytes) -> int | None:
        """-1 ends the transfer; an exception must not pass through libcurl."""
        try:
            if self.head is None:
                self.read_head()
            if self.unwanted:
                self._unwanted += len(piece)
                return -1 if self._unwanted > SETTLE else None
            self.timeouts.before_read()
            self.temp.take(piece)
            self.timeouts.arrived(len(piece))
        except BaseException as error:
            self._error = error
            return -1
        return None

    # -- what the loop calls

    def look(self, connected: Callable[[], bool]) -> None:
        """Whether it may go on.

        Raises:
            Ended: not any longer.
        """
        if self.waiting and connected():
            self.waiting = False
            self.timeouts.awaiting_headers()
        if self.head is None and is_complete(self.lines):
            self.read_head()
        self.timeouts.slice()

    def stop(self, error: BaseException) -> bool:
        """It ends here, unless that was only an answer not worth waiting for; whether there is another hop to make."""
        return self._conclude(lambda: self._raise(None if isinstance(error, SilenceError) else error, error))

    def over(self, code: int, text: str, *, broken: bool, complete: Callable[[Head], bool]) -> bool:
        """libcurl is done with it; whether there is another hop to make.

        Args:
            broken: the operating system said so.
            complete: whether nothing came after the body.
        """
        failure = self._failure(code, text, broken) if code else None
        return self._conclude(lambda: self._raise(self._error, failure), complete)

    def _raise(self, error: BaseException | None, failure: BaseException | None) -> None:
        if error is not None:
            raise error
        if failure is None:
            return
        if self.head is None and (is_complete(self.lines) or (self.lines and isinstance(failure, TruncatedError))):
            self.read_head()
        if not self.unwanted:
            raise failure

    def _conclude(self, judge: Callable[[], None], complete: Callable[[Head], bool] = lambda _: True) -> bool:
        try:
            judge()
            if self.head is None:
                self.read_head()
            assert self.head is not None  # noqa: S101 - read_head sets it
            if self.unwanted:
                self.trail = self.after(self.head, self.trail)
                return True
            self.end = self._whole(self.head, complete)
        except BaseException as error:
            self.end = self._ended(error)
        if isinstance(self.end, Again):
            self.temp.discard()
        self.temp.close()
        return False

    @property
    def unwanted(self) -> bool:
        """Whether the answer's body is something else than the file."""
        return self.head is not None and self.head.status not in (200, 203, 206)

    def read_head(self) -> None:
        self.waiting = False
        if self.timeouts.first_byte is None:
            self.timeouts.first_byte = time.monotonic()
        # A failure below has a status, too.
        with suppress(IndexError, ValueError):
            self.timeouts.status = int(self.lines[0].split(maxsplit=2)[1])
        self.head = head = Head(self.target, self.lines)
        self.timeouts.status = head.status
        if self.takes(head):
            self.timeouts.reading_body()
        else:
            self.timeouts.draining(SETTLE_TIME)

    def _whole(self, head: Head, complete: Callable[[Head], bool]) -> Fetched | Again:
        self.temp.end()
        notes = self.verify(head)
        vouched = self.wanted.sha256 or any(note.startswith("repr-digest") for note in notes)
        if head.length is not None and not vouched and not complete(head):
            return Again("there may have been more than was announced")
        return self.fetched(head, notes)

    def _failure(self, code: int, text: str, broken: bool) -> Exception:
        host = self.target.host
        if code == CANNOT_CONNECT:
            return ConnectError(f"expected a connection to {host}:{self.target.port}, got: {text}")
        if code == TIMED_OUT:
            limit = self.timeouts.limits.connect_timeout
            return ConnectError(f"expected a connection to {host} within {limit:g} s, got none")
        if code == PARTIAL_FILE:
            return self.cut_short()
        if code in _CLEAR:
            return _CLEAR[code](f"{host}: {text}")
        if broken:
            return ResetError(f"{host}: {text}")
        return Again(f"{host}: libcurl says {code}: {text}")

    def _ended(self, error: BaseException) -> Ended | Again:
        if not isinstance(error, Exception):
            raise error
        end = error if isinstance(error, Ended | Again) else translate(error)
        self.give_up(end)
        return end
