"""What keeps a project private, in its workers and here: its app leads to the private broker, its sockets are fenced.

``CELERY_BROKER_URL`` alone is not enough: a project's ``broker_write_url`` and ``broker_read_url`` come before it.
So every address is set, in the environment and in the configuration, and then what the app would really use is read.
The fence is an audit hook. It sees Python's sockets alone; for C libraries there is ``namespace``.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

Place = tuple[str, int | None]  # a host, and a port or all of them
_BROKER = ("broker_url", "broker_read_url", "broker_write_url")
# They belong to the project's own broker or result store, and would change or break an address of ours.
_OF_ITS_OWN = (
    "broker_use_ssl", "broker_transport", "broker_user", "broker_password", "broker_vhost", "broker_port",
    "broker_login_method", "redis_backend_use_ssl", "redis_username", "redis_password", "redis_db", "redis_host",
    "redis_port",
)  # fmt: skip


def point(app: Any, broker: str, results: str) -> None:
    """Args: results is empty for a project that stores none."""
    conf = app.conf
    kept = str(conf.broker_url or "").startswith("redis")  # options of another transport mean nothing to ours
    options = dict(conf.broker_transport_options or {}) if kept else {}
    for name in ("username", "password", "credential_provider"):
        options.pop(name, None)
    conf.update(dict.fromkeys(_BROKER, broker))
    conf.update(dict.fromkeys(_OF_ITS_OWN))
    conf.update(broker_transport_options=options, task_always_eager=False, broker_connection_retry_on_startup=True)
    os.environ.update({f"CELERY_{name.upper()}": broker for name in _BROKER})
    if results:
        conf.update(result_backend=results, result_backend_transport_options={})
        os.environ["CELERY_RESULT_BACKEND"] = results
    # What was made already has the old addresses.
    app._pool = app.amqp._producer_pool = app._backend_cache = None
    app._local = threading.local()


def strangers(app: Any, broker: str, results: str) -> list[str]:
    """The addresses that the app would use and that are not the private ones; opens no connection."""
    stores = results or "disabled://"
    used = [
        ("broker for writing", app.connection_for_write(), broker),
        ("broker for reading", app.connection_for_read(), broker),
        ("result store", app.backend, stores),
    ]
    own = ((name, getattr(task, "_backend", None)) for name, task in app.tasks.items())
    used += [(f"result store of {name}", store, stores) for name, store in own if store]
    return [f"{what} is {each.as_uri()}" for what, each, wanted in used if not is_at(each, wanted)]


def is_at(used: Any, address: str) -> bool:
    """Whether a connection, or a result store, leads there."""
    return str(used.as_uri(include_password=True)).rstrip("/") == address.rstrip("/")


# -- the fence


_SENDS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOKS_UP = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


def fence(allowed: Iterable[Place], note: Callable[[str, bool], None]) -> None:
    """From now on refuse what is neither loopback nor allowed, before a packet leaves; there is no way back.

    Args:
        note: is told each address, and whether it was let through; names that may be looked up are not told.
    """
    names, known = {"", "localhost", socket.gethostname()}, set(allowed)

    @functools.lru_cache(4096)
    def may(host: str, port: int | None) -> bool:
        """Args: port is None for a name that is looked up, 0 for an address whose name is."""
        if host in names or (host, port) in known or (host, None) in known:
            return True
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return port is None and any(host == name for name, _ in known)
        mapped = getattr(address, "ipv4_mapped", None) or address
        return mapped.is_loopback or mapped.is_unspecified or port is None  # a number needs no look-up

    def hook(event: str, args: tuple[Any, ...]) -> None:
        port: int | None
        if event in _SENDS:
            if args[0].family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(args[1], tuple):
                return  # within this machine, or connected already
            host, port = args[1][:2]
        elif event in _LOOKS_UP:
            host, port = args[0], 0 if event == "socket.gethostbyaddr" else None
        else:
            return
        host = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
        if (allowed := may(host, port)) and not port:
            return
        to = f"{host}:{port}" if port else host
        note(to, allowed)
        if not allowed:
            raise PermissionError(errno.EACCES, f"poolbench: {to} may not be reached; allow it with --allow {to}")

    sys.addaudithook(hook)
