"""Ports of 127.0.0.1: which are free, and who listens on one."""

from __future__ import annotations

import contextlib
import random
import socket

import psutil

HOST = "127.0.0.1"
# Below the ports that systems hand to outgoing connections, so that a download cannot take a port
# between the moment we choose it and the moment its service binds it.
CHOICE = range(20_000, 32_000)


def free(port: int) -> bool:
    """Whether a service could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    # Some systems let us bind beside a listener on every address; nobody may answer either.
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) != 0


def choose(preferred: int | None = None, taken: frozenset[int] = frozenset()) -> int:
    """The preferred port if it is free, otherwise a free one; never one that is taken."""
    if preferred is not None and preferred not in taken and free(preferred):
        return preferred
    while True:
        port = random.choice(CHOICE)
        if port not in taken and free(port):
            return port


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on the port: somebody else's answer on it proves nothing."""
    with contextlib.suppress(psutil.Error):
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in psutil.Process(pid).net_connections(kind="inet")
        )
    return False
