"""How everybody reaches Redis: bounded in time, and never with a socket that crossed a fork."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import resources
from typing import Generic, TypeVar

from redis import BlockingConnectionPool, Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import Script
from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, ResponseError, TimeoutError
from redis.retry import Retry

from ledger.settings import Settings

T = TypeVar("T")

_SHEBANG = re.compile(r"\A#!.*\n")
_INCLUDE = re.compile(r"^--include (\w+)$", re.MULTILINE)

AWAY = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError)  # Redis may come back


def connect(settings: Settings, *, patience: float = 0.0, connections: int = 32) -> Redis:
    """A client whose every call ends: with an answer, or with a ``redis.RedisError``.

    Args:
        patience: seconds for which a call is repeated while Redis is away.
            Only for callers whose calls may be repeated; the ledger's may.
        connections: most sockets; a caller beyond them waits for one.
    """
    backoff = ExponentialWithJitterBackoff(base=0.05, cap=1.0)
    tries = int(patience / 0.7) if patience else 0  # jitter between 0.5 and 1 s once the cap is reached
    return Redis(
        connection_pool=BlockingConnectionPool.from_url(
            settings.redis_url_with_password(),
            max_connections=connections,
            timeout=settings.redis_timeout + patience,
            socket_timeout=settings.redis_timeout,
            socket_connect_timeout=settings.redis_timeout,
            socket_keepalive=True,
            health_check_interval=30,
            decode_responses=True,
            retry=Retry(backoff, tries, supported_errors=AWAY),
            retry_on_error=list(AWAY) if patience else [],
        )
    )


def flushed(redis: Redis, seconds: float) -> bool:
    """Wait until Redis has flushed to its log what this connection wrote; whether it is known to have done so."""
    try:
        return bool(redis.waitaof(num_local=1, num_replicas=0, timeout=round(seconds * 1000))[0])
    except (ResponseError, TimeoutError):  # it keeps no log, does not know the command, or does not let us ask
        return False


def load_script(redis: Redis, name: str) -> Script:
    """``lua/NAME.lua``, sent as its hash; loaded again by the client when Redis has forgotten it.

    A line ``--include NAME`` stands for the text of another file, without that file's first line if it says ``#!``.
    """
    return redis.register_script(_text(name))


def _text(name: str) -> str:
    text = resources.files("ledger").joinpath("lua", f"{name}.lua").read_text()
    return _INCLUDE.sub(lambda match: _SHEBANG.sub("", _text(match[1])), text)


class PerProcess(Generic[T]):
    """A value built on first use and built again after a fork, so that no child inherits a socket or a held lock."""

    def __init__(self, build: Callable[[], T]) -> None:
        self._build = build
        self._pid = 0

    def __call__(self) -> T:
        if self._pid != os.getpid():
            self._value, self._pid = self._build(), os.getpid()
        return self._value
