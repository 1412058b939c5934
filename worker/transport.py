"""kombu's Redis transport, with a check of all that arrives. It stands before kombu parses anything.

An element of a pool's queue is read by ``ledger.messages``. One that is a whole message is handed on as Downpour would
write it, so kombu and Celery see nothing else. Any other goes to the dead letters and for kombu nothing came. It is
off the queue then, and no worker puts it back.

A broadcast (remote control, events of other workers) that cannot be read or handled is dropped with a line in the log.
kombu would take the ``KeyError`` of one for a lost connection, and most other errors end the worker.

Kept true by ``tests/fault/test_malformed_messages.py``.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.json import loads
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError

from ledger.dead_letters import DeadLetters
from ledger.jobs import Pool
from ledger.messages import MalformedError, Texts, read
from ledger.redis_client import IDLE, PerProcess, connect
from ledger.settings import get_settings
from worker.celery_fixes import WritingChannel

log = logging.getLogger("downpour.worker")

_MOST_BYTES = 2**20  # of a broadcast; one of many events has some 200,000
_SHOWN = 80  # bytes of an element, in the log
_POOLS = {pool.queue: pool for pool in Pool}
_texts = Texts()


def _dead_letters() -> DeadLetters:
    settings = get_settings()
    return DeadLetters(connect(settings, connections=1), settings.key_prefix)


_kept = PerProcess(_dead_letters)


def check_what_arrives() -> None:
    """Before any connection to the broker is made."""
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = f"{__name__}:Transport"


class CheckedClient(redis.PrefixedStrictRedis):  # type: ignore[misc]
    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if command_name != "BRPOP" or not answer:
            return answer
        key, element = answer
        pool = _POOLS.get(key.decode().partition(redis.Channel.sep)[0])
        if pool is None:  # a queue for replies to remote control
            return answer
        try:
            return key, _texts.of(read(element, pool)).encode()
        except MalformedError as error:
            _keep(pool, element, str(error))
            return None  # as if BRPOP had waited in vain


def _keep(pool: Pool, element: bytes, reason: str) -> None:
    shown = element[:_SHOWN]
    log.warning("dead letter pool=%s bytes=%d reason=%.200r begins=%r", pool, len(element), reason, shown)
    try:
        _kept().keep(pool, element, reason)
    except (RedisError, OSError) as error:
        log.warning("the dead letter is not kept: %s", error)


class _Broadcast(BaseModel):
    model_config = ConfigDict(strict=True)

    body: str
    headers: dict[str, Any]
    properties: dict[str, Any]


class _ReplyTo(BaseModel):
    exchange: str
    routing_key: str


class _ControlCommand(BaseModel):
    """What remote control takes, and would log or answer at any length."""

    model_config = ConfigDict(strict=True)

    method: str = Field(max_length=100)
    arguments: dict[str, Any] | None = None
    destination: list[str] | None = None
    pattern: str | None = None
    matcher: str | None = None
    ticket: str | None = None
    reply_to: _ReplyTo | None = None


class Channel(WritingChannel):
    def _get_client(self) -> Any:
        return partial(CheckedClient, global_keyprefix=self.global_keyprefix)

    def _receive_one(self, c: Any) -> Any:
        """Receive a broadcast and handle it."""
        self._heard = b""
        try:
            return super()._receive_one(c)
        except (RedisError, OSError, Empty):  # while it was handled, and not of its own
            raise
        except Exception as error:
            log.warning("broadcast dropped channel=%.100r reason=%.200r", self._heard, str(error))
            return True

    def _handle_message(self, client: Any, r: Any) -> Any:
        payload = super()._handle_message(client, r)
        if payload["type"].endswith(b"message"):
            self._heard, data = payload["channel"], payload["data"]
            if len(data) > _MOST_BYTES:
                raise ValueError(f"expected at most {_MOST_BYTES:,} bytes, got {len(data):,}")
            broadcast = _Broadcast.model_validate(loads(data))
            if self._heard.endswith(b".pidbox"):
                body = self.decode_body(broadcast.body, broadcast.properties.get("body_encoding"))
                _ControlCommand.model_validate(loads(body))
        return payload


class Poller(redis.MultiChannelPoller):  # type: ignore[misc]
    """kombu asks the connection that hears broadcasts whether it is alive, but only where a loop has its timers."""

    _asked = 0.0  # time.monotonic()

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Not called by a loop: under gevent, and in Flower."""
        try:
            return super().get(callback, timeout)
        finally:
            if time.monotonic() - self._asked > IDLE:
                self._asked = time.monotonic()
                self.maybe_check_subclient_health()


class Transport(redis.Transport):  # type: ignore[misc]
    Channel = Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cycle = Poller()
