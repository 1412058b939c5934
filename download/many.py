"""Groups of small downloads at once in one thread, through libcurl's multi interface.

It moves bytes and has no policy of its own: what to ask for, what an answer means and whether a file is right, say
``fetch.Retrieval``, ``http1.Head``, ``Timeouts``, ``TempFile`` and ``AddressPolicy``. What libcurl says clearly becomes
the same result or error as alone. What it does not say clearly (``Again``) is left to ``Fetcher``, which asks again.

Guarantees: a socket goes to no address that the policy denies (libcurl asks ``_Handle.open_socket`` for each); proxies,
redirects, decoding, cookies and HTTP/2 are off; each transfer is looked at ten times a second, so ``check()`` and the
limits hold as alone. A loop belongs to one thread at a time.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pycurl

from download import errors
from download.addresses import Target
from download.connect import IDLE, LookUp, in_order, remember
from download.fetch import SETTLE, SETTLE_TIME, Fetched, Fetcher, Retrieval
from download.http1 import ENDS, Head, is_informational, status_of, waits
from download.threads import native

_LOOK_EVERY = 0.1  # seconds
_KEPT = 64  # connections
_BUFFER = 256 * 1024  # bytes that libcurl receives at a time
_FRESH = 30.0  # seconds for which a look-up counts
_FAILED = 1.0  # ... if it failed: for the transfers that wait for it, and for no later retry
_MOST_HOSTS = 1000  # kept
_HANG = select.POLLHUP | select.POLLERR | select.POLLNVAL
_POLL = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_DIED = frozenset({pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING})
_TCP = (socket.AF_INET, socket.SOCK_STREAM, 0)  # any will do to peek; without one, three system calls find out


class Again(errors.Ended):
    """``Fetcher`` must look at this one."""

    keeps_partial = False


class Transfer(Retrieval):
    """One URL in a group."""

    late = True
    end: Fetched | errors.Ended | None = None  # what came of it, once it is over
    head: Head | None = None
    lines: list[bytes]  # of the headers, since ``begin``; libcurl appends to it
    fresh = False  # whether it wants a new connection
    _connecting = True
    _unwanted: int | None = None  # bytes so far, of a body that is no file
    _error: BaseException | None = None  # that ended it, whatever libcurl says

    def begin(self) -> dict[str, str]:
        """Begin with the present target; the headers to send."""
        self.head, self.lines, self._connecting, self._unwanted = None, [], True, None
        self.timeouts.first_byte = None
        self.timeouts.connecting(self.target.host)
        return self.headers()

    def write(self, piece: bytes) -> int | None:
        """What libcurl calls with a piece of the body. -1 ends the transfer; an exception must not pass through it."""
        try:
            if self.head is None:
                self._read_head()
            if self._unwanted is not None:
                self._unwanted += len(piece)
                return -1 if self._unwanted > SETTLE else None
            self.timeouts.before_read()
            self.temp.take(piece)
            self.timeouts.arrived(len(piece))
        except BaseException as error:
            self._error = error
            return -1
        return None

    def look(self, *, connected: bool) -> None:
        """
        Raises:
            Ended: it may not go on.
        """
        if self._connecting and connected:
            self._connecting = False
            self.timeouts.awaiting_headers()
        if self.head is None and self._has_head():
            self._read_head()
        self.timeouts.slice()

    def stop(self, error: BaseException) -> bool:
        """As ``over``, for one that must not go on; an answer without a file may just not be worth waiting for."""
        if not isinstance(error, errors.SilenceError):
            self._error = error
        return self.over(error)

    def over(self, failure: BaseException | None, *, complete: bool = True) -> bool:
        """It ends; whether there is another hop to make.

        Args:
            failure: what libcurl said.
            complete: nothing came after the body.
        """
        try:
            if self._error is not None:
                raise self._error
            cut = bool(self.lines) and isinstance(failure, errors.TruncatedError)
            if self.head is None and (failure is None or cut or self._has_head()):
                self._read_head()
            if failure is not None and self._unwanted is None:
                raise failure
            assert self.head is not None  # noqa: S101 - it was read, or there was a failure
            if self._unwanted is not None:
                self.go_where(self.head)
                return True
            self.temp.end()
            self.end = self.verified(self.head)
            if self.head.length is not None and not self.end.proven and not complete:
                raise Again("there may have been more than was announced")
        except Exception as error:
            self.end = error if isinstance(error, errors.Ended) else errors.translate(error)
            self.give_up(self.end)
        self.temp.close()
        return False

    def _last_answer(self) -> list[bytes]:
        """The lines of the answer that counts: libcurl hands over informational ones, too."""
        begins = max((at for at, line in enumerate(self.lines) if line.startswith(b"HTTP/")), default=0)
        answer = self.lines[begins:]
        ends = next((at for at, line in enumerate(answer) if line in ENDS), len(answer))
        return answer[: ends + 1]  # trailers come later

    def _has_head(self) -> bool:
        """Whether all headers of an answer that counts are here."""
        lines = self._last_answer()
        return bool(lines) and lines[-1] in ENDS and not is_informational(status_of(lines[0], self.target.host))

    def _read_head(self) -> None:
        self._connecting = False
        if self.timeouts.first_byte is None:
            self.timeouts.first_byte = time.monotonic()
        if not (lines := self._last_answer()):
            raise errors.TruncatedError("expected all headers, got the end of the connection before them")
        self.timeouts.status = status_of(lines[0], self.target.host)  # a failure below has one, too
        self.head = Head(self.target, lines)
        if self.takes(self.head):
            self.timeouts.reading_body()
        else:
            self._unwanted = 0
            self.timeouts.discarding(SETTLE_TIME)

    def failure(self, code: int, text: str, errno: int) -> Exception:
        """What libcurl's code means, as far as it says one thing: it also refuses answers that can be read.

        Args:
            errno: the operating system's; 0: it said nothing.
        """
        host = self.target.host
        if code == pycurl.E_COULDNT_CONNECT:
            return errors.ConnectError(f"expected a connection to {host}:{self.target.port}, got: {text}")
        if code == pycurl.E_OPERATION_TIMEDOUT:  # of libcurl's options only the one for connecting is set
            return self.timeouts.late()
        if code == pycurl.E_PARTIAL_FILE:
            return self.cut_short()
        if code == pycurl.E_PEER_FAILED_VERIFICATION:
            return errors.TlsError(f"{host}: {text}")
        if errno and (self.lines or self.target.scheme == "http"):  # else it may have been told why, in TLS
            return errors.ResetError(f"{'' if self.head else f'{host}: '}[Errno {errno}] {os.strerror(errno)}")
        return Again(f"{host}: libcurl says {code}: {text}")


class Loop:
    def __init__(self, fetcher: Fetcher) -> None:
        self.policy = fetcher.policy
        self.ca_file = str(fetcher.ca_file) if fetcher.ca_file else _authorities()
        self.certificate_for = fetcher.certificate_for
        # Idle connections: by their local port the descriptor, and until when they are kept.
        self.sockets: dict[int, tuple[int, float]] = {}
        self._closing: set[tuple[str, str, int]] = set()  # origins that answer once per connection
        self._look_ups: dict[tuple[str, int], LookUp] = {}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._interest)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _KEPT)
        self._poll = native("select", "poll")()
        self.socket = native("socket", "socket")
        self._due: float | None = None  # when libcurl wants to be called
        self._free: list[_Handle] = []
        self._busy: dict[_Handle, Transfer] = {}
        self._resolving: deque[Transfer] = deque()
        self._looked = 0.0
        self._done: list[Transfer] = []

    def close(self) -> None:
        """Close the idle connections, while nothing is active."""
        self._multi.close()

    @property
    def active(self) -> list[Transfer]:
        """Those that have begun and are not over."""
        return [*self._resolving, *self._busy.values()]

    def turn(self, feed: Iterator[Transfer], parallel: int, seconds: float, enough: int) -> list[Transfer]:
        """Let transfers go on, that many at once; those that are over.

        Args:
            feed: the next ones to begin.
            seconds: when to come back at the latest,
            enough: ... or when so many are over.
        """
        until = time.monotonic() + seconds
        while len(self._done) < enough:
            room = parallel - len(self._busy) - len(self._resolving)
            for transfer in islice(feed, max(0, room)):
                self._begin(transfer)
            now = time.monotonic()
            if not (self._busy or self._resolving) or now >= until:
                break
            self._wait(min(until, now + (0.01 if self._resolving else _LOOK_EVERY)) - now)
            if time.monotonic() - self._looked >= _LOOK_EVERY or self._resolving:
                self._look()
        done, self._done = self._done, []
        return done

    def addresses(self, target: Target) -> list[str] | None:
        """Those of a target's host, all of them allowed; None: not known yet, ask again.

        Raises:
            RefusedError: the policy denies the target or one of its addresses.
            DnsError: there is none.
        """
        self.policy.admit(target)
        place, now = (target.host, target.port), time.monotonic()
        look_up = self._look_ups.get(place)
        if look_up is None or (look_up.over and now - look_up.over > (_FRESH if look_up.allowed else _FAILED)):
            if len(self._look_ups) >= _MOST_HOSTS:
                self._look_ups.clear()
            look_up = self._look_ups[place] = LookUp(*place, native_thread=True)
        return in_order(target.host, look_up.judged(self.policy)) if look_up.over else None

    # -- transfers

    def _begin(self, transfer: Transfer, *, again: bool = False) -> None:
        """Give it a handle, or leave it among those whose host is not known yet, of which it was one if ``again``."""
        target = transfer.target
        try:
            if again:
                transfer.timeouts.slice()
            else:
                transfer.timeouts.resolving(target.host)
            allowed = self.addresses(target)
            if allowed is None:
                self._resolving.append(transfer)
                return
            if target.scheme == "https" and not self.ca_file:
                raise Again("found no file of certificate authorities for libcurl")
            handle, certificate = self._free.pop() if self._free else _Handle(self), self.certificate_for(target.host)
            if handle.certificate != certificate:  # libcurl for Python can set this option, and not take it back
                handle = _Handle(self, certificate)
            try:
                handle.prepare(transfer, allowed, listen=target.origin in self._closing)
            except BaseException:
                self._free.append(handle)
                raise
            self._busy[handle] = transfer
            self._multi.add_handle(handle)
        except BaseException as error:
            self._next(transfer, transfer.stop(error))

    def _next(self, transfer: Transfer, more: bool, handle: _Handle | None = None) -> None:
        """Free its handle; another hop, or it is over."""
        if handle is not None:
            self._multi.remove_handle(handle)
            del self._busy[handle]
            handle.opened.clear()
            self._free.append(handle)
        if more:
            self._begin(transfer)
        else:
            self._done.append(transfer)

    def _look(self) -> None:
        self._looked = time.monotonic()
        for port, (fd, until) in tuple(self.sockets.items()):
            if until <= self._looked:
                del self.sockets[port]
                _hang_up(self.socket(*_TCP, fileno=fd), port)
        for _ in range(len(self._resolving)):
            self._begin(self._resolving.popleft(), again=True)
        for handle, transfer in list(self._busy.items()):
            try:
                transfer.look(connected=handle.getinfo(pycurl.PRETRANSFER_TIME) > 0)
            except BaseException as error:
                self._next(transfer, transfer.stop(error), handle)

    def _collect(self) -> None:
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            for handle in good:
                self._over(handle, 0, "")
            for handle, code, text in bad:
                self._over(handle, code, text)

    def _over(self, handle: _Handle, code: int, text: str) -> None:
        transfer = self._busy[handle]
        if code and handle.refused is not None:
            more = transfer.stop(handle.refused)
        elif code == pycurl.E_ABORTED_BY_CALLBACK and handle.dirty:
            more = True  # on another connection
        elif code in _DIED and not transfer.lines and not handle.getinfo(pycurl.NUM_CONNECTS):
            more = transfer.fresh = True  # idle connections that had ended: libcurl tries five of them
        elif code:
            more = transfer.over(transfer.failure(code, text, handle.getinfo(pycurl.OS_ERRNO)))
        else:
            more = transfer.over(None, complete=handle.complete())
            closes = transfer.head is not None and transfer.head.closes
            # If the server ends a new connection after its answer, then all of its answers may.
            if isinstance(transfer.end, Again) and closes and handle.getinfo(pycurl.NUM_CONNECTS):
                self._closing.add(transfer.target.origin)
        self._next(transfer, more, handle)

    # -- sockets

    def _interest(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            with suppress(KeyError):
                self._poll.unregister(fd)
        else:
            self._poll.register(fd, _POLL[what])

    def _timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _wait(self, seconds: float) -> None:
        """Until a socket is ready or libcurl's timer is due; then libcurl works.

        New transfers start before anything else, and what a call brought is looked at before the next call. Else a
        connection might serve another transfer already when it is asked whether anything is left in it.
        """
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            self._collect()
        if self._due is not None:
            seconds = min(seconds, self._due - time.monotonic())
        for fd, what in self._poll.poll(max(0.0, seconds * 1000)):
            flags = (pycurl.CSELECT_IN if what & (select.POLLIN | _HANG) else 0) | (
                pycurl.CSELECT_OUT if what & select.POLLOUT else 0
            )
            self._multi.socket_action(fd, flags | (pycurl.CSELECT_ERR if what & _HANG else 0))
            self._collect()


class _Handle(pycurl.Curl):  # type: ignore[misc]
    """What one transfer of libcurl's may do, where it connects to, and what libcurl does not tell by itself."""

    def __init__(self, loop: Loop, certificate: Path | None = None) -> None:
        self.certificate = certificate
        self.refused: errors.DownloadError | None = None
        self.dirty = False  # the connection that was to serve again has something left in it
        self.opened: list[socket.socket] = []  # at most one, of a connection that ends with its answer
        self._loop = loop
        self._host = ""
        self._several = False  # addresses that the host has
        self._place = "", "", 0, ""  # as set; with the address to try first
        self._headers: dict[str, str] = {}  # as set
        self._listens = self._surplus = self._fresh = False
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.HTTP09_ALLOWED, 0),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.HTTP_CONTENT_DECODING, 0),
            (pycurl.PATH_AS_IS, 1),
            (pycurl.PROXY, ""),
            (pycurl.NOPROXY, "*"),
            (pycurl.BUFFERSIZE, _BUFFER),
            (pycurl.OPENSOCKETFUNCTION, self.open_socket),
            (pycurl.PREREQFUNCTION, self._before_request),
            (pycurl.DEBUGFUNCTION, self._hear),
        ):
            self.setopt(option, value)
        if loop.ca_file:
            self.setopt(pycurl.CAINFO, loop.ca_file)
        if certificate:
            self.setopt(pycurl.SSLCERT, str(certificate))

    def prepare(self, transfer: Transfer, allowed: list[str], *, listen: bool) -> None:
        target, headers = transfer.target, transfer.begin()
        self.refused, self.dirty, self._surplus, self._host = None, False, False, target.host
        self.opened.clear()
        if listen != self._listens:  # to all that libcurl tells: two dozen calls per answer
            self._listens = listen
            self.setopt(pycurl.VERBOSE, int(listen))
        if transfer.fresh != self._fresh:
            self._fresh = transfer.fresh
            self.setopt(pycurl.FRESH_CONNECT, int(transfer.fresh))
        if headers != self._headers:
            self.setopt(pycurl.HTTPHEADER, [f"{name}: {text}".encode("latin-1") for name, text in headers.items()])
            self._headers = headers
        if self._place != (place := (*target.origin, allowed[0])):
            places = ",".join(f"[{each}]" if ":" in each else each for each in allowed)
            self.setopt(pycurl.RESOLVE, [f"{target.host}:{target.port}:{places}"])
            self.setopt(pycurl.CONNECTTIMEOUT_MS, round(transfer.timeouts.limits.connect_timeout * 1000))
            self.setopt(pycurl.URL, f"{target.scheme}://{target.authority}/")
            self._place, self._several = place, len(allowed) > 1
        self.setopt(pycurl.REQUEST_TARGET, target.path)  # as it is: of a URL libcurl would rewrite the escapes
        self.setopt(pycurl.HEADERFUNCTION, transfer.lines.append)
        self.setopt(pycurl.WRITEFUNCTION, transfer.write)

    def open_socket(self, _purpose: int, address: Any) -> Any:
        """What libcurl calls before it connects, with the very address."""
        family, kind, protocol, place = address
        try:
            self._loop.policy.judge(self._host, place[0])
            opened: socket.socket = self._loop.socket(family, kind, protocol)
        except Exception as error:
            self.refused = errors.translate(error, f"connecting to {self._host}: ")
            return pycurl.SOCKET_BAD
        if self._listens:
            self.opened = [opened]  # libcurl closes its own copy
        return opened

    def _before_request(self, _ip: str, _local_ip: str, _port: int, local_port: int) -> int:
        """What libcurl calls when it has a connection, before it asks: an old one must have nothing left in it.

        libcurl itself looks only if the connection was idle for a second. Sooner it would take what a server had sent
        too much for the answer to the next request.
        """
        fd, _ = self._loop.sockets.pop(local_port, (None, 0.0))
        self.dirty = fd is not None and waits(fd)
        return int(pycurl.PREREQFUNC_ABORT if self.dirty else pycurl.PREREQFUNC_OK)

    def _hear(self, kind: int, text: bytes) -> None:
        if kind == pycurl.INFOTYPE_TEXT and text.startswith(b"Excess found"):
            self._surplus = True

    def complete(self) -> bool:
        """After an answer that was read to its end: whether nothing came after it, as far as it is here already.

        What libcurl did not read, it leaves in the socket, which may serve another request. What it did read it drops,
        with the connection, and tells only a handle that listens.
        """
        if self._several and (address := self.getinfo(pycurl.PRIMARY_IP)) != self._place[-1]:
            remember(self._host, address)
        fd, sockets = self.getinfo(pycurl.ACTIVESOCKET), self._loop.sockets
        if fd != -1:
            port = self.getinfo(pycurl.LOCAL_PORT)
            sockets[port] = fd, time.monotonic() + IDLE
            return not (waits(fd) and _peek(self._loop.socket(*_TCP, fileno=fd), close=False).strip(b"\r\n"))
        if self._listens and self.opened and not self._surplus:
            return not _peek(self.opened.pop(), close=True).strip(b"\r\n")
        return False


def _peek(peeked: socket.socket, *, close: bool) -> bytes:
    """A few bytes that wait to be read; they stay."""
    try:
        return peeked.recv(4, _PEEK)
    except OSError:
        return b""
    finally:
        (peeked.close if close else peeked.detach)()


def _hang_up(idle: socket.socket, port: int) -> None:
    """Let the server end an idle connection of libcurl's, which notices that before it would use it again.

    Args:
        idle: the descriptor that it had. If another socket has it by now, so has that another port.
    """
    try:
        if idle.getsockname()[1] == port:
            idle.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        idle.detach()


def _authorities() -> str | None:
    """A file of certificate authorities for libcurl, which brings none; None: there is none."""
    known = (
        ssl.get_default_verify_paths().cafile,
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    )
    return next((path for path in known if path and Path(path).is_file()), None)
