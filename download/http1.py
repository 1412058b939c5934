"""HTTP/1.1 over a connected socket: a request, and an answer that is read strictly where leniency would lose bytes.

Refused: an end of the connection inside the headers, a header block that cannot be read as far as its framing, lengths
that disagree, a transfer coding other than chunked (it would land in the file), a chunk size that is cut or no number.
What comes after the end of a body is shown. Accepted: bare line feeds, folded lines, informational answers.

``Head`` is the one reader of headers: libcurl hands ``download.many`` the same lines.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fcntl import ioctl
from functools import lru_cache
from termios import FIONREAD
from typing import Any

from download.addresses import Target
from download.errors import ProtocolError, ResetError, TruncatedError
from download.threads import native
from download.timeouts import Timeouts

SEND_TIMEOUT = 5.0  # seconds; a request is smaller than any socket's buffer

_LONGEST = 96 * 1024  # bytes of all headers, and of a line; libcurl takes more, so both paths refuse the same
_AHEAD = 4096  # bytes received at a time while lines are read; the body mostly goes elsewhere
_TOO_LONG = f"{{}}: expected at most {_LONGEST} bytes of headers, got more"
_MOMENT = 5  # milliseconds; a server on the same machine needs less to fill the socket again
_STATUS = re.compile(rb"HTTP/1\.\d[ \t]+([1-9]\d\d)(?!\S)")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\n]*)?\r?\n")
ENDS = (b"\r\n", b"\n")
_NOTHING = bytes(4)
_NO_BODY = frozenset({101, 204, 304})
_PASSING = frozenset({408, 425, 429})


class HttpConnection:
    """A socket, what was received from it and not used yet, and waits that belong to the request that uses it now."""

    def __init__(self, sock: socket.socket, host: str, timeouts: Timeouts) -> None:
        self.sock = sock
        self.host = host  # for messages
        self.timeouts = timeouts
        self.ahead = bytearray()
        self.ragged = False  # TLS ended without a goodbye: it may be a cut
        self._room = memoryview(bytearray(_AHEAD))

    def send(self, lines: Sequence[str]) -> None:
        """
        Raises:
            ValueError: a line has a line end in it.
        """
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("expected headers without line ends")
        self.sock.settimeout(SEND_TIMEOUT)
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def receive(self, room: memoryview) -> int:
        """Wait for bytes and put them there; 0 at the end. No wait is longer than a slice."""
        self.timeouts.before_read()
        while True:
            patience = self.timeouts.slice()
            if self.sock.gettimeout() != patience:  # a system call, and mostly it would change nothing
                self.sock.settimeout(patience)
            try:
                count = self.sock.recv_into(room)
            except TimeoutError:
                continue
            except ssl.SSLEOFError:
                self.ragged, count = True, 0
            break
        if count and self.timeouts.first_byte is None:
            self.timeouts.first_byte = time.monotonic()
        return count

    def glance(self, room: memoryview, moment: int = _MOMENT) -> int:
        """As ``receive``, from any thread, but wait only so many milliseconds; 0: nothing came, or the end."""
        self.sock.settimeout(0)
        with suppress(OSError):
            return self.sock.recv_into(room)
        with suppress(OSError):
            return self.sock.recv_into(room) if moment and self.readable(moment) else 0
        return 0

    def take(self, room: memoryview) -> int:
        """As ``receive``, but first what was received already."""
        if not self.ahead:
            return self.receive(room)
        count = min(len(room), len(self.ahead))
        room[:count] = self.ahead[:count]
        del self.ahead[:count]
        return count

    def line(self, most: int = _LONGEST) -> bytes:
        """The next line with its end; without it if the connection ends there.

        Raises:
            ProtocolError: it has more bytes than that.
        """
        seen = 0
        while (end := self.ahead.find(b"\n", seen)) < 0 and len(self.ahead) <= most:
            seen = len(self.ahead)
            count = self.receive(self._room)
            if not count:
                break
            self.ahead += self._room[:count]
        size = end + 1 or len(self.ahead)
        if size > most:
            raise ProtocolError(_TOO_LONG.format(self.host))
        line = bytes(self.ahead[:size])
        del self.ahead[:size]
        return line

    def head(self) -> list[bytes]:
        """The lines of an answer up to its body, informational answers skipped; fewer if the connection ends there.

        Raises:
            ResetError: there is no answer.
            ProtocolError: it is none of HTTP, or has too many headers.
        """
        while True:
            lines, left = [self.line()], _LONGEST
            if not lines[0]:
                raise ResetError(f"{self.host}: Remote end closed connection without response")
            status = status_of(lines[0], self.host)
            while lines[-1].endswith(b"\n") and lines[-1] not in ENDS:
                left -= len(lines[-1])
                lines.append(self.line(left))
            if not is_informational(status) or lines[-1] not in ENDS:
                return lines

    def rest(self) -> bytes:
        """Some of what is here at once, and stays here."""
        decrypted = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        if not self.ahead and (decrypted or waits(self.sock.fileno())):
            self.ahead += self._room[: self.glance(self._room, moment=0)]
        return bytes(self.ahead)

    def readable(self, milliseconds: int) -> bool:
        """Whether bytes or the end have come, or come that soon."""
        waiting = native("select", "poll")()  # waited for by the thread itself, not by gevent's hub
        waiting.register(self.sock.fileno(), select.POLLIN)
        return bool(waiting.poll(milliseconds))

    def close(self) -> None:
        self.sock.close()


def waits(fd: int) -> bool:
    """Whether a socket has bytes to be read; quicker than looking at them."""
    try:
        return ioctl(fd, FIONREAD, _NOTHING) != _NOTHING
    except OSError:
        return False


class HeaderFields(dict[str, str]):
    """Names in lower case, asked for in any; bytes are read as Latin-1, several of one name are joined by commas."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class Head:
    """What an answer says before its body."""

    ragged = False  # whether TLS ended without a goodbye
    surplus = b""  # what came although the body was complete, as far as it was here already

    def __init__(self, target: Target, lines: Sequence[bytes]) -> None:
        """
        Args:
            lines: of one answer, with their ends.

        Raises:
            TruncatedError: the headers have no end.
            ProtocolError: the framing cannot be trusted.
        """
        self.target = target
        self.status = status_of(lines[0], target.host)
        if sum(map(len, lines)) > _LONGEST:
            raise ProtocolError(_TOO_LONG.format(target.host))
        if lines[-1] not in ENDS or is_informational(self.status):
            raise TruncatedError(f"expected all headers, got the end of the connection inside them ({self.status})")
        self._http10 = lines[0].startswith(b"HTTP/1.0")
        self.headers, readable = _headers(lines[1:-1])
        self.chunked, self.length = _framing(self.headers, readable)
        if self.status in _NO_BODY:
            self.chunked, self.length = False, 0

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be told from a cut."""
        return self.chunked or self.length is not None

    @property
    def closes(self) -> bool:
        """Whether the server said that the connection ends with this answer."""
        said = self.headers.get("Connection", "").lower()
        return "close" in said or (self._http10 and "keep-alive" not in said)


class Response(Head):
    """An answer whose headers have arrived, and its body."""

    def __init__(self, target: Target, connection: HttpConnection) -> None:
        self.connection = connection
        lines = connection.head()
        connection.timeouts.status = status_of(lines[0], target.host)  # a failure below has one, too
        super().__init__(target, lines)
        self._left = self.length or 0  # bytes; of the chunk if it is chunked
        self._in_chunk = False
        self.finished = False

    def read(self, room: memoryview) -> int:
        """Put there what has arrived, and wait if nothing has; how many bytes that is, 0 at the end.

        Raises:
            TruncatedError: the body ended before its end.
            Exception: the body broke; see ``timeouts.translated``, which is too dear for each piece.
        """
        if self.chunked and not self._left and not self.finished:
            self._next_chunk()
        if self.framed:
            if not self._left:
                return self._finish()
            room = room[: self._left]
        count = self.connection.take(room)
        if self.framed:
            if not count:
                raise TruncatedError(f"expected {self._left} more bytes, got the end")
            self._left -= count
        return count or self._finish()

    def glance(self, room: memoryview) -> int:
        """As ``read``, from any thread, of a body whose length is known; 0: nothing came within a moment.

        An end is left to ``read``: it may close the socket, and a socket of gevent belongs to the hub's thread.
        """
        if self.chunked or not self._left:
            return 0  # in the middle of a chunk's size there is no stopping
        room = room[: self._left]
        count = self.connection.take(room) if self.connection.ahead else self.connection.glance(room)
        self._left -= count
        return count

    def _next_chunk(self) -> None:
        line = self.connection.line() if self._in_chunk else b"\n"
        if line in ENDS:
            line = self.connection.line()
        elif line:
            raise ProtocolError(f"expected the end of a chunk, got {line[:40]!r}")
        if not line.endswith(b"\n"):
            raise TruncatedError("expected a last chunk, got the end")
        if not (match := _CHUNK_SIZE.fullmatch(line)):
            raise ProtocolError(f"expected the size of a chunk, got {line[:40]!r}")
        self._left, self._in_chunk = int(match[1], 16), True
        if not self._left:
            while self.connection.line() not in (*ENDS, b""):
                pass  # trailers

    def _finish(self) -> int:
        """The body is complete. Whatever follows contradicts its length."""
        if not self.finished:
            self.finished, self.ragged = True, self.connection.ragged
            self.surplus = self.connection.rest().strip(b"\r\n")
            if not self.surplus:
                self.connection.ahead.clear()
        return 0


def status_of(line: bytes, host: str) -> int:
    """
    Raises:
        ProtocolError: it is no status line.
    """
    if match := _STATUS.match(line):
        return int(match[1])
    raise ProtocolError(f"{host}: {' '.join(line.decode('latin-1').split()) or 'BadStatusLine'}")


def is_informational(status: int) -> bool:
    """Whether another answer follows."""
    return status < 200 and status != 101


def is_passing(status: int) -> bool:
    """Whether the same request may get another answer later."""
    return status >= 500 or status in _PASSING


def _headers(lines: Sequence[bytes]) -> tuple[HeaderFields, bool]:
    """The headers, and whether all lines could be read (what follows one that cannot is hidden)."""
    headers, readable, name = HeaderFields(), True, ""
    for line in lines:
        if line[0] in b" \t":
            if name:
                headers[name] += f" {line.decode('latin-1').strip()}"
            continue
        pair = _pair(line)
        if pair is None:
            return headers, False
        name, text = pair
        # A byte that fell over on the way may have made another name of one that matters.
        readable = readable and name.isascii() and name.isprintable()
        between = "\n" if name == "set-cookie" else ", "  # a cookie may have commas in it
        headers[name] = f"{headers[name]}{between}{text}" if name in headers else text
    return headers, readable


@lru_cache(256)  # of one server's answers most lines are the same
def _pair(line: bytes) -> tuple[str, str] | None:
    name, colon, value = line.decode("latin-1").partition(":")
    readable = colon and name and name == name.strip() and "\r" not in value.removesuffix("\n").removesuffix("\r")
    return (name.lower(), value.strip(" \t\r\n")) if readable else None


def _framing(headers: Mapping[str, str], readable: bool) -> tuple[bool, int | None]:
    """Whether the body comes in chunks, and its length if that was announced."""
    coding = headers.get("Transfer-Encoding", "").lower()
    if coding not in ("", "identity", "chunked"):
        raise ProtocolError(f"expected a body that is whole or chunked, got Transfer-Encoding: {coding}")
    announced = headers.get("Content-Length")
    lengths = {part.strip(" \t") for part in announced.split(",")} if announced is not None else set()
    if len(lengths) > 1 or not all(text.isascii() and text.isdigit() for text in lengths):
        raise ProtocolError(f"expected one Content-Length, got {sorted(lengths)}")
    if coding == "chunked":
        return True, None
    if not lengths and not readable:
        raise ProtocolError("expected readable headers, got a line without a name")
    return False, int(lengths.pop()) if lengths else None
