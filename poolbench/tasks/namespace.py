"""A network namespace of our own, in which nothing exists but loopback: for C libraries, which the fence cannot see.

``enter`` moves this process, and so all that it starts, into a new namespace. A small process stays outside and
carries connections to the ports that listened on this machine's loopback, so that a task still finds its database or
its server there. What listens later is not found. It needs Linux, and root or unprivileged user namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP = 0x8913, 0x8914, 0x1
_DEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None  # loaded before any fork
_MOST_PORTS = 200  # that fit into one message of file descriptors
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Entered:
    relay: int | None  # the process that stays outside; None: it was not needed
    ports: tuple[int, ...]
    held: socket.socket | None  # the relay ends when this is closed


class NamespaceError(OSError):
    """This system does not allow one; says why."""


def enter() -> Entered:
    """
    Raises:
        NamespaceError: nothing has changed.
    """
    if sys.platform != "linux":
        raise NamespaceError("network namespaces exist on Linux only")
    if threading.active_count() > 1:
        raise NamespaceError("threads run in this process already")
    if os.waitstatus_to_exitcode(os.waitpid(_try(), 0)[1]):
        raise NamespaceError("this system does not allow a network namespace of our own")
    places = sorted(set(listening()))[:_MOST_PORTS]
    if not places:
        _leave_network()
        return Entered(None, (), None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    relay = os.fork()
    if not relay:
        ours.close()
        _relay(theirs)
    theirs.close()
    _leave_network()
    listeners = [socket.create_server(place, family=_family(place[0]), backlog=1000) for place in places]
    socket.send_fds(ours, [json.dumps(places).encode()], [each.fileno() for each in listeners])
    for each in listeners:
        each.close()
    return Entered(relay, tuple(sorted({port for _, port in places})), ours)


def listening() -> Iterator[tuple[str, int]]:
    """Where something listens on this machine's loopback: address, port."""
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr:
            host, port = each.laddr
            address = ipaddress.ip_address(host)
            if address.is_unspecified:
                yield "127.0.0.1", port
            elif address.is_loopback:
                yield host, port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _try() -> int:
    """A child that tries it, and is zero if it can."""
    child = os.fork()
    if child:
        return child
    try:
        _leave_network()
    except BaseException:
        os._exit(1)
    os._exit(0)


def _leave_network() -> None:
    user, group = os.geteuid(), os.getegid()
    if not user:
        _unshare(_NEWNET)
    else:
        _unshare(_NEWUSER | _NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack("16sh", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _UP))


def _unshare(what: int) -> None:
    if _LIBC is None or _LIBC.unshare(what):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def tied() -> None:
    """In a child, before anything else: it ends when the process that started it has ended (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_DEATHSIG, signal.SIGKILL)


# -- the process outside


def _relay(control: socket.socket) -> None:
    """Never returns."""
    try:
        tied()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        found, descriptors, _, _ = socket.recv_fds(control, 1 << 16, _MOST_PORTS)
        if found:
            asyncio.run(_serve(control, [tuple(each) for each in json.loads(found)], descriptors))
    finally:
        os._exit(0)


async def _serve(control: socket.socket, places: list[tuple[str, int]], descriptors: list[int]) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(control, over.set)
    for place, descriptor in zip(places, descriptors, strict=True):
        await asyncio.start_server(_carrier(place), sock=socket.socket(fileno=descriptor))
    await over.wait()


def _carrier(place: tuple[str, int]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*place)
            with contextlib.closing(far_writer):
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    return carry


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # either end may have gone
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
