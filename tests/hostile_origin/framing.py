"""Faults of the byte stream: cut, slow, unbounded or of the wrong length. The table is in __init__.py."""

import asyncio
import socket
import struct
import termios
from collections.abc import Callable
from fcntl import ioctl
from functools import partial

from origin.http import PIECE_BYTES, Exchange, head_text, parse_number
from origin.server import SECONDS_MAX, fault_entity, route, send_half, sleep_until, whole

EXCESS_BYTES = 1024
HUGE_KIB_MAX = 64 * 1024


@route("/faults/cut-headers")
async def cut_headers(exchange: Exchange) -> None:
    """Stop within the name of a header."""
    exchange.keep_alive = False
    exchange.status = 200
    length = fault_entity(exchange).size
    await exchange.connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Ty" % length)


@route("/faults/drip-body")
async def drip_body(exchange: Exchange) -> None:
    """Be too alive for a read timeout."""
    entity, every_s = fault_entity(exchange), exchange.number("every", 0.5)
    await exchange.head(200, whole(entity).headers)
    for position in range(entity.size):
        await exchange.send(entity.read(position, position + 1))
        await asyncio.sleep(every_s)


@route("/faults/drip-headers")
async def drip_headers(exchange: Exchange) -> None:
    """Be too alive for a read timeout before there is a response to speak of."""
    entity, every_s = fault_entity(exchange), exchange.number("every", 0.5)
    head = head_text(200, whole(entity).headers, exchange.keep_alive)
    for position in range(len(head)):
        await exchange.connection.send(head[position : position + 1])
        await asyncio.sleep(every_s)
    exchange.status = 200
    if exchange.method == "GET":
        await exchange.stream(entity, 0, entity.size)


@route("/faults/stall")
async def stall(exchange: Exchange) -> None:
    """Fall silent; only the client's leaving ends it."""
    entity = fault_entity(exchange)
    after = min(entity.size, int(exchange.number("after", 0)))
    await exchange.head(200, whole(entity).headers)
    await exchange.stream(entity, 0, after)
    await asyncio.get_running_loop().create_future()


@route("/faults/slow-start")
async def slow_start(exchange: Exchange) -> None:
    """Think for a while."""
    seconds = parse_number(exchange.segment, "SECONDS", SECONDS_MAX)
    await sleep_until(exchange.arrived + seconds)
    await exchange.file(fault_entity(exchange))


@route("/faults/no-length")
async def no_length(exchange: Exchange) -> None:
    """Leave the client no way to know whether this was all."""
    entity = fault_entity(exchange)
    exchange.keep_alive = False
    await exchange.head(200, {"Content-Type": entity.content_type})
    await exchange.stream(entity, 0, entity.size)


@route("/faults/empty-no-length")
async def empty_no_length(exchange: Exchange) -> None:
    """Send what a crashed backend looks like from outside."""
    exchange.keep_alive = False
    await exchange.head(200, {"Content-Type": "application/octet-stream"})


@route("/faults/reset")
async def reset(exchange: Exchange) -> None:
    """Slam the door."""
    entity = fault_entity(exchange)
    await send_half(exchange, entity, whole(entity))
    transport = exchange.connection.transport
    raw: socket.socket = transport.get_extra_info("socket")
    while transport.get_write_buffer_size() or any(ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4))):
        await asyncio.sleep(0.001)  # a reset destroys what has not arrived
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST in place of FIN
    transport.abort()


@route("/faults/bad-headers")
async def bad_headers(exchange: Exchange) -> None:
    """Speak something else than HTTP."""
    exchange.keep_alive = False
    await exchange.connection.send(b"220 mail.example ESMTP ready\r\n250 HELP\r\n\r\n")


@route("/faults/huge-headers")
async def huge_headers(exchange: Exchange) -> None:
    """Try to fill the client's memory before the body starts."""
    entity = fault_entity(exchange)
    padding = {f"X-Padding-{i:06}": "p" * 1006 for i in range(int(exchange.number("kib", 1024, HUGE_KIB_MAX)))}
    await exchange.head(200, {**padding, **whole(entity).headers})
    await exchange.stream(entity, 0, entity.size)


async def _chunks(exchange: Exchange, *, share: float) -> None:
    """Without the final chunk, if it is not all."""
    entity = fault_entity(exchange)
    exchange.keep_alive &= share == 1
    await exchange.head(200, {"Content-Type": entity.content_type, "Transfer-Encoding": "chunked"})
    for piece in entity.pieces(0, int(share * entity.size), PIECE_BYTES):
        await exchange.connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        exchange.sent += len(piece)
        await asyncio.sleep(0)
    if share == 1:
        await exchange.connection.send(b"0\r\n\r\n")


async def _wrong_length(exchange: Exchange, *, promise: Callable[[int], int]) -> None:
    entity = fault_entity(exchange)
    exchange.keep_alive = False
    await exchange.head(200, {**whole(entity).headers, "Content-Length": str(promise(entity.size))})
    await exchange.stream(entity, 0, entity.size)


for _fault, _answer in {
    "chunked": partial(_chunks, share=1),
    "cut-chunked": partial(_chunks, share=0.5),
    "wrong-length-short": partial(_wrong_length, promise=lambda size: size // 2),
    "wrong-length-long": partial(_wrong_length, promise=lambda size: size + EXCESS_BYTES),
}.items():
    route(f"/faults/{_fault}")(_answer)
