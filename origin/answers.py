"""Which part of an entity a request gets: conditional requests and ranges of RFC 9110.

`plan` is a pure function, so the faults that lie take its honest reply and bend it.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime

from origin.content import Entity
from origin.exchange import Exchange

ONE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})-(\d{0,19})", re.IGNORECASE)
# A GET does not wait for the digest of a larger entity.
DIGEST_ON_GET_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Offer:
    """An entity and the validators that it is offered with."""

    entity: Entity
    etag: str | None
    last_modified: str | None


@dataclass(frozen=True)
class Reply:
    """Status, headers and the half-open range of the entity that is the body."""

    status: int
    start: int
    stop: int
    headers: dict[str, str] = field(default_factory=dict)


def honest(entity: Entity) -> Offer:
    """Offer an entity with both of its validators."""
    return Offer(entity, entity.etag, entity.last_modified)


def plan(offer: Offer, method: str, headers: Mapping[str, str]) -> Reply:
    """Decide on 200, 206, 304 or 416."""
    size = offer.entity.size
    described = {"Accept-Ranges": "bytes"}
    if offer.etag is not None:
        described["ETag"] = offer.etag
    if offer.last_modified is not None:
        described["Last-Modified"] = offer.last_modified
    if _not_modified(offer, headers):
        return Reply(304, 0, 0, described)
    described["Content-Type"] = offer.entity.content_type
    asked = None
    if method == "GET" and _if_range_holds(offer, headers.get("if-range")):
        asked = parse_range(headers.get("range", ""), size)
    if asked is None:
        return Reply(200, 0, size, {**described, "Content-Length": str(size)})
    start, stop = asked
    if start >= stop:
        unsatisfied = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
        return Reply(416, 0, 0, {**described, **unsatisfied})
    return Reply(206, start, stop, {**described, **part_headers(start, stop, size)})


def part_headers(start: int, stop: int, size: int) -> dict[str, str]:
    """Return the headers that describe a part of an entity."""
    return {
        "Content-Range": f"bytes {start}-{stop - 1}/{size}",
        "Content-Length": str(stop - start),
    }


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


async def reply_headers(exchange: Exchange, entity: Entity, reply: Reply) -> dict[str, str]:
    """Return the reply's headers with Repr-Digest (RFC 9530) where it is cheap or was asked for."""
    digests = exchange.state.digests
    if exchange.request.method == "HEAD" or entity.size <= DIGEST_ON_GET_BYTES:
        digest: bytes | None = await digests.get(entity)
    else:
        digest = digests.peek(entity)
    if digest is None:
        return reply.headers
    encoded = base64.b64encode(digest).decode("ascii")
    return {**reply.headers, "Repr-Digest": f"sha-256=:{encoded}:"}


async def answer(exchange: Exchange, offer: Offer) -> None:
    """Answer as a well-behaved server does."""
    reply = plan(offer, exchange.request.method, exchange.request.headers)
    await send_reply(exchange, offer.entity, reply)


async def send_reply(exchange: Exchange, entity: Entity, reply: Reply) -> None:
    """Send a reply as planned, the whole body at full speed."""
    headers = await reply_headers(exchange, entity, reply)
    # The first bytes travel with the head: a small file is one packet.
    early = min(reply.stop, reply.start + 8192)
    await exchange.head(reply.status, headers, entity.read(reply.start, early))
    await exchange.stream(entity, early, reply.stop)


def _not_modified(offer: Offer, headers: Mapping[str, str]) -> bool:
    """If-None-Match compares weakly and, where present, makes If-Modified-Since void."""
    wanted = headers.get("if-none-match")
    if wanted is not None:
        tags = {tag.strip().removeprefix("W/") for tag in wanted.split(",")}
        known = offer.etag is not None and offer.etag.removeprefix("W/") in tags
        return known or wanted.strip() == "*"
    since = _date(headers.get("if-modified-since"))
    changed = _date(offer.last_modified)
    return since is not None and changed is not None and changed <= since


def _if_range_holds(offer: Offer, condition: str | None) -> bool:
    """If-Range compares strongly: weak tags never match, dates match exactly."""
    if condition is None:
        return True
    if condition.startswith('"'):
        return condition == offer.etag
    date = _date(condition)
    return date is not None and date == _date(offer.last_modified)


def _date(text: str | None) -> datetime | None:
    try:
        date = None if text is None else parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # A date without a zone is no HTTP-date and cannot be compared with one.
    return date if date is not None and date.tzinfo is not None else None
