"""urllib3's connections, made interruptible, pinned to judged addresses, and strict about framing.

Four things differ from the originals, and nothing else does:

1. A name is resolved once, every address must pass the policy, and the socket goes to a judged one.
   SNI, Host and the certificate stay with the name.
2. Each wait on a socket (resolve, connect, TLS, headers, body) is cut into slices by ``Timeouts``.
3. An answer that ends inside its headers, or whose framing cannot be trusted, is an error.
4. TLS that ends without a goodbye is told apart from an end: it may be a cut.

The same code serves processes, threads and gevent's patched sockets.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import cast

import urllib3.connection
from urllib3.util import wait_for_read, wait_for_write

from download.addresses import Policy, Target
from download.answers import StrictResponse
from download.connect import SEND_TIMEOUT, connect
from download.errors import ResetError
from download.proxy import Proxy
from download.timeouts import Timeouts, translated

_IDLE = 64  # kept connections of a process


class Plain(urllib3.connection.HTTPConnection):
    """A connection whose waits belong to the request that uses it now."""

    policy: Policy
    timeouts: Timeouts  # of the request that uses it now
    origin: tuple[str, str, int]
    via: Proxy | None = None

    def _new_conn(self) -> socket.socket:
        if self.via is not None:
            return self.via.connect(self.policy, self.timeouts, self._tunnel_to())
        return connect(self._dns_host, self.port, self.policy, self.timeouts)

    def _tunnel_to(self) -> str | None:
        return None  # a proxy is told the whole URL

    def response_class(  # type: ignore[override]  # called like the class that it replaces
        self, sock: socket.socket, method: str | None = None
    ) -> StrictResponse:
        """What http.client calls to read an answer."""
        return StrictResponse(sock, self.timeouts, method)


class Tls(Plain, urllib3.connection.HTTPSConnection):
    def _tunnel_to(self) -> str | None:
        _, host, port = self.origin
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def connect(self) -> None:
        context = cast(ssl.SSLContext, self.ssl_context)
        sock = self._new_conn()
        sock.setblocking(False)
        try:
            self.sock = tls = context.wrap_socket(
                sock, server_hostname=self.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
        except BaseException:
            sock.close()
            raise
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                wait_for_read(tls, self.timeouts.slice())
            except ssl.SSLWantWriteError:
                wait_for_write(tls, self.timeouts.slice())
        tls.settimeout(SEND_TIMEOUT)
        self.is_verified = True


class Answer:
    """An answer whose headers have arrived."""

    def __init__(self, target: Target, connection: Plain, response: urllib3.HTTPResponse) -> None:
        self.target = target
        self.status = response.status
        self.headers = response.headers
        self.connection = connection
        self.done = False  # the connection is somebody else's now, or closed
        self._response = response
        self._strict = cast(StrictResponse, response._original_response)  # what response_class made

    @property
    def length(self) -> int | None:
        """Announced length of this body."""
        return None if self._strict.chunked else self._strict.announced

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be told from a cut."""
        return self._strict.chunked or self._strict.announced is not None

    @property
    def ragged(self) -> bool:
        """Whether TLS ended without a goodbye."""
        return self._strict.ragged

    @property
    def surplus(self) -> bytes:
        """What came although the body was complete, as far as it was here already."""
        return self._strict.surplus

    @property
    def finished(self) -> bool:
        return self._response.closed

    @property
    def proxied(self) -> bool:
        return self.connection.via is not None

    def read(self, room: memoryview) -> int:
        """Put there what has arrived, and wait if nothing has; how many bytes that is, 0 at the end.

        Raises:
            TruncatedError: the body ended before its end.
            Exception: the body broke; see ``timeouts.translated``, which is too dear for each piece.
        """
        return self._strict.receive(room)

    def glance(self, room: memoryview) -> int | None:
        """As ``read``, from any thread, but wait a moment at the most; None: nothing came, or it must be read."""
        return self._strict.glance(room)

    def close(self) -> None:
        if not self.done:
            self.done = True
            self._response.close()
            self.connection.close()


class Wire:
    """Sends GETs; keeps connections that can be used again. One per process, made after the fork."""

    def __init__(self, policy: Policy, context: ssl.SSLContext, proxy: Proxy | None = None) -> None:
        self._policy = policy
        self._context = context
        self.proxy = proxy
        self._idle: list[Plain] = []  # oldest first
        self._lock = threading.Lock()

    def get(self, target: Target, headers: dict[str, str], timeouts: Timeouts) -> Answer:
        """Send one request; redirects are the caller's.

        Raises:
            DownloadError: there is no answer, or none that can be trusted.
        """
        self._policy.admit(target)
        if self.proxy and self.proxy.serves(target):
            self.proxy.admit(target, self._policy)
        connection = self._take(target)
        if connection is not None:
            try:
                return self._ask(connection, target, headers, timeouts)
            except ResetError:
                # The server may close an idle connection just when it is used again: not a failure.
                if timeouts.first_byte is not None:
                    raise
        return self._ask(self._new(target), target, headers, timeouts)

    def keep(self, answer: Answer) -> None:
        """The caller is done with an answer: its connection is kept if nothing is left in it."""
        connection = answer.connection
        if answer.done:
            return
        if not answer.finished or answer.surplus or connection.sock is None:
            answer.close()
            return
        answer.done = True
        with self._lock:
            self._idle.append(connection)
            surplus = self._idle.pop(0) if len(self._idle) > _IDLE else None
        if surplus is not None:
            surplus.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self, target: Target) -> Plain | None:
        with self._lock:
            at = next((i for i in reversed(range(len(self._idle))) if self._idle[i].origin == target.origin), None)
            connection = None if at is None else self._idle.pop(at)
        if connection is not None and not connection.is_connected:
            connection.close()
            return None
        return connection

    def _new(self, target: Target) -> Plain:
        connection: Plain
        if target.scheme == "https":
            connection = Tls(target.host, target.port, timeout=SEND_TIMEOUT, ssl_context=self._context)
        else:
            connection = Plain(target.host, target.port, timeout=SEND_TIMEOUT)
        connection.policy = self._policy
        connection.origin = target.origin
        if self.proxy and self.proxy.serves(target):
            connection.via = self.proxy
        return connection

    @staticmethod
    def _ask(connection: Plain, target: Target, headers: dict[str, str], timeouts: Timeouts) -> Answer:
        connection.timeouts = timeouts
        timeouts.first_byte = None
        try:
            with translated(timeouts, f"{target.host}: "):
                if connection.is_closed:
                    connection.connect()
                timeouts.awaiting_headers()
                place, headers = _as_asked(connection, target, headers)
                connection.request("GET", place, headers=headers, preload_content=False, decode_content=False)
                return Answer(target, connection, connection.getresponse())
        except BaseException:
            connection.close()
            raise


def _as_asked(connection: Plain, target: Target, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """What stands in the request line, and the headers; a proxy that sees the request gets its own."""
    if connection.via is None or target.scheme == "https":
        return target.path, headers
    if connection.via.authorization:
        headers = {**headers, "Proxy-Authorization": connection.via.authorization}
    return target.url, headers
