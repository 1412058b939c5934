"""What the origin serves, by path, and a line in the access log for each request.

/                             what to try: a page for a browser, plain text for curl
/healthz                      200 as soon as the origin serves
/files/NAME                   the seeded file NAME of size= bytes (64 KiB), at full speed
/paced/SECONDS/NAME           the same file; its last byte leaves SECONDS after the request arrived
/pages/N.html                 page N with links= links (50) to files and other pages
/faults/cut-body              Content-Length of the whole, half of the body, then the end
/faults/status/CODE           that status, from 200 to 599
/faults/flaky/STATUS          first times= GETs (1) of a key= get STATUS, later ones the file
/faults/retry-after/SECONDS   the same with status= (503) and Retry-After, as a date if form=date

A file has a strong ETag, Last-Modified, Accept-Ranges, Repr-Digest, ranges and conditional requests.
A paced range takes its share of SECONDS. `first=` delays a paced answer's first byte by that many
seconds. NAME is any text: it seeds the content and is never a path in a file system. Below /faults
`name=` names the file and the path may end in any file name. `key=` is any text that the requests of
one download share.

The access log has a JSON object per finished request:
t, method, path, range, user_agent, client  as received; t in epoch seconds, path is the whole target
status      0: no status line was sent
bytes       body bytes that the kernel took, without chunk framing: what the client can have got at most
seconds     from arrival until the last byte was taken, or until the client had left
aborted     true: the client left, or the origin was stopped, before the answer was complete;
            a body that a fault cuts on purpose is complete
"""

import asyncio
import contextlib
import hashlib
import html
import itertools
import json
import math
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import TextIO

from origin.content import Entity, page
from origin.http import (
    AnsweredError,
    BadRequestError,
    ClientConnection,
    Exchange,
    Remembered,
    Reply,
    decode,
    head_text,
    parse_number,
    plan,
    repr_digest,
)

# The kernel caps it; 1,000 clients may connect in the same moment.
BACKLOG = 4096
SECONDS_MAX = 24 * 3600
LINKS_MAX = 10_000
# Many paced answers share this many writes a second, so that 1,000 of them cost little CPU.
PACED_WRITES_PER_SECOND = 2_000
PACED_INTERVAL_MIN_S = 0.08

HTML = {"Content-Type": "text/html; charset=utf-8"}

# NEW is another number on each page, so that a failure that counts starts anew.
TRY = """Downpour's origin: seeded files, an exact pace, and four failures to look at.

/files/a.bin?size=100000000
    100 MB at full speed, with ETag, Last-Modified and ranges
/paced/8/a.bin
    64 KiB, evenly over 8 seconds: long enough to watch it in Flower
/pages/1.html?links=200
    a page with 200 links; with --step links they are counted
/faults/status/404/b.bin
    404: a permanent failure, not tried again
/faults/flaky/503/c.bin?times=2&key=NEW
    503 twice, then the file: done at the third attempt
/faults/retry-after/5/d.bin?key=NEW
    503 with Retry-After: 5, then the file: the second attempt comes 5 seconds later
/faults/cut-body/e.bin
    half of the promised bytes at each attempt: failed in the end, and no file
"""
MAKE = "make producer ARGS=\"submit --wait '{}'\""
DOCKER = "docker compose run --rm producer submit --wait '{}'"

Answer = Callable[[Exchange], Awaitable[None]]
ROUTES: dict[str, Answer] = {}
_front_pages = itertools.count(1)


def route(path: str) -> Callable[[Answer], Answer]:
    """Register the decorated function for a path of one or two segments and all that is below it."""

    def register(answer: Answer) -> Answer:
        ROUTES[path] = answer
        return answer

    return register


class OriginServer:
    """The server: listen, answer, log.

    Args:
        log: receives the access log.
        url: where other containers find it, for the front page; empty: where its reader does.
    """

    def __init__(self, log: TextIO | None, url: str) -> None:
        self._log = log
        self._state = Remembered(url)

    async def listen(self, host: str, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: ClientConnection(self._serve), host, port, backlog=BACKLOG)

    async def _serve(self, connection: ClientConnection) -> None:
        """Answer one connection's requests in order."""
        try:
            while await self._serve_one(connection):
                pass
        except BadRequestError as error:  # a head that is no request
            text = f"{error}\n".encode()
            with contextlib.suppress(ConnectionResetError):
                await connection.send(head_text(error.status, {"Content-Length": str(len(text))}, False) + text)
        except ConnectionResetError:
            pass  # `_serve_one` has noted it
        finally:
            connection.transport.close()

    async def _serve_one(self, connection: ClientConnection) -> bool:
        """Answer the next request; return whether another one may follow."""
        exchange = Exchange(connection, self._state, await connection.read_head())
        aborted = True
        try:
            with contextlib.suppress(AnsweredError):
                await _answer(exchange)
            aborted = False
        except ConnectionResetError:
            raise
        except Exception:
            # A defect of the origin: the client must see an error, the log its cause.
            traceback.print_exc(file=sys.stderr)
            exchange.keep_alive = False
        finally:
            self._note(exchange, aborted)
        return exchange.keep_alive

    def _note(self, exchange: Exchange, aborted: bool) -> None:
        if self._log is None:
            return
        record = {
            "t": round(exchange.arrived_at, 6),
            "method": exchange.method,
            "path": exchange.target,
            "status": exchange.status,
            "bytes": exchange.sent,
            "seconds": round(asyncio.get_running_loop().time() - exchange.arrived, 6),
            "range": exchange.headers.get("range"),
            "aborted": aborted,
            "client": exchange.connection.client,
            "user_agent": exchange.headers.get("user-agent"),
        }
        self._log.write(json.dumps(record) + "\n")


async def _answer(exchange: Exchange) -> None:
    """Find the path's function by its first two segments, or by its first one, and call it."""
    parts = exchange.path.split("/", 3)
    path = next((path for length in (3, 2) if (path := "/".join(parts[:length])) in ROUTES), None)
    try:
        if exchange.method not in ("GET", "HEAD"):
            exchange.keep_alive = False
            raise BadRequestError("GET or HEAD only", 405)
        if path is None:
            raise BadRequestError(f"no such path: {exchange.path}; see /", 404)
        exchange.rest = exchange.path.removeprefix(path).removeprefix("/")
        await ROUTES[path](exchange)
    except BadRequestError as error:
        if exchange.status:
            raise
        allow = {"Allow": "GET, HEAD"} if error.status == 405 else {}
        await exchange.text(error.status, f"{error}\n", allow)


@route("/")
async def front(exchange: Exchange) -> None:
    url = exchange.state.url
    base, command = (url, DOCKER) if url else (f"http://{exchange.headers.get('host', 'localhost')}", MAKE)
    text = re.sub(
        r"^(/.+)\n.+", lambda row: f"{row[0]}\n    {command.format(base + row[1])}\n", TRY, flags=re.MULTILINE
    ).replace("NEW", str(next(_front_pages)))
    if "text/html" not in exchange.headers.get("accept", ""):
        await exchange.text(200, text)
        return
    linked = re.sub(r"^/\S+", r'<a href="\g<0>">\g<0></a>', html.escape(text), flags=re.MULTILINE)
    await exchange.text(200, f"<!doctype html><meta charset=utf-8><title>Origin</title><pre>{linked}</pre>\n", HTML)


@route("/healthz")
async def healthz(exchange: Exchange) -> None:
    await exchange.text(200, "ok\n")


@route("/files")
async def files(exchange: Exchange) -> None:
    await exchange.file(exchange.entity(_name(exchange.rest)))


@route("/paced")
async def paced(exchange: Exchange) -> None:
    seconds = parse_number(exchange.segment, "SECONDS", SECONDS_MAX)
    entity = exchange.entity(_name(exchange.rest.partition("/")[2]))
    reply = plan(entity, exchange.method, exchange.headers)
    headers = await exchange.digested(entity, reply)
    share = (reply.stop - reply.start) / entity.size if entity.size else 1.0
    begin = exchange.arrived + exchange.number("first", 0, SECONDS_MAX)
    end = max(begin, exchange.arrived + seconds * share)
    # Without a body the head is the last byte; HEAD and 304 do not wait for a body they never send.
    empty_body = reply.status == 200 and entity.size == 0 and exchange.method == "GET"
    await sleep_until(end if empty_body else begin)
    await exchange.head(reply.status, headers)
    exchange.state.paced += 1
    try:
        await _pace(exchange, entity, reply, begin, end)
    finally:
        exchange.state.paced -= 1


async def _pace(exchange: Exchange, entity: Entity, reply: Reply, begin: float, end: float) -> None:
    """Send the body evenly between two loop times. How much is due follows from the clock, not from a sum of sleeps.

    A client that reads too slowly gets what it missed as soon as it reads again.
    """
    loop, sent = asyncio.get_running_loop(), reply.start
    while sent < reply.stop:
        interval = max(PACED_INTERVAL_MIN_S, exchange.state.paced / PACED_WRITES_PER_SECOND)
        await sleep_until(min(end, loop.time() + interval))
        now = loop.time()
        # One byte short until the end: rounding must not finish early.
        part = int((reply.stop - reply.start) * (now - begin) / (end - begin)) if now < end else 0
        due = min(reply.stop - 1, reply.start + part) if now < end else reply.stop
        if due > sent:
            await exchange.stream(entity, sent, due)
            sent = due


async def sleep_until(when: float) -> None:
    """Sleep until a loop time, which may have passed."""
    delay = when - asyncio.get_running_loop().time()
    if delay > 0:
        await asyncio.sleep(delay)


@route("/pages")
async def pages(exchange: Exchange) -> None:
    number, dot, extension = decode(exchange.rest).partition(".")
    if not (number.isascii() and number.isdigit() and len(number) < 10 and dot + extension == ".html"):
        raise BadRequestError(f"expected /pages/N.html, got {exchange.path!r}")
    text = page(int(number), int(exchange.number("links", 50, LINKS_MAX)))
    await exchange.text(200, text, {**HTML, **repr_digest(hashlib.sha256(text.encode()).digest())})


@route("/faults/cut-body")
async def cut_body(exchange: Exchange) -> None:
    entity = fault_entity(exchange)
    await send_half(exchange, entity, whole(entity))


@route("/faults/status")
async def status(exchange: Exchange) -> None:
    await exchange.text(*refusal(exchange.segment))


@route("/faults/flaky")
async def flaky(exchange: Exchange) -> None:
    await _refuse_first(exchange, *refusal(exchange.segment))


@route("/faults/retry-after")
async def retry_after(exchange: Exchange) -> None:
    seconds = parse_number(exchange.segment, "SECONDS", SECONDS_MAX)
    # Both forms count whole seconds: round up, so that the client is not asked back too early.
    value = str(math.ceil(seconds))
    if exchange.param("form") == "date":
        value = formatdate(math.ceil(time.time() + seconds), usegmt=True)
    await _refuse_first(exchange, *refusal(exchange.param("status", "503")), {"Retry-After": value})


async def _refuse_first(exchange: Exchange, code: int, text: str, headers: Mapping[str, str] | None = None) -> None:
    """As many GETs of a key as it asks for."""
    if visit(exchange) <= exchange.number("times", 1):
        await exchange.text(code, text, headers)
    else:
        await exchange.file(fault_entity(exchange))


def refusal(code: str) -> tuple[int, str]:
    """Return a status that was asked for, and a body for it."""
    number = int(parse_number(code, "a status", 599))
    if number < 200:
        raise BadRequestError(f"expected a status from 200 to 599, got {number}")
    return number, f"{number}, as asked for\n"


def fault_entity(exchange: Exchange, edition: int = 0) -> Entity:
    """Return the entity that `name=`, by default the fault's own name, and `size=` describe."""
    return exchange.entity(exchange.param("name", exchange.path.split("/")[2]), edition)


def visit(exchange: Exchange) -> int:
    """Return which GET of its `key=` this one is, from 1. A HEAD sees the number but does not count."""
    fault, key = exchange.path.split("/")[2], exchange.param("key")
    if not key:
        raise BadRequestError(f"{fault} counts requests: expected key=, got none")
    return exchange.state.visit(f"{fault} {key}", count=exchange.method == "GET")


async def send_half(exchange: Exchange, entity: Entity, reply: Reply) -> None:
    """Send a reply whose body ends in the middle of what its headers promise."""
    exchange.keep_alive = False
    await exchange.head(reply.status, reply.headers)
    await exchange.stream(entity, reply.start, reply.start + (reply.stop - reply.start) // 2)


def whole(entity: Entity) -> Reply:
    """Return a plain 200 without validators."""
    return Reply(200, 0, entity.size, {"Content-Type": entity.content_type, "Content-Length": str(entity.size)})


def _name(text: str) -> str:
    if not text:
        raise BadRequestError("expected a file name at the end of the path, got none")
    return decode(text)
