"""The client of Redis that all processes share: bounded in time, and never with a socket that crossed a fork."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import resources
from typing import Any, Generic, TypeVar

from redis import BlockingConnectionPool, Redis
from redis._parsers import BaseParser
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from redis.retry import Retry

from ledger.settings import Settings

T = TypeVar("T")

_INCLUDE = re.compile(r"^--include (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n|\s+-- .*$", re.MULTILINE)
_FUNCTION = re.compile(
    r"^(?:local function |function (commands)\.)(\w+)\([^)]*\)(?: .+\n|\n(?:.*\n)*?end\n)", re.MULTILINE
)

_TOLD_TO = 0.001  # seconds: Redis' scripts cut their moments to milliseconds
AT_ONCE = 500  # jobs or messages that one call names: a few milliseconds of Redis' time
AWAY = (ConnectionError, TimeoutError)  # Redis may come back
QUICK = 2.0  # seconds for the answer to a question that is asked again in a second anyway

# A network may drop a connection that is idle, and say so to neither end. What was idle for this long is not trusted,
IDLE = 3  # seconds
# ... and the system asks the other end: one that does not answer is gone after 7 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2}
KEEPALIVE = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


class RedisRefusedError(ConnectionError):
    """Redis answers, and for now takes no writes or nothing at all: a failover, a full disk, a long script.

    ``status_code`` is the first word of its answer. The connection is given up: after a failover its other end stays
    a replica, while the same address leads to the new primary.
    """


class RedisFullError(RedisRefusedError):
    """Redis takes nothing that needs more memory. Everything else works, leases included."""


# redis-py takes most of these for errors of a command. Set for all clients, since kombu makes the broker's.
_REFUSALS = ("READONLY", "UNBLOCKED", "MASTERDOWN", "NOREPLICAS", "MISCONF", "BUSY", "LOADING")
BaseParser.EXCEPTION_CLASSES.update(dict.fromkeys(_REFUSALS, RedisRefusedError), OOM=RedisFullError)


def connect(
    settings: Settings,
    *,
    patience: float = 0.0,
    connections: int = 32,
    stop: Callable[[], bool] = lambda: False,
    quick: bool = False,
) -> Redis:
    """A client whose every call ends: with an answer, or with a ``redis.RedisError``.

    Args:
        patience: seconds for which a call is repeated while Redis is away.
            Only for callers whose calls may be repeated; the ledger's may.
        stop: asked while Redis is away; once it says so, patience is over.
        connections: most sockets; a caller beyond them waits for one.
        quick: an answer that takes longer than ``QUICK`` is not waited for.
    """
    url = settings.redis_url_with_password()
    tcp = {} if url.startswith("unix:") else {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
    return Redis.from_pool(  # which closes its connections when it is closed
        _FreshConnections.from_url(
            url,
            max_connections=connections,
            timeout=settings.redis_timeout,
            socket_timeout=min(settings.redis_timeout, QUICK) if quick else settings.redis_timeout,
            socket_connect_timeout=settings.redis_timeout,
            health_check_interval=IDLE,
            **tcp,
            decode_responses=True,
            retry=_Patient(patience, stop),
            retry_on_error=list(AWAY) if patience else [],
        )
    )


_inside: ContextVar[bool] = ContextVar("inside a call that is repeated", default=False)


@contextmanager
def once() -> Iterator[None]:
    """Calls made in here are not repeated, however patient their client is."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


class _Patient(Retry):
    """Repeats a call while Redis is away, for so many seconds altogether.

    redis-py repeats connecting with the same object, within the call that needs the connection. Without ``once`` the
    tries would multiply.
    """

    def __init__(self, seconds: float, stop: Callable[[], bool]) -> None:
        super().__init__(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 0, supported_errors=AWAY)
        self._seconds = seconds
        self._stop = stop

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        if _inside.get():
            return super().call_with_retry(do, fail, is_retryable, with_failure_count)
        until, failures = time.monotonic() + self._seconds, 0
        with once():
            while True:
                try:
                    return super().call_with_retry(do, fail, is_retryable, with_failure_count)
                except AWAY as error:
                    failures += 1
                    over = time.monotonic() >= until or self._stop()
                    if over or (is_retryable and not is_retryable(error)):
                        raise
                time.sleep(self._backoff.compute(failures))


class _FreshConnections(BlockingConnectionPool):
    """As patient with making a connection ready as with a command; one that was idle is made anew."""

    def get_connection(self, *args: Any, **options: Any) -> Any:
        take, retry = super().get_connection, self.connection_kwargs["retry"]

        def ready() -> Any:
            connection: Any = take(*args, **options)  # type: ignore[no-untyped-call]
            try:
                if time.monotonic() > connection.next_health_check:
                    connection.disconnect()
                    connection.connect()
            except BaseException:
                self.release(connection)  # type: ignore[no-untyped-call]
                raise
            return connection

        return retry.call_with_retry(ready, lambda _error: None)


def flushed(redis: Redis, seconds: float) -> bool:
    """Wait until Redis has flushed to its log what this connection wrote; False if that is not known."""
    try:
        return bool(redis.waitaof(num_local=1, num_replicas=0, timeout=round(seconds * 1000))[0])
    except (ResponseError, TimeoutError):  # it keeps no log, does not know the command, or does not let us ask
        return False


def eviction_policy(redis: Redis) -> str | None:
    """By which rule Redis removes keys when it is full; None if it removes none, or does not tell."""
    try:
        policy = redis.info("memory").get("maxmemory_policy", "noeviction")
    except ResponseError:  # it does not let us ask
        return None
    return None if policy == "noeviction" else str(policy)


def removes_jobs(policy: str) -> bool:
    """Whether it may remove any key, not only those with a time to live, of which no job is one."""
    return policy.startswith("allkeys")


def eviction_warning(policy: str) -> str:
    loses = "jobs and whole batches" if removes_jobs(policy) else "rate limits of hosts"
    return (
        f"Redis removes keys when it is full: expected maxmemory-policy noeviction, got {policy}, "
        f"which can lose {loses} without a word. Set it with "
        "`redis-cli CONFIG SET maxmemory-policy noeviction`, or at your provider"
    )


class Library:
    """The commands of ``lua/NAME.lua``: each a script, sent as its hash, loaded again when Redis has forgotten it.

    A line ``--include NAME`` stands for the text of another file. A Redis without memory takes all commands but those
    that are named as ``refused_when_full``.
    """

    def __init__(self, redis: Redis, prefix: str, name: str, *, refused_when_full: Collection[str] = ()) -> None:
        self._redis = redis
        self._name = name
        self._refused_when_full = refused_when_full
        self._prefix = prefix
        self._scripts: dict[str, Any] = {}

    def __call__(self, command: str, *args: Any, client: Redis | None = None) -> Any:
        if (script := self._scripts.get(command)) is None:
            flags = "" if command in self._refused_when_full else " flags=allow-oom"
            text = f"#!lua{flags}\n{_needed(self._name, command)}"
            script = self._scripts[command] = self._redis.register_script(text)
        return script(args=[self._prefix, command, *args], client=client)


def _text(name: str) -> str:
    text = resources.files("ledger").joinpath("lua", f"{name}.lua").read_text()
    return _INCLUDE.sub(lambda match: _text(match[1]), text)


@cache
def _parts(name: str) -> list[tuple[str | None, str, str]]:
    """A library in its order: functions (whether it is a command, its name, its text) and what stands between them."""
    text = _COMMENT.sub("", _text(name))
    parts: list[tuple[str | None, str, str]] = []
    at = 0
    for found in _FUNCTION.finditer(text):
        parts += [(None, "", text[at : found.start()]), (found[1], found[2], found[0])]
        at = found.end()
    return [*parts, (None, "", text[at:])]


def _needed(name: str, command: str) -> str:
    """What one command needs of its library. Redis makes every function of a script anew with each call: all of them
    take 20 µs, several times as long as most commands."""
    used: set[str] = set()
    needed: list[str] = []
    for of_commands, function, text in reversed(_parts(name)):  # a function is used only below
        if not function or (function == command if of_commands else function in used):
            used.update(re.findall(r"\w+", text))
            needed.append(text)
    return "".join(reversed(needed))


class PerProcess(Generic[T]):
    """A value built on first use and built again after a fork, so that no child inherits a socket or a held lock."""

    def __init__(self, build: Callable[[], T]) -> None:
        self._build = build
        self._pid = 0

    def __call__(self) -> T:
        if self._pid != os.getpid():
            self._value, self._pid = self._build(), os.getpid()
        return self._value


class RedisClock:
    """What to add to ``time.monotonic()`` for the time by Redis' clock.

    Redis read its clock between question and answer, so both bound what is to be added. The quickest answer so far
    decides: a slow one changes nothing, and a clock that jumped or drifts is followed.
    """

    def __init__(self) -> None:
        self._known: float | None = None

    def learn(self, told: float, asked: float, answered: float) -> float:
        """Seconds to add, after an answer.

        Args:
            told: Redis' time in the answer, seconds since the epoch.
            asked, answered: ``time.monotonic()`` before and after.
        """
        least, most = told - answered, told + _TOLD_TO - asked
        self._known = least if self._known is None else min(max(self._known, least), most)
        return self._known
