"""The well-behaved paths.

/healthz                      200 as soon as the origin serves
/index                        this table and the one of the faults, as JSON
/files/NAME                   the seeded file NAME of size= bytes (64 KiB), at full speed
/paced/SECONDS/NAME           the same file; its last byte leaves SECONDS after the request arrived
/pages/N.html                 page N with links= links (50) to files and other pages

A file has a strong ETag, Last-Modified, Accept-Ranges, Repr-Digest, ranges and conditional requests.
A paced range takes its share of SECONDS. `first=` delays a paced answer's first byte by that many
seconds. NAME is any text: it seeds the content and is never a path in a file system.
"""

import json

from origin import faults
from origin.answers import answer, honest, plan, reply_headers
from origin.exchange import BadRequestError, Exchange, decode
from origin.pace import SECONDS_MAX, pace, parse_seconds, sleep_until
from origin.pages import page_and_digest
from origin.routes import ROUTES, table

LINKS_MAX = 10_000


@ROUTES.add("/healthz")
async def healthz(exchange: Exchange) -> None:
    """Say that the origin serves."""
    await exchange.text(200, "ok\n")


@ROUTES.add("/index")
async def index(exchange: Exchange) -> None:
    """List all paths."""
    paths = {"files": table(__doc__), "faults": table(faults.__doc__)}
    await exchange.text(200, json.dumps(paths, indent=2), {"Content-Type": "application/json"})


@ROUTES.add("/files")
async def files(exchange: Exchange) -> None:
    """Send a file at full speed."""
    await answer(exchange, honest(exchange.entity(_name(exchange.rest))))


@ROUTES.add("/paced")
async def paced(exchange: Exchange) -> None:
    """Send a file evenly over the time that the path asks for."""
    seconds_text, _, name = exchange.rest.partition("/")
    seconds = parse_seconds(decode(seconds_text), "SECONDS")
    entity = exchange.entity(_name(name))
    request = exchange.request
    reply = plan(honest(entity), request.method, request.headers)
    headers = await reply_headers(exchange, entity, reply)
    share = (reply.stop - reply.start) / entity.size if entity.size else 1.0
    end = exchange.arrived + seconds * share
    begin = exchange.arrived + exchange.number("first", 0, SECONDS_MAX)
    # Without a body the head is the last byte; HEAD and 304 do not wait for a body they never send.
    empty_body = reply.status == 200 and entity.size == 0 and request.method == "GET"
    await sleep_until(max(begin, end) if empty_body else begin)
    await exchange.head(reply.status, headers)
    await pace(exchange, entity, (reply.start, reply.stop), (begin, max(begin, end)))


@ROUTES.add("/pages")
async def pages(exchange: Exchange) -> None:
    """Send a page."""
    number, dot, extension = decode(exchange.rest).partition(".")
    if not (number.isascii() and number.isdigit() and len(number) < 10 and dot + extension == ".html"):
        raise BadRequestError(f"expected /pages/N.html, got {exchange.request.path!r}")
    links = int(exchange.number("links", 50, LINKS_MAX))
    html, digest = page_and_digest(int(number), links)
    headers = {"Content-Type": "text/html; charset=utf-8", "Repr-Digest": f"sha-256=:{digest}:"}
    await exchange.text(200, html, headers)


def _name(text: str) -> str:
    if not text:
        raise BadRequestError("expected a file name at the end of the path, got none")
    return decode(text)
