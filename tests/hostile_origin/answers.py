"""Faults that answer something else than the file, or wrap it. The table is in __init__.py."""

import asyncio
import gzip
import zlib
from functools import lru_cache

from origin.content import Entity
from origin.http import Exchange, parse_number, plan
from origin.server import fault_entity, refusal, route

MIB = 1024 * 1024
BOMB_BYTES = 200_000_000
BOMB_BYTES_MAX = 2_000_000_000
ENCODED_BYTES_MAX = 64 * MIB
REDIRECTS_MAX = 1000


@route("/faults/redirect-loop")
async def redirect_loop(exchange: Exchange) -> None:
    """Go round in circles."""
    await _redirect(exchange, exchange.target)


@route("/faults/redirect-chain")
async def redirect_chain(exchange: Exchange) -> None:
    """Go from N to N - 1, and from 0 to the file."""
    left = int(parse_number(exchange.segment, "N", REDIRECTS_MAX))
    if left == 0:
        await exchange.file(fault_entity(exchange))
        return
    _, _, tail = exchange.rest.partition("/")
    path = f"/faults/redirect-chain/{left - 1}" + (f"/{tail}" if tail else "")
    query = f"?{exchange.query}" if exchange.query else ""
    await _redirect(exchange, path + query)


@route("/faults/redirect-to")
async def redirect_to(exchange: Exchange) -> None:
    """Point anywhere: inside, at a file, at a name with a password."""
    # latin-1 keeps each byte of the URL as it was asked for.
    location = exchange.param("url", encoding="latin-1")
    await _redirect(exchange, location, exchange.param("status", "302"))


@route("/faults/disposition")
async def disposition(exchange: Exchange) -> None:
    """Suggest a file name."""
    entity = fault_entity(exchange)
    value = exchange.param("value", encoding="latin-1")
    reply = plan(entity, exchange.method, exchange.headers)
    await exchange.head(reply.status, {**reply.headers, "Content-Disposition": value})
    await exchange.stream(entity, reply.start, reply.stop)


@route("/faults/encoded")
async def encoded(exchange: Exchange) -> None:
    """Compress unasked."""
    size = int(exchange.number("size", 64 * 1024, ENCODED_BYTES_MAX))
    entity = Entity(fault_entity(exchange).name, size)
    body = await asyncio.to_thread(lambda: gzip.compress(entity.read(0, entity.size), mtime=0))
    await _send_gzip(exchange, body)


@route("/faults/bomb")
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


async def _redirect(exchange: Exchange, location: str, status: str = "302") -> None:
    await exchange.text(*refusal(status), {"Location": location})
