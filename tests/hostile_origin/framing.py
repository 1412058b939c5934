"""Faults of the byte stream: cut, slow, unbounded or of the wrong length. The table is in __init__.py."""

import asyncio
import socket
import struct
import termios
from fcntl import ioctl

from origin.http import PIECE_BYTES, Exchange, head_text, parse_number
from origin.server import SECONDS_MAX, fault_entity, route, send_half, sleep_until, whole

EXCESS_BYTES = 1024
HUGE_KIB_MAX = 64 * 1024


@route("/faults/cut-chunked")
async def cut_chunked(exchange: Exchange) -> None:
    """Leave out the second half and the final chunk."""
    exchange.keep_alive = False
    size = fault_entity(exchange).size
    await _send_chunks(exchange, size // 2)


@route("/faults/chunked")
async def chunked(exchange: Exchange) -> None:
    """Send correct chunks."""
    await _send_chunks(exchange, fault_entity(exchange).size)
    await _send_chunk(exchange, b"")


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


@route("/faults/wrong-length-short")
async def wrong_length_short(exchange: Exchange) -> None:
    """Send more than promised."""
    await _send_with_length(exchange, fault_entity(exchange).size // 2)


@route("/faults/wrong-length-long")
async def wrong_length_long(exchange: Exchange) -> None:
    """Promise more than there is."""
    await _send_with_length(exchange, fault_entity(exchange).size + EXCESS_BYTES)


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


async def _send_chunks(exchange: Exchange, stop: int) -> None:
    entity = fault_entity(exchange)
    await exchange.head(200, {"Content-Type": entity.content_type, "Transfer-Encoding": "chunked"})
    for piece in entity.pieces(0, stop, PIECE_BYTES):
        await _send_chunk(exchange, piece)
        await asyncio.sleep(0)


async def _send_chunk(exchange: Exchange, data: bytes) -> None:
    """Send a part of a chunked body; the empty one ends it."""
    await exchange.connection.send(b"%x\r\n%b\r\n" % (len(data), data))
    exchange.sent += len(data)


async def _send_with_length(exchange: Exchange, length: int) -> None:
    entity = fault_entity(exchange)
    exchange.keep_alive = False
    await exchange.head(200, {**whole(entity).headers, "Content-Length": str(length)})
    await exchange.stream(entity, 0, entity.size)
