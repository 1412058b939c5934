"""A network namespace of our own, in which nothing exists but loopback: for C libraries, which the fence cannot see.

``enter`` moves the main thread, and so all processes that it starts, into a new namespace. A thread stays outside and
carries connections to the ports that listened on this machine's loopback, so that a task still finds its database or
its server there. What listens later is not found. It needs Linux, and root or unprivileged user namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import ipaddress
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP = 0x8913, 0x8914, 0x1
_DEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None  # loaded before any fork
_CHUNK = 1 << 16


class NamespaceError(OSError):
    """This system does not allow one; says why."""


def enter() -> tuple[int, ...]:
    """The ports that are carried into it.

    Raises:
        NamespaceError: nothing has changed.
    """
    if sys.platform != "linux":
        raise NamespaceError("network namespaces exist on Linux only")
    if threading.active_count() > 1:
        raise NamespaceError("threads run in this process already")
    if os.waitstatus_to_exitcode(os.waitpid(_try(), 0)[1]):
        raise NamespaceError("this system does not allow a network namespace of our own")
    places = sorted(set(_listening()))
    outside = _leave_network()
    for host, port in places:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1000)
        asyncio.run_coroutine_threadsafe(_carry(listener, host, port), outside)
    return tuple(sorted({port for _, port in places}))


def _listening() -> Iterator[tuple[str, int]]:
    """Where something listens on this machine's loopback: address, port."""
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr:
            host, port = each.laddr
            address = ipaddress.ip_address(host)
            if address.is_unspecified:
                yield "127.0.0.1", port
            elif address.is_loopback:
                yield host, port


def _try() -> int:
    """A child that tries it, and is zero if it can."""
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            _leave_network()
            code = 0
        os._exit(code)
    return child


def _leave_network() -> asyncio.AbstractEventLoop:
    """The event loop of a thread that stays outside: a namespace is of a thread, and of what that thread starts."""
    user, group = os.geteuid(), os.getegid()
    if user:  # before there is a second thread, as Linux wants it
        _unshare(_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    outside = asyncio.new_event_loop()
    threading.Thread(target=outside.run_forever, name="relay", daemon=True).start()
    _unshare(_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack("16sh", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _UP))
    return outside


def _unshare(what: int) -> None:
    if _LIBC is None or _LIBC.unshare(what):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def tied() -> None:
    """In a child, before anything else: it ends when the process that started it has ended (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_DEATHSIG, signal.SIGKILL)


# -- outside


async def _carry(listener: socket.socket, host: str, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(host, port)
            with contextlib.closing(far_writer):
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    await asyncio.start_server(carry, sock=listener)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # either end may have gone
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
