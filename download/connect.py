"""From a host name to a connected socket: judged before it is used, and never waiting longer than a slice."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from typing import Any

from urllib3.util import wait_for_write

from download.addresses import Policy
from download.errors import ConnectError, DnsError, RefusedError
from download.timeouts import Timeouts

Found = tuple[socket.AddressFamily, Any]  # family and socket address, as getaddrinfo gives them

SEND_TIMEOUT = 5.0  # seconds; a request is smaller than any socket's buffer


def resolve(host: str, port: int, timeouts: Timeouts) -> list[Found]:
    """Every address of a host. The look-up itself cannot be interrupted, so it gets a thread to be left behind in.

    Raises:
        DnsError: there is none, or no answer in time.
    """
    outcome: list[list[Found] | OSError | UnicodeError] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            outcome.append(list(dict.fromkeys((family, address) for family, _, _, _, address in found)))
        except (OSError, UnicodeError) as error:
            outcome.append(error)
        finally:
            done.set()

    timeouts.resolving(host)
    try:
        threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    except RuntimeError as error:  # no thread left; that passes
        raise DnsError(f"expected a thread to resolve {host}, got: {error}") from error
    while not done.wait(timeouts.slice()):
        pass
    if isinstance(outcome[0], list):
        return outcome[0]
    raise DnsError(f"expected an address of {host}, got: {outcome[0]}") from outcome[0]


def connect(host: str, port: int, policy: Policy, timeouts: Timeouts) -> socket.socket:
    """A connection to a judged address; each address gets its share of the time.

    Raises:
        RefusedError: the policy denies one of the addresses.
        ConnectError: none of them answered.
    """
    found = resolve(host, port, timeouts)
    for _, address in found:
        policy.judge(host, str(address[0]))
    timeouts.connecting(host)
    reasons: list[str] = []
    for left, (family, address) in zip(range(len(found), 0, -1), found, strict=True):
        try:
            return _connect_one(family, address, timeouts, time.monotonic() + timeouts.remaining / left)
        except OSError as error:
            reasons.append(f"{address[0]}: {error.strerror or error}")
    raise ConnectError(f"expected a connection to {host}:{port}, got {'; '.join(reasons)}")


def _connect_one(family: socket.AddressFamily, address: Any, timeouts: Timeouts, give_up: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            while not wait_for_write(sock, min(timeouts.slice(), max(0.0, give_up - time.monotonic()))):
                if time.monotonic() >= give_up:
                    raise TimeoutError(errno.ETIMEDOUT, "no answer in its share of the time")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        peer = sock.getpeername()[0]
        if peer != address[0]:
            raise RefusedError(f"expected a connection to {address[0]}, got one to {peer}")
        sock.settimeout(SEND_TIMEOUT)
    except BaseException:
        sock.close()
        raise
    return sock
