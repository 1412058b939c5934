"""One of libcurl's handles: what it may do, where it connects to, and what it did not tell by itself."""

from __future__ import annotations

import socket
import ssl
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD
from typing import Any

import pycurl

from download.addresses import Policy
from download.errors import DownloadError, RefusedError
from download.http1 import Head
from download.many.transfer import Transfer
from download.threads import native

_TCP = (socket.AF_INET, socket.SOCK_STREAM, 0)  # any will do to peek; without one, three system calls find out
_BUFFER = 256 * 1024  # bytes that libcurl receives at a time
_MOST_KEPT = 1000  # connections remembered, far more than libcurl keeps
_NONE = bytes(4)
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


def authorities() -> str | None:
    """A file of certificate authorities for libcurl, which brings none; None: there is none."""
    paths = ssl.get_default_verify_paths()
    known = [
        paths.cafile,
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ]
    return next((path for path in known if path and Path(path).is_file()), None)


class Slot:
    """One of libcurl's handles, and the transfer on it."""

    def __init__(self, policy: Policy, ca_file: str | None, kept: dict[int, int]) -> None:
        """
        Args:
            kept: sockets of connections that served a transfer, by their local port; shared by the slots of a loop.
        """
        self.kept = kept
        self.dirty = False
        self.policy = policy
        self.transfer: Transfer | None = None
        self.headers: dict[str, str] = {}  # as set
        self.pinned: tuple[str, int] | None = None
        self.easy = easy = pycurl.Curl()
        self.refused: DownloadError | None = None
        self.new_socket = native("socket", "socket")
        self.listens = False  # to all that libcurl tells
        self.opened: list[socket.socket] = []  # at most one, of a connection that ends with its answer
        self.surplus = False
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
            (pycurl.PREREQFUNCTION, self.before_request),
            (pycurl.DEBUGFUNCTION, self.hear),
        ):
            easy.setopt(option, value)
        if ca_file:
            easy.setopt(pycurl.CAINFO, ca_file)

    def open_socket(self, _purpose: int, address: Any) -> Any:
        """What libcurl calls before it connects, with the very address."""
        family, kind, protocol, place = address
        assert self.transfer is not None  # noqa: S101 - it connects for somebody
        try:
            self.policy.judge(self.transfer.target.host, place[0])
        except DownloadError as error:
            self.refused = error
            return pycurl.SOCKET_BAD
        except BaseException as error:
            self.refused = RefusedError(f"could not judge {place[0]}: {error}")
            return pycurl.SOCKET_BAD
        opened: socket.socket = self.new_socket(family, kind, protocol)
        if self.listens:
            self.opened = [opened]  # libcurl closes its own copy
        return opened

    def before_request(self, _ip: str, _local_ip: str, _port: int, local_port: int) -> int:
        """What libcurl calls when it has a connection, before it asks: an old one must have nothing left in it.

        libcurl itself looks only if the connection was idle for a second. Sooner it would take what a server had sent
        too much for the answer to the next request.
        """
        fd = self.kept.get(local_port)
        self.dirty = fd is not None and _waits(fd)
        return int(pycurl.PREREQFUNC_ABORT if self.dirty else pycurl.PREREQFUNC_OK)

    def keep(self) -> None:
        """An answer was read to its end; its connection may serve another request."""
        fd = self.easy.getinfo(pycurl.ACTIVESOCKET)
        if fd == -1:
            return
        port = self.easy.getinfo(pycurl.LOCAL_PORT)
        self.kept.pop(port, None)
        self.kept[port] = fd  # the youngest is the last
        if len(self.kept) > _MOST_KEPT:
            del self.kept[next(iter(self.kept))]

    def listen(self, on: bool) -> None:
        self.surplus = False
        self.opened.clear()
        if on != self.listens:
            self.listens = on
            self.easy.setopt(pycurl.VERBOSE, int(on))

    def hear(self, kind: int, text: bytes) -> None:
        if kind == pycurl.INFOTYPE_TEXT and text.startswith(b"Excess found"):
            self.surplus = True

    def prepare(self, transfer: Transfer, addresses: list[str], connect_timeout: float) -> None:
        self.transfer, self.refused = transfer, None
        target, easy = transfer.target, self.easy
        headers = transfer.hop()
        if headers != self.headers:
            easy.setopt(pycurl.HTTPHEADER, [f"{name}: {text}" for name, text in headers.items()])
            self.headers = headers
        place = target.host, target.port
        if self.pinned != place:
            easy.setopt(pycurl.RESOLVE, [f"{target.host}:{target.port}:{','.join(map(_bracketed, addresses))}"])
            easy.setopt(pycurl.CONNECTTIMEOUT_MS, round(connect_timeout * 1000))
            self.pinned = place
        easy.setopt(pycurl.URL, target.url)
        easy.setopt(pycurl.HEADERFUNCTION, transfer.lines.append)
        easy.setopt(pycurl.WRITEFUNCTION, transfer.write)

    def connected(self) -> bool:
        return bool(self.easy.getinfo(pycurl.PRETRANSFER_TIME) > 0)

    def complete(self) -> bool:
        """Whether nothing came after the body, as far as it is here already.

        What libcurl did not read, it leaves in the socket. What it did read it drops, with the connection, and tells
        only those whom it tells all: two dozen calls per answer. So only origins that ``closes`` names are listened to.
        """
        fd = self.easy.getinfo(pycurl.ACTIVESOCKET)
        if fd != -1:
            return not (_waits(fd) and _peek(self.new_socket(*_TCP, fileno=fd), close=False).strip(b"\r\n"))
        if self.listens and self.opened and not self.surplus:
            return not _peek(self.opened.pop(), close=True).strip(b"\r\n")
        return False

    def closes(self, head: Head) -> bool:
        """Whether the answer on a new connection ended it, as the server said: then all of its answers may."""
        return head.closes and bool(self.easy.getinfo(pycurl.NUM_CONNECTS))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _waits(fd: int) -> bool:
    """Whether there are bytes to be read; quicker than looking at them."""
    try:
        return ioctl(fd, FIONREAD, _NONE) != _NONE
    except OSError:
        return False


def _peek(peeked: socket.socket, *, close: bool) -> bytes:
    """A few bytes that wait to be read; they stay."""
    try:
        return peeked.recv(4, _PEEK)
    except OSError:
        return b""
    finally:
        (peeked.close if close else peeked.detach)()
