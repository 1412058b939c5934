"""One client connection: request heads come in, bytes go out under backpressure.

Written on a Protocol and not on asyncio's streams, for two reasons that the faults and the access log
need: the task that answers is cancelled the moment the client leaves (a stalled answer would never
find out), and `send` returns only when the kernel has taken each byte (so the log can be believed,
and a connection holds one piece of a body at most).
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, cast

HEAD_BYTES_MAX = 64 * 1024
HEAD_END = b"\r\n\r\n"


class HeadTooLongError(Exception):
    """The client sent HEAD_BYTES_MAX bytes without ending its request head."""


class Connection(asyncio.Protocol):
    """A socket whose life is that of one task, started when the client connects."""

    def __init__(self, serve: Callable[["Connection"], Coroutine[Any, Any, None]]) -> None:
        """Serve is the coroutine function that answers the requests of this connection."""
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._inbox = bytearray()
        self._heard: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.heard_at = 0.0  # loop time of the last bytes received
        self.client = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the answering task."""
        self._transport = cast(asyncio.Transport, transport)
        # Zero: pause whenever the kernel has not taken everything.
        self._transport.set_write_buffer_limits(high=0)
        # A client can be gone before it is accepted.
        host, port = (transport.get_extra_info("peername") or ("gone", 0))[:2]
        self.client = f"{host}:{port}"
        self._task = self._loop.create_task(self._serve(self))

    def data_received(self, data: bytes) -> None:
        """Keep what arrived; more than a head and a bit is left in the kernel."""
        self._inbox += data
        self.heard_at = self._loop.time()
        if len(self._inbox) > HEAD_BYTES_MAX:
            self._transport.pause_reading()
        self._wake(self._heard)

    def eof_received(self) -> None:
        """Let the transport close: a client that has closed its sending side counts as gone."""

    def connection_lost(self, _exc: Exception | None) -> None:
        """End whatever is still answering this client."""
        self._task.cancel()

    def pause_writing(self) -> None:
        """Make `send` wait."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        self._wake(self._writable)
        self._writable = None

    async def read_head(self) -> bytes:
        """Return the next request head, without the empty line that ends it."""
        while (end := self._inbox.find(HEAD_END)) < 0:
            if len(self._inbox) > HEAD_BYTES_MAX:
                raise HeadTooLongError(f"expected a head of at most {HEAD_BYTES_MAX} bytes")
            self._heard = self._loop.create_future()
            await self._heard
        head = bytes(self._inbox[:end])
        del self._inbox[: end + len(HEAD_END)]
        self._transport.resume_reading()
        return head

    async def send(self, data: bytes) -> None:
        """Write data and wait until the kernel has all of it."""
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(data)
        if self._writable is not None:
            await self._writable

    def close(self) -> None:
        """Close in the ordinary way: the client reads what was sent, then the end."""
        self._transport.close()

    def reset(self) -> None:
        """Close with a TCP RST. What the kernel has not delivered yet is lost."""
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
