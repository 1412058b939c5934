"""From a URL to an answer's headers: a judged address, TLS, perhaps a proxy, one request; connections are kept.

A name is resolved once, every address of it must pass the policy, and the socket goes to one of them: the first that
answers, of those that are tried a moment after each other (RFC 8305). SNI, Host and certificate stay with the name.
Each wait is cut into slices by ``Timeouts``. The same code serves processes, threads and gevent's patched sockets.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from itertools import zip_longest
from typing import Generic, Protocol, TypeVar

from download.addresses import AddressPolicy, Target
from download.errors import ConnectError, DnsError, MachineError, RefusedError, ResetError, translate
from download.http1 import HttpConnection, Response
from download.proxy import Proxy, literal
from download.threads import native, start_native_thread
from download.timeouts import Timeouts, translated

IDLE = 2.0  # seconds that a connection waits for its next request

_MOST_IDLE = 64  # kept connections of a process
_NEXT_AFTER = 0.25  # seconds until the next address of a host is tried, too
_REMEMBERED = 600.0  # seconds for which an address that answered before the first one is tried first
_MOST_HOSTS = 1000  # remembered

_answered: dict[str, tuple[str, float]] = {}  # by host: the address to try first, and until when


class _Closeable(Protocol):
    def close(self) -> None: ...


Kept = TypeVar("Kept", bound=_Closeable)


class Idle(Generic[Kept]):
    """What may be used again within a moment, and is closed after it.

    A server that serves one connection at a time waits for that: until then it serves no other, of any process.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Hashable, Kept, float]] = []  # what it is for, and until when; oldest first
        self._watched = False  # by a thread or a greenlet, which ends once nothing is left
        self._lock = threading.Lock()

    def put(self, key: Hashable, kept: Kept) -> None:
        with self._lock:
            self._kept.append((key, kept, time.monotonic() + IDLE))
            surplus = self._kept.pop(0)[1] if len(self._kept) > _MOST_IDLE else None
            watched, self._watched = self._watched, True
        if surplus is not None:
            surplus.close()
        if not watched:
            try:
                threading.Thread(target=self._watch, name="idle connections", daemon=True).start()
            except RuntimeError:  # no thread left; perhaps next time
                self._watched = False

    def take(self, key: Hashable) -> Kept | None:
        """The youngest one."""
        with self._lock:
            at = next((at for at in reversed(range(len(self._kept))) if self._kept[at][0] == key), None)
            return None if at is None else self._kept.pop(at)[1]

    def close(self, until: float = float("inf")) -> bool:
        """Close what is that old; whether anything is left."""
        with self._lock:
            old = [kept for _, kept, end in self._kept if end <= until]
            self._kept = [each for each in self._kept if each[2] > until]
            self._watched = left = bool(self._kept)
        for each in old:
            each.close()
        return left

    def _watch(self) -> None:
        time.sleep(IDLE / 8)
        while self.close(time.monotonic()):
            time.sleep(IDLE / 8)


class HttpClient:
    """Sends GETs. One per process, made after the fork."""

    def __init__(self, policy: AddressPolicy, context: Callable[[str], ssl.SSLContext], proxy: Proxy | None) -> None:
        self._policy = policy
        self._context = context  # for a host
        self._proxy = proxy
        self._idle: Idle[HttpConnection] = Idle()  # by origin

    @contextmanager
    def get(self, target: Target, headers: dict[str, str], timeouts: Timeouts) -> Iterator[Response]:
        """Send one request; redirects are the caller's. In the end the connection is kept if nothing is left in it.

        Raises:
            DownloadError: there is no answer, or none that can be trusted.
        """
        response = self._get(target, headers, timeouts)
        try:
            yield response
        except BaseException:
            response.connection.close()
            raise
        if not response.finished or response.surplus or response.closes or not response.framed:
            response.connection.close()
        else:
            self._idle.put(target.origin, response.connection)

    def _get(self, target: Target, headers: dict[str, str], timeouts: Timeouts) -> Response:
        self._policy.admit(target)
        via = self.proxy_for(target)
        if via:
            via.admit(target, self._policy)
        request = _request(target, headers, via)
        timeouts.first_byte = None
        kept = self._idle.take(target.origin)
        if kept and kept.readable(0):  # it ended, or something is left in it
            kept.close()
        elif kept:
            try:
                return self._ask(kept, target, request, timeouts)
            except ResetError:
                # The server may close an idle connection just when it is used again: not a failure.
                if timeouts.first_byte is not None:
                    raise
        with translated(timeouts, f"{target.host}: "):
            connection = self._open(target, via, timeouts)
        return self._ask(connection, target, request, timeouts)

    def proxy_for(self, target: Target) -> Proxy | None:
        return self._proxy if self._proxy and self._proxy.serves(target) else None

    def close(self) -> None:
        self._idle.close()

    @staticmethod
    def _ask(connection: HttpConnection, target: Target, request: list[str], timeouts: Timeouts) -> Response:
        connection.timeouts = timeouts
        try:
            with translated(timeouts, f"{target.host}: "):
                timeouts.awaiting_headers()
                with suppress(ConnectionError, ssl.SSLEOFError):  # the server may have said why before it left
                    connection.send(request)
                return Response(target, connection)
        except BaseException:
            connection.close()
            raise

    def _open(self, target: Target, via: Proxy | None, timeouts: Timeouts) -> HttpConnection:
        try:
            sock = connect((via or target).host, (via or target).port, self._policy, timeouts)
        except RefusedError as error:
            if via is None:
                raise
            raise RefusedError(f"the proxy is not allowed by DOWNPOUR_ALLOW_HOSTS or _NETWORKS: {error}") from error
        connection = HttpConnection(sock, target.host, timeouts)
        try:
            if target.scheme == "https":
                if via is not None:
                    via.tunnel(connection, target)
                connection.sock = _tls(connection.sock, self._context(target.host), target.host.rstrip("."), timeouts)
        except BaseException:
            connection.close()
            raise
        return connection


def _request(target: Target, headers: dict[str, str], via: Proxy | None) -> list[str]:
    """The lines; a proxy that sees the request is told the whole URL, and gets a header of its own."""
    whole = via is not None and target.scheme == "http"
    host = replace(target, host=target.host.rstrip(".")) if target.host.endswith(".") else target
    lines = [f"GET {target.url if whole else target.path} HTTP/1.1", f"Host: {host.authority}"]
    lines += [f"{name}: {text}" for name, text in headers.items()]
    if whole and via and via.authorization:
        lines.append(f"Proxy-Authorization: {via.authorization}")
    return lines


class LookUp:
    """A name that is being resolved. That cannot be interrupted, so it has a thread to be left behind in."""

    def __init__(
        self, host: str, port: int, done: Callable[[], object] = lambda: None, *, native_thread: bool = False
    ) -> None:
        """
        Args:
            done: called when it is over, in the thread.
            native_thread: for a caller that is in one, and must not wait for gevent's hub.
        """
        self.over: float | None = None  # time.monotonic() when it was
        self.allowed: list[str] = []  # once they were judged
        self._host = host
        self._found: list[str] | Exception = []
        look_up = native("socket", "getaddrinfo") if native_thread else socket.getaddrinfo

        def end(found: list[str] | Exception) -> None:
            self._found, self.over = found or OSError("none"), time.monotonic()
            done()

        def run() -> None:
            try:
                answers = look_up(host, port, type=socket.SOCK_STREAM)
                found: list[str] | Exception = list(dict.fromkeys(str(each[4][0]) for each in answers))
            except Exception as error:  # an unusual one, too, must not leave the others waiting
                found = error
            end(found)

        try:
            if address := literal(host):
                end([address])
            elif native_thread:
                start_native_thread(f"resolve {host}", run)
            else:
                threading.Thread(target=run, name=f"resolve {host}", daemon=True).start()
        except RuntimeError as error:  # no thread left
            end(error)

    def judged(self, policy: AddressPolicy) -> list[str]:
        """Its addresses, all of them allowed.

        Raises:
            RefusedError: the policy denies one of them.
            DnsError: there is none.
            MachineError: there was no descriptor or thread to look it up.
        """
        found = self._found
        if isinstance(found, Exception):
            _raise_if_machine(found, f"resolving {self._host}: ")
            raise DnsError(f"expected an address of {self._host}, got: {found}") from found
        if not self.allowed:
            for address in found:
                policy.judge(self._host, address)
            self.allowed = found
        return found


def connect(host: str, port: int, policy: AddressPolicy, timeouts: Timeouts) -> socket.socket:
    """A connection to the first judged address that answers.

    Raises:
        DnsError: the host has no address, or none is found in time.
        RefusedError: the policy denies one of the addresses.
        ConnectError: none of them answered.
        MachineError: there is no descriptor or thread for it.
    """
    done = threading.Event()
    timeouts.resolving(host)
    look_up = LookUp(host, port, done.set)
    while not done.wait(timeouts.slice()):
        pass
    found = look_up.judged(policy)
    timeouts.connecting(host)
    return _first_to_answer(host, in_order(host, found), port, timeouts)


def in_order(host: str, addresses: list[str]) -> list[str]:
    """Addresses as they are to be tried: the one that answered before the first did, then both families in turn."""
    if len(addresses) < 2:
        return addresses
    first = [each for each in addresses if (":" in each) == (":" in addresses[0])]
    others = [each for each in addresses if each not in first]
    in_turn = [each for pair in zip_longest(first, others) for each in pair if each]
    last, until = _answered.get(host, ("", 0.0))
    return sorted(in_turn, key=lambda each: each != last or time.monotonic() > until)


def remember(host: str, address: str) -> None:
    """This address of the host answered, and the first one did not, or later."""
    if len(_answered) >= _MOST_HOSTS:
        _answered.clear()
    _answered[host] = address, time.monotonic() + _REMEMBERED


def _first_to_answer(host: str, addresses: Sequence[str], port: int, timeouts: Timeouts) -> socket.socket:
    left = deque(addresses)
    begun: dict[int, tuple[socket.socket, str]] = {}  # by descriptor; and to which address
    waiting, next_at = select.poll(), 0.0
    reasons: list[str] = []
    try:
        while left or begun:
            address, patience = "", timeouts.slice()
            try:
                if left and time.monotonic() >= next_at:
                    address, next_at = left.popleft(), time.monotonic() + _NEXT_AFTER
                    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
                    begun[sock.fileno()] = sock, address
                    waiting.register(sock, select.POLLOUT)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.setblocking(False)
                    _raise_if_failed(sock.connect_ex((address, port)))
                if left:
                    patience = min(patience, max(0.0, next_at - time.monotonic()))
                for fd, _ in waiting.poll(1000 * patience):
                    sock, address = begun[fd]
                    _raise_if_failed(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                    if ip_address(peer := sock.getpeername()[0]) != ip_address(address):  # some have two spellings
                        raise RefusedError(f"expected a connection to {address}, got one to {peer}")
                    del begun[fd]
                    if address != addresses[0]:
                        remember(host, address)
                    return sock
            except OSError as error:
                _raise_if_machine(error, f"connecting to {host}: ")
                reasons.append(f"{address}: {error.strerror or error}")
                next_at = 0.0
                for fd in [fd for fd, (_, of) in begun.items() if of == address]:
                    waiting.unregister(fd)
                    begun.pop(fd)[0].close()
    finally:
        for sock, _ in begun.values():
            sock.close()
    raise ConnectError(f"expected a connection to {host}:{port}, got {'; '.join(reasons)}")


def _raise_if_machine(error: Exception, prefix: str) -> None:
    if isinstance(cause := translate(error, prefix), MachineError):
        raise cause from error


def _raise_if_failed(code: int) -> None:
    if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        raise OSError(code, os.strerror(code))


def _tls(sock: socket.socket, context: ssl.SSLContext, host: str, timeouts: Timeouts) -> ssl.SSLSocket:
    tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False)
    try:
        while True:
            tls.settimeout(timeouts.slice())
            with suppress(TimeoutError):  # then it goes on where it was
                tls.do_handshake()
                return tls
    except BaseException:
        tls.close()
        raise
