"""Faults that answer something else than the file, or wrap it. The table is in faults.py."""

import asyncio
import gzip
import math
import time
import zlib
from email.utils import formatdate
from functools import lru_cache

from origin.answers import answer, honest, plan
from origin.content import Entity
from origin.exchange import BadRequestError, Exchange, parse_number
from origin.fault_parts import entity_of, visit
from origin.pace import parse_seconds
from origin.routes import ROUTES

MIB = 1024 * 1024
BOMB_BYTES = 200_000_000
BOMB_BYTES_MAX = 2_000_000_000
ENCODED_BYTES_MAX = 64 * MIB
REDIRECTS_MAX = 1000


@ROUTES.add("/faults/status")
async def status(exchange: Exchange) -> None:
    """Answer with any status."""
    await _refuse(exchange, _code(exchange.segment(0)))


@ROUTES.add("/faults/flaky")
async def flaky(exchange: Exchange) -> None:
    """Fail a few times, then work."""
    code = _code(exchange.segment(0))
    if visit(exchange) <= exchange.number("times", 1):
        await _refuse(exchange, code)
    else:
        await answer(exchange, honest(entity_of(exchange)))


@ROUTES.add("/faults/retry-after")
async def retry_after(exchange: Exchange) -> None:
    """Fail a few times and say when to come back."""
    seconds = parse_seconds(exchange.segment(0), "SECONDS")
    code = _code(exchange.param("status", "503"))
    if visit(exchange) > exchange.number("times", 1):
        await answer(exchange, honest(entity_of(exchange)))
        return
    # Both forms count whole seconds: round up, so that nobody is asked back too early.
    value = str(math.ceil(seconds))
    if exchange.param("form") == "date":
        value = formatdate(math.ceil(time.time() + seconds), usegmt=True)
    await _refuse(exchange, code, {"Retry-After": value})


@ROUTES.add("/faults/redirect-loop")
async def redirect_loop(exchange: Exchange) -> None:
    """Go round in circles."""
    await _refuse(exchange, 302, {"Location": exchange.request.target})


@ROUTES.add("/faults/redirect-chain")
async def redirect_chain(exchange: Exchange) -> None:
    """Go from N to N - 1, and from 0 to the file."""
    left = int(parse_number(exchange.segment(0), "N", REDIRECTS_MAX))
    if left == 0:
        await answer(exchange, honest(entity_of(exchange)))
        return
    _, _, tail = exchange.rest.partition("/")
    path = f"/faults/redirect-chain/{left - 1}" + (f"/{tail}" if tail else "")
    query = f"?{exchange.request.query}" if exchange.request.query else ""
    await _refuse(exchange, 302, {"Location": path + query})


@ROUTES.add("/faults/redirect-to")
async def redirect_to(exchange: Exchange) -> None:
    """Point anywhere: inside, at a file, at a name with a password."""
    # latin-1 keeps each byte of the URL as it was asked for.
    location = exchange.param("url", encoding="latin-1")
    await _refuse(exchange, _code(exchange.param("status", "302")), {"Location": location})


@ROUTES.add("/faults/disposition")
async def disposition(exchange: Exchange) -> None:
    """Suggest a file name."""
    entity = entity_of(exchange)
    value = exchange.param("value", encoding="latin-1")
    reply = plan(honest(entity), exchange.request.method, exchange.request.headers)
    await exchange.head(reply.status, {**reply.headers, "Content-Disposition": value})
    await exchange.stream(entity, reply.start, reply.stop)


@ROUTES.add("/faults/encoded")
async def encoded(exchange: Exchange) -> None:
    """Compress unasked."""
    size = int(exchange.number("size", 64 * 1024, ENCODED_BYTES_MAX))
    entity = Entity(entity_of(exchange).name, size)
    body = await asyncio.to_thread(lambda: gzip.compress(entity.read(0, entity.size), mtime=0))
    await _send_gzip(exchange, body)


@ROUTES.add("/faults/bomb")
async def bomb(exchange: Exchange) -> None:
    """Be small on the wire and large in memory."""
    size = int(exchange.number("size", BOMB_BYTES, BOMB_BYTES_MAX))
    await _send_gzip(exchange, await asyncio.to_thread(zeros_gzipped, size))


@lru_cache(maxsize=4)
def zeros_gzipped(size: int) -> bytes:
    """Return the gzip of many zero bytes as one member, never holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    zeros = bytes(MIB)
    parts = [packer.compress(zeros) for _ in range(size // MIB)]
    return b"".join([*parts, packer.compress(zeros[: size % MIB]), packer.flush()])


async def _send_gzip(exchange: Exchange, body: bytes) -> None:
    fields = {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}
    await exchange.head(200, {**fields, "Content-Length": str(len(body))}, body)


async def _refuse(exchange: Exchange, code: int, headers: dict[str, str] | None = None) -> None:
    await exchange.text(code, f"{code}, as asked for\n", headers)


def _code(text: str) -> int:
    number = int(parse_number(text, "a status", 599))
    if number < 200:
        raise BadRequestError(f"expected a status from 200 to 599, got {number}")
    return number
