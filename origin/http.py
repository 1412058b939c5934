"""HTTP/1.1 over one connection: requests in, bytes out under backpressure, ranges and conditions of RFC 9110.

Written on asyncio's Protocol and not on its streams, for two reasons. The task that answers is cancelled the
moment the client leaves; a stalled answer would never find out. And `send` returns only when the kernel has
taken each byte. So the access log can be believed, and a connection holds one piece of a body in memory at most.
"""

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from email.utils import formatdate
from http.client import responses
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import parse_qsl, unquote

from origin.content import BLOCK_BYTES, Entity

HEAD_BYTES_MAX = 64 * 1024
HEAD_END = b"\r\n\r\n"
PIECE_BYTES = 256 * 1024
EARLY_BYTES = 8 * 1024  # travel with the head: a small file is one packet
SIZE_DEFAULT = 64 * 1024
SIZE_MAX = 1024**4
DIGEST_ON_GET_BYTES = 1024 * 1024  # a GET does not wait for the digest of a larger entity
REMEMBERED = 10_000  # digests, and keys of faults that count
ONE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})-(\d{0,19})", re.IGNORECASE)

K = TypeVar("K")
V = TypeVar("V")


class BadRequestError(Exception):
    """The request cannot be answered as asked; the text is the body of an answer with the status."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class AnsweredError(Exception):
    """Raised by `Exchange.head` on a HEAD request: the head was the whole answer. No path needs to think of HEAD."""


class ClientConnection(asyncio.Protocol):
    """A client's socket and the task that answers it. A client that has closed its sending side counts as gone."""

    def __init__(self, serve: Callable[["ClientConnection"], Coroutine[Any, Any, None]]) -> None:
        self._serve = serve
        self._received = bytearray()
        self._more = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.received_at = 0.0  # loop time of the last bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # Zero: pause whenever the kernel has not taken everything.
        self.transport.set_write_buffer_limits(high=0)
        # A client can be gone before it is accepted.
        host, port = (transport.get_extra_info("peername") or ("gone", 0))[:2]
        self.client = f"{host}:{port}"
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._serve(self))

    def data_received(self, data: bytes) -> None:
        self._received += data
        self.received_at = self._loop.time()
        if len(self._received) > HEAD_BYTES_MAX:  # what follows is left in the kernel
            self.transport.pause_reading()
        self._more.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def read_head(self) -> bytes:
        """Return the next request head, without the empty line that ends it."""
        while (end := self._received.find(HEAD_END)) < 0:
            if len(self._received) > HEAD_BYTES_MAX:
                raise BadRequestError(f"expected a head of at most {HEAD_BYTES_MAX} bytes", 431)
            self._more.clear()
            await self._more.wait()
        head = bytes(self._received[:end])
        del self._received[: end + len(HEAD_END)]
        self.transport.resume_reading()
        return head

    async def send(self, data: bytes) -> None:
        """Write data and wait until the kernel has all of it."""
        if self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()


class Remembered:
    """What the origin remembers between requests; all of it is bounded."""

    def __init__(self, url: str) -> None:
        self.url = url  # of the origin, see `server.OriginServer`
        self.paced = 0  # answers under way
        self._digests: dict[Entity, bytes] = {}
        self._visits: dict[str, int] = {}

    async def digest(self, entity: Entity, compute: bool) -> bytes | None:
        """Return the SHA-256 if it is known; compute it between the pieces of other answers, a second per GB."""
        digest = self._digests.get(entity)
        if digest is None and compute:
            sha256 = hashlib.sha256()
            for piece in entity.pieces(0, entity.size, BLOCK_BYTES):
                sha256.update(piece)
                if entity.size > DIGEST_ON_GET_BYTES:
                    await asyncio.sleep(0)
            digest = _remember(self._digests, entity, sha256.digest())
        return digest

    def visit(self, key: str, count: bool) -> int:
        """Return the number of this visit, from 1."""
        number = self._visits.get(key, 0) + 1
        return _remember(self._visits, key, number) if count else number


def _remember(known: dict[K, V], key: K, value: V) -> V:
    known.pop(key, None)
    known[key] = value  # as the newest
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
    return value


class Reply(NamedTuple):
    """Status, headers and the half-open range of the entity that is the body."""

    status: int
    start: int
    stop: int
    headers: dict[str, str]


class Exchange:
    """One request and the ways to answer it, down to single bytes: what a path's function gets."""

    def __init__(self, connection: ClientConnection, state: Remembered, head: bytes) -> None:
        """Read a request head, or raise BadRequestError. Header names become lower case."""
        self.connection = connection
        self.state = state
        self.arrived = connection.received_at  # loop time; paced answers and the access log count from it
        self.arrived_at = time.time()
        self.status = 0  # 0: no status line was sent
        self.sent = 0  # body bytes, without chunk framing
        self.rest = ""  # the path after the part that chose the function, percent-encoded
        first, *lines = head.decode("latin-1").split("\r\n")
        if first.count(" ") != 2 or not first.endswith((" HTTP/1.0", " HTTP/1.1")):
            raise BadRequestError(f"expected METHOD TARGET HTTP/1.0 or HTTP/1.1, got {first!r}")
        self.method, self.target, version = first.split(" ")
        self.path, _, self.query = self.target.partition("#")[0].partition("?")  # both percent-encoded
        self.headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BadRequestError(f"expected a header line, got {line!r}")
            self.headers[name.lower()] = value.strip()
        asked = self.headers.get("connection", "").lower()
        # Bodies are never read, so a request that has one ends its connection.
        has_body = "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"
        self.keep_alive = (asked == "keep-alive" if version == "HTTP/1.0" else asked != "close") and not has_body

    @property
    def segment(self) -> str:
        """The next segment of the path, decoded."""
        return decode(self.rest.partition("/")[0])

    def param(self, name: str, default: str = "", encoding: str = "utf-8") -> str:
        """Return the last value of a query parameter."""
        pairs = parse_qsl(self.query, keep_blank_values=True, encoding=encoding, errors="surrogateescape")
        return dict(pairs).get(name, default)

    def number(self, name: str, default: float, most: float = SIZE_MAX) -> float:
        return parse_number(self.param(name, str(default)), name, most)

    def entity(self, name: str, edition: int = 0) -> Entity:
        return Entity(name, int(self.number("size", SIZE_DEFAULT)), edition)

    async def head(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send status line and headers, and the beginning of the body with them."""
        self.status = status
        text = head_text(status, headers, self.keep_alive)
        if self.method == "HEAD":
            await self.connection.send(text)
            raise AnsweredError
        await self.connection.send(text + body)
        self.sent += len(body)

    async def send(self, data: bytes) -> None:
        await self.connection.send(data)
        self.sent += len(data)

    async def stream(self, entity: Entity, start: int, stop: int) -> None:
        """Send a range of an entity, a piece at a time."""
        for piece in entity.pieces(start, stop, PIECE_BYTES):
            await self.send(piece)
            # A fast client never makes `send` wait; the other clients still want their turn.
            await asyncio.sleep(0)

    async def text(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole small answer."""
        body = b"" if status in (204, 304) else text.encode("utf-8", "backslashreplace")
        length = {"Content-Length": str(len(body))} if body else {}
        await self.head(status, {"Content-Type": "text/plain; charset=utf-8", **(headers or {}), **length}, body)

    async def file(self, entity: Entity, validators: Mapping[str, str] | None = None) -> None:
        """Answer with a file as a well-behaved server does; for the validators see `plan`."""
        await self.reply(entity, plan(entity, self.method, self.headers, validators))

    async def reply(self, entity: Entity, reply: Reply) -> None:
        """Send a reply as planned, the whole body at full speed."""
        early = min(reply.stop, reply.start + EARLY_BYTES)
        await self.head(reply.status, await self.digested(entity, reply), entity.read(reply.start, early))
        await self.stream(entity, early, reply.stop)

    async def digested(self, entity: Entity, reply: Reply) -> dict[str, str]:
        """Return the reply's headers with Repr-Digest (RFC 9530) where it is cheap or HEAD asks for it."""
        asked = self.method == "HEAD" or entity.size <= DIGEST_ON_GET_BYTES
        digest = await self.state.digest(entity, compute=asked)
        return {**reply.headers, **repr_digest(digest)} if digest else reply.headers


def plan(entity: Entity, method: str, headers: Mapping[str, str], validators: Mapping[str, str] | None = None) -> Reply:
    """Decide on 200, 206, 304 or 416. A pure function, so that a fault can bend its honest reply.

    Args:
        validators: ETag and Last-Modified, if the entity's own are not to be offered.
    """
    if validators is None:
        validators = {"ETag": entity.etag, "Last-Modified": entity.last_modified}
    described = {"Accept-Ranges": "bytes", **validators}
    if _not_modified(validators, headers):
        return Reply(304, 0, 0, described)
    described["Content-Type"] = entity.content_type
    asked = None
    if method == "GET" and _if_range_holds(validators, headers.get("if-range")):
        asked = parse_range(headers.get("range", ""), entity.size)
    if asked is None:
        return Reply(200, 0, entity.size, {**described, "Content-Length": str(entity.size)})
    start, stop = asked
    if start >= stop:
        return Reply(416, 0, 0, {**described, "Content-Range": f"bytes */{entity.size}", "Content-Length": "0"})
    return Reply(206, start, stop, {**described, **part_headers(start, stop, entity.size)})


def part_headers(start: int, stop: int, size: int) -> dict[str, str]:
    return {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "Content-Length": str(stop - start)}


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return start and stop; start == stop if unsatisfiable; None if the header is to be ignored.

    Several ranges in one header are ignored: RFC 9110 lets a server answer with the whole.
    """
    match = ONE_RANGE.fullmatch(text.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        return max(0, size - int(last)), size
    if last != "" and int(last) < int(first):
        return None
    if int(first) >= size:
        return size, size
    return int(first), min(size, int(last) + 1) if last else size


def _not_modified(validators: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """If-None-Match compares weakly and, where present, makes If-Modified-Since void; dates match exactly."""
    wanted = headers.get("if-none-match")
    if wanted is None:
        return "Last-Modified" in validators and headers.get("if-modified-since") == validators["Last-Modified"]
    tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
    return wanted.strip() == "*" or ("ETag" in validators and validators["ETag"].removeprefix("W/") in tags)


def _if_range_holds(validators: Mapping[str, str], condition: str | None) -> bool:
    """If-Range compares strongly: weak tags never match, dates match exactly."""
    return condition is None or (not condition.startswith("W/") and condition in validators.values())


def repr_digest(sha256: bytes) -> dict[str, str]:
    return {"Repr-Digest": f"sha-256=:{base64.b64encode(sha256).decode('ascii')}:"}


def head_text(status: int, headers: Mapping[str, str], keep_alive: bool) -> bytes:
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}", f"Date: {formatdate(usegmt=True)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def decode(text: str) -> str:
    """Undo percent-encoding; bytes that are not UTF-8 survive as surrogates."""
    return unquote(text, errors="surrogateescape")


def parse_number(text: str, what: str, most: float) -> float:
    """Read a number from 0 to most, or raise BadRequestError."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise BadRequestError(f"expected {what} to be a number from 0 to {most}, got {text!r}")
    return number
