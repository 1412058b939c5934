"""http.client's response, read in slices and strict where leniency would lose bytes.

What http.client accepts and this does not: an end of the connection inside the headers (it becomes a
200 with no bytes), a chunk size that is cut or no number, a transfer coding other than chunked (the
framing would land in the file), lengths that disagree, bytes after the end. Informational answers (103) are skipped.
"""

from __future__ import annotations

import http.client
import io
import re
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from download.errors import ProtocolError, TruncatedError
from download.threads import native
from download.timeouts import Timeouts

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_HEAD = 2048  # bytes received at a time while headers are read; the body mostly goes elsewhere
_MOMENT = 5  # milliseconds; a server on the same machine needs less to fill the socket again
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\n]*)?\r?\n")


class _Slices(io.RawIOBase):
    """A socket as a raw file; no read waits longer than a slice without asking ``Timeouts``."""

    def __init__(self, sock: socket.socket, timeouts: Timeouts) -> None:
        self._sock = sock
        # http.client closes the socket early when the answer ends the connection; this holds it open.
        self._hold = sock.makefile("rb", buffering=0)
        self._timeouts = timeouts
        self.ended = False
        self.ragged = False
        self._glances = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self._glances:
            return self._glance(buffer)
        self._timeouts.before_read()
        while True:
            patience = self._timeouts.slice()
            if self._sock.gettimeout() != patience:  # a system call, and mostly it would change nothing
                self._sock.settimeout(patience)
            try:
                count = self._sock.recv_into(buffer)
            except TimeoutError:
                continue
            except ssl.SSLEOFError:
                self.ragged, count = True, 0
            break
        if not count:
            self.ended = True
        elif self._timeouts.first_byte is None:
            self._timeouts.first_byte = time.monotonic()
        return count

    @contextmanager
    def only_glancing(self) -> Iterator[None]:
        """In here no read waits; one that finds nothing says None."""
        self._glances = True
        try:
            yield
        finally:
            self._glances = False

    def _glance(self, buffer: WriteableBuffer) -> int | None:
        self._sock.settimeout(0)
        try:
            return self._sock.recv_into(buffer)
        except OSError:  # nothing here, or nothing more to come
            return None

    def linger(self) -> bool:
        """Whether something comes within a moment, waited for by the thread itself, not by gevent's hub."""
        waiting = native("select", "poll")()
        waiting.register(self._sock.fileno(), select.POLLIN)
        return bool(waiting.poll(_MOMENT))

    def close(self) -> None:
        self._hold.close()
        super().close()


class StrictResponse(http.client.HTTPResponse):
    chunked: bool
    announced: int | None = None  # Content-Length, once it has been read
    surplus: bytes = b""  # what came after the end of the body, as far as it was here already

    def __init__(self, sock: socket.socket, timeouts: Timeouts, method: str | None) -> None:
        self._slices = slices = _Slices(sock, timeouts)
        self._beside = 0  # bytes of the body that came together with the headers
        source = SimpleNamespace(makefile=lambda _mode: io.BufferedReader(slices, _HEAD))
        super().__init__(cast(socket.socket, source), method=method)

    @property
    def ragged(self) -> bool:
        return self._slices.ragged

    def begin(self) -> None:
        super().begin()
        # A whole block ends with an empty line, so nobody had to look beyond it.
        if self._slices.ended:
            raise TruncatedError(f"expected all headers, got the end of the connection inside them ({self.status})")
        coding = self.headers.get("Transfer-Encoding", "").strip().lower()
        if coding not in ("", "identity") and not self.chunked:
            raise ProtocolError(f"expected a body that is whole or chunked, got Transfer-Encoding: {coding}")
        lengths = {part.strip() for line in self.headers.get_all("Content-Length", []) for part in line.split(",")}
        if len(lengths) > 1 or not all(text.isascii() and text.isdigit() for text in lengths):
            raise ProtocolError(f"expected one Content-Length, got {sorted(lengths)}")
        if lengths and not self.chunked:
            self.announced = int(lengths.pop())
        elif not self.chunked and self.headers.defects:
            # A line that cannot be read hides all that follow it, a Content-Length included.
            raise ProtocolError(f"expected readable headers, got {self.headers.defects}")
        if self.fp is not None and not self.chunked:
            self._beside = len(self._peek())

    def receive(self, room: memoryview) -> int:
        """What has arrived of the body, put into a part of the room; 0 at the end.

        Raises:
            TruncatedError: the connection ended before.
        """
        if self.chunked:
            try:
                piece = self.read1(len(room))
            except http.client.IncompleteRead as error:
                raise TruncatedError("expected a last chunk, got the end") from error
            room[: len(piece)] = piece
            return len(piece)
        if self.fp is None:
            return 0
        count = self._read_into(room) or 0
        cut = self.length if not count else 0
        if not count or self.length == 0:
            self._close_conn()
        if cut:
            raise TruncatedError(f"expected {cut} more bytes, got the end")
        return count

    def glance(self, room: memoryview) -> int | None:
        """As ``receive``, from any thread, of a body whose length is known; None: nothing came within a moment.

        An end is left to ``receive``: it may close the socket, and a socket of gevent belongs to the hub's thread.
        """
        if self.chunked or not self.length or self.fp is None:
            return None  # in the middle of a chunk's size there is no stopping
        with self._slices.only_glancing():
            count = self._read_into(room)
            if count is None and self._slices.linger():
                count = self._read_into(room)
            return count or None

    def _read_into(self, room: memoryview) -> int | None:
        """None: nothing is here, and there was to be no waiting."""
        if self._beside:  # by themselves: a read that fails would take them along
            room, self._beside = room[: self._beside], max(0, self._beside - len(room))
        count: int | None = self.fp.readinto1(room if self.length is None else room[: self.length])
        if count and self.length is not None:
            self.length -= count
        return count

    def _close_conn(self) -> None:
        # http.client calls this once the body is complete. Whatever follows contradicts its length.
        self.surplus = self._peek().strip(b"\r\n")
        super()._close_conn()  # type: ignore[misc]

    def _peek(self) -> bytes:
        """Some of what is here at once, and stays here."""
        with self._slices.only_glancing():
            return bytes(self.fp.peek(1))

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 102 <= status < 200:
                return version, status, reason
            while self.fp.readline(65537) not in (b"\r\n", b"\n", b""):
                pass

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(1024)
        if not line.endswith(b"\n") and self._slices.ended:
            raise http.client.IncompleteRead(b"")
        if not (match := _CHUNK_SIZE.fullmatch(line)):
            raise ProtocolError(f"expected the size of a chunk, got {line[:40]!r}")
        return int(match[1], 16)
