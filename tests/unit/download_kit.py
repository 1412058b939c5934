"""What the download tests share: a fetcher that may use loopback, one attempt in one call, a server that recites."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from download.addresses import AddressPolicy
from download.errors import DownloadError
from download.fetch import Fetched, Fetcher, Progress, Wanted
from download.many import Again, Loop, Transfer
from download.tempfile import publish
from download.threads import Run, native_runner
from download.timeouts import Limits

LOOPBACK = AddressPolicy(networks=(ip_network("127.0.0.1/32"),), ports=frozenset())
Script = Callable[["Reciter", socket.socket], None]
QUICK = {"connect_timeout": 2.0, "read_timeout": 1.0, "low_speed": 0}


@dataclass
class Desk:
    """A folder with one temp file and one final name, and a fetcher."""

    folder: Path
    fetcher: Fetcher = field(default_factory=lambda: Fetcher(LOOPBACK))

    @property
    def temp(self) -> Path:
        return self.folder / ".partial" / "job.1.part"

    @property
    def final(self) -> Path:
        return self.folder / "final"

    def fetch(
        self,
        url: str,
        *,
        check: Callable[[], None] = lambda: None,
        progress: Progress = lambda _size, _total: None,
        temp: Path | None = None,
        resume: Path | None = None,
        seconds: float | None = None,
        **more: Any,
    ) -> Fetched:
        """
        Args:
            seconds: until the deadline.
            more: fields of ``Wanted`` and of ``Limits``.
        """
        wanted = Wanted(
            url, **{name: more.pop(name) for name in ("sha256", "size", "headers", "digest") if name in more}
        )
        if seconds is not None:
            more["deadline"] = time.monotonic() + seconds
        return self.attempt(wanted, temp or self.temp, Limits(**{**QUICK, **more}), check, progress, resume=resume)

    def attempt(self, *args: Any, resume: Path | None) -> Fetched:
        return self.fetcher.fetch(*args, resume=resume)

    def bring(self, url: str, **more: Any) -> bytes:
        """Fetch, publish, and read what carries the final name."""
        self.fetch(url, **more)
        publish(self.temp, self.final)
        return self.final.read_bytes()

    def fails(self, url: str, **more: Any) -> DownloadError:
        """Fetch and expect a failure, and that nothing carries the final name."""
        with pytest.raises(DownloadError) as caught:
            self.fetch(url, **more)
        assert not self.final.exists()
        return caught.value

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.temp.parent.glob("*"))


@dataclass
class ChunkDesk(Desk):
    """The same desk on the loop that runs the jobs of a chunk; what that leaves to the single path goes there."""

    loop: Loop = field(init=False)
    native: Run = field(default_factory=lambda: native_runner(2))
    again: list[str] = field(default_factory=list)  # why the single path was asked

    def __post_init__(self) -> None:
        self.loop = Loop(self.fetcher)

    def attempt(self, *args: Any, resume: Path | None) -> Fetched:
        transfer = Transfer(*args[:4], user_agent=self.fetcher.user_agent)
        self.run([transfer])
        if isinstance(transfer.end, Again):
            self.again.append(str(transfer.end))
            return super().attempt(*args, resume=resume)
        if isinstance(transfer.end, Fetched):
            transfer.temp.save()
            return transfer.end
        assert transfer.end is not None
        raise transfer.end

    def run(self, transfers: list[Transfer]) -> None:
        """As a chunk does: where it does not block whoever else this thread serves."""
        done: list[Transfer] = []
        feed = iter(transfers)
        while len(done) < len(transfers):
            self.native(lambda: done.extend(self.loop.turn(feed, 16, 0.4, len(transfers))))


class Reciter:
    """Accepts connections and hands each to the next script; remembers the requests."""

    def __init__(self, scripts: tuple[bytes | Script, ...], context: ssl.SSLContext | None) -> None:
        self._scripts = scripts
        self._context = context
        self.requests: list[str] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def url(self, path: str = "/f", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def _serve(self) -> None:
        for script in self._scripts:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with suppress(OSError, ssl.SSLError):
                connection.settimeout(10)
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection:
                    if isinstance(script, bytes):
                        self.answer(connection, script)
                    else:
                        script(self, connection)

    def hear(self, connection: socket.socket) -> str:
        heard = b""
        while b"\r\n\r\n" not in heard:
            piece = connection.recv(65536)
            if not piece:
                break
            heard += piece
        self.requests.append(heard.decode("latin-1"))
        return self.requests[-1]

    def answer(self, connection: socket.socket, *answers: bytes) -> None:
        """Send each after a request."""
        for answer in answers:
            self.hear(connection)
            connection.sendall(answer)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@contextmanager
def reciting(*scripts: bytes | Script, tls: ssl.SSLContext | None = None) -> Iterator[Reciter]:
    """A server; each script serves one connection: bytes are sent after the request, then the connection ends."""
    server = Reciter(scripts, tls)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def resolving(**hosts: Sequence[str]) -> Iterator[list[str]]:
    """Own hosts ``NAME.example`` and their addresses; which names were looked up, in order."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: Any, **more: Any) -> Any:
        asked.append(host)
        name, _, domain = host.removesuffix(".").partition(".")
        if domain != "example" or name not in hosts:
            return real(host, port, *args, **more)
        if not hosts[name]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts[name]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield asked


def in_turn(*answers: bytes) -> Script:
    """Serve several requests of one connection."""
    return lambda server, connection: server.answer(connection, *answers)


def reset(connection: socket.socket) -> None:
    """Let the end of a connection be a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(server: Reciter, connection: socket.socket) -> None:
    """Hold a connection without a word until the client leaves."""
    with suppress(OSError):
        while connection.recv(65536):
            pass


def ok(body: bytes, *headers: str, length: int | None = None, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def moved(location: str, *headers: str) -> bytes:
    return ok(b"", f"Location: {location}", "Connection: close", *headers, status="302 Found")
