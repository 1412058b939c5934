"""One request and the ways to answer it, down to single bytes."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

from origin.connection import Connection
from origin.content import Entity
from origin.state import State

PIECE_BYTES = 256 * 1024
SIZE_DEFAULT = 64 * 1024
SIZE_MAX = 1024**4
NO_BODY = frozenset({204, 304})


class BadRequestError(Exception):
    """The request cannot be understood; its text is the body of a 400 answer."""


class AnsweredError(Exception):
    """Raised by `Exchange.head` on a HEAD request: the head was the whole answer.

    So no answer, faults included, needs to think of HEAD.
    """


@dataclass(frozen=True)
class Request:
    """A parsed request head. Header names are lower case."""

    method: str
    target: str
    path: str  # still percent-encoded
    query: str  # still percent-encoded
    headers: Mapping[str, str]
    keep_alive: bool

    @classmethod
    def parse(cls, head: bytes) -> "Request":
        """Read a head, or raise BadRequestError."""
        lines = head.decode("latin-1").split("\r\n")
        try:
            method, target, version = lines[0].split(" ")
        except ValueError:
            raise BadRequestError(f"expected METHOD TARGET VERSION, got {lines[0]!r}") from None
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise BadRequestError(f"expected HTTP/1.0 or HTTP/1.1, got {version!r}")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BadRequestError(f"expected a header line, got {line!r}")
            headers[name.lower()] = value.strip()
        path, _, query = target.partition("#")[0].partition("?")
        asked = headers.get("connection", "").lower()
        # Bodies are never read, so a request that has one ends its connection.
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        keep_alive = asked == "keep-alive" if version == "HTTP/1.0" else asked != "close"
        return cls(method, target, path, query, headers, keep_alive and not has_body)


class Exchange:
    """What a path's function gets: the request, the origin's state and the connection."""

    def __init__(self, connection: Connection, request: Request, state: State) -> None:
        """Note the time of arrival: paced answers and the access log count from it."""
        self.connection = connection
        self.request = request
        self.state = state
        self.arrived = connection.heard_at  # loop time
        self.arrived_at = time.time()
        self.keep_alive = request.keep_alive
        self.status = 0  # 0: no status line was sent
        self.sent = 0  # body bytes, without chunk framing
        self.rest = ""  # the path after the part that chose the function, percent-encoded

    def param(self, name: str, default: str = "", encoding: str = "utf-8") -> str:
        """Return the last value of a query parameter."""
        pairs = parse_qsl(self.request.query, keep_blank_values=True, encoding=encoding, errors="surrogateescape")
        return dict(pairs).get(name, default)

    def number(self, name: str, default: float, most: float = SIZE_MAX) -> float:
        """Return a query parameter as a number from 0 to most."""
        return parse_number(self.param(name, str(default)), name, most)

    def segment(self, index: int) -> str:
        """Return a segment of the rest of the path, decoded; empty if there is none."""
        segments = self.rest.split("/")
        return decode(segments[index]) if index < len(segments) else ""

    def entity(self, name: str, edition: int = 0) -> Entity:
        """Return the entity that `size=` describes."""
        return Entity(name, int(self.number("size", SIZE_DEFAULT)), edition)

    async def head(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send status line and headers, and the beginning of the body with them."""
        self.status = status
        text = head_text(status, headers, self.keep_alive)
        if self.request.method == "HEAD":
            await self.connection.send(text)
            raise AnsweredError
        await self.connection.send(text + body)
        self.sent += len(body)

    async def send(self, data: bytes) -> None:
        """Send a part of the body."""
        await self.connection.send(data)
        self.sent += len(data)

    async def send_chunk(self, data: bytes) -> None:
        """Send a part of a chunked body; the empty one ends it."""
        await self.connection.send(b"%x\r\n%b\r\n" % (len(data), data))
        self.sent += len(data)

    async def stream(self, entity: Entity, start: int, stop: int) -> None:
        """Send a range of an entity, a piece at a time."""
        for piece in entity.pieces(start, stop, PIECE_BYTES):
            await self.send(piece)
            # A fast client never makes `send` wait; the other clients still want their turn.
            await asyncio.sleep(0)

    async def text(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole small answer."""
        body = b"" if status in NO_BODY else text.encode("utf-8", "backslashreplace")
        fields = {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
        if status not in NO_BODY:
            fields["Content-Length"] = str(len(body))
        await self.head(status, fields, body)


def head_text(status: int, headers: Mapping[str, str], keep_alive: bool) -> bytes:
    """Return a complete response head."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [f"HTTP/1.1 {status} {reason}", f"Date: {formatdate(usegmt=True)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def decode(text: str) -> str:
    """Undo percent-encoding; bytes that are not UTF-8 survive as surrogates."""
    return unquote(text, errors="surrogateescape")


def parse_number(text: str, what: str, most: float = SIZE_MAX) -> float:
    """Read a number from 0 to most, or raise BadRequestError."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise BadRequestError(f"expected {what} to be a number from 0 to {most}, got {text!r}")
    return number
