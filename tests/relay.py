"""The network between a worker and Redis: a TCP relay that can be cut, and one that speaks TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Self


class Relay:
    """Carries bytes both ways until it is cut; then it carries none and closes nothing, like a lost cable."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._whole = threading.Event()
        self._whole.set()
        self._dropped: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def drop(self) -> None:
        """The connections of now swallow everything and are not closed, as when a NAT forgot them; new ones pass."""
        self._dropped.update(self._sockets)

    def heal(self) -> None:
        """New connections pass again; those of before the cut are reset."""
        for old in self._sockets:
            with contextlib.suppress(OSError):
                old.shutdown(socket.SHUT_RDWR)
        self._whole.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._whole.wait()
        with contextlib.suppress(OSError):
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                if source not in self._dropped:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.heal()


class TlsRelay:
    """TLS in front of a server that has none: a certificate of one's own, and perhaps one that clients must have."""

    def __init__(self, port: int, folder: Path, *, clients: bool = False) -> None:
        """
        Args:
            folder: of ``tests.authority``.
            clients: they need a certificate of the same authority.
        """
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem", folder / "server.key")
        if clients:
            self._context.load_verify_locations(folder / "ca.pem")
            self._context.verify_mode = ssl.CERT_REQUIRED
        self.carried = 0  # bytes that clients sent
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        serve = asyncio.start_server(self._join, "127.0.0.1", 0, ssl=self._context)
        server = asyncio.run_coroutine_threadsafe(serve, self._loop).result(10)
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._carry(reader, other_writer, count=True), self._carry(other_reader, writer))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, count: bool = False) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await source.read(65536):
                self.carried += len(data) if count else 0
                target.write(data)
                await target.drain()
        target.close()
