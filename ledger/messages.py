"""How a message gets on a queue: Celery's envelope, in the form that kombu gives it in Redis.

Of the envelope's headers those are left out that say nothing: Celery reads them as what they would have said. That and
a body in plain text make 400 bytes of 1,000, and writing it ourselves takes a tenth of the time that kombu takes.
``tests/service/test_messages.py`` compares what a worker sees of such a message with what it sees of Celery's own.

What comes off a queue is read here too, before kombu sees it: any client of Redis can put anything there.
``tests/fault/test_malformed_messages.py`` shows what is refused.

The settings of the broker connection live here because the worker, the producer and the sweep must agree on them.
"""

from __future__ import annotations

import binascii
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from json import dumps
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from redis.connection import FALSE_STRINGS

from ledger.jobs import TASK_NAME, Job, Pool, Ref, job_id
from ledger.ledger import Ledger
from ledger.redis_client import AT_ONCE, IDLE, KEEPALIVE, QUICK, connect
from ledger.settings import Settings

_MOST_BYTES = 65_536  # of a message
_HOST = re.compile(r"[A-Za-z0-9+.-]*://(?:[^/?#]*@)?([^/?#]*)")  # urlsplit takes ten times as long
_LABEL = 2000  # characters; a message with the longest label has less than half of those bytes


def broker_options(settings: Settings) -> dict[str, Any]:
    """Celery's settings for the broker, each with its why."""
    from kombu import Exchange, Queue  # noqa: PLC0415 - a producer that submits needs no kombu, which is slow to import

    url, tls = _for_kombu(settings.redis_url_with_password())
    return {
        "broker_url": url,
        "broker_use_ssl": tls,
        # Objects, because Flower's page of the broker reads their names.
        "task_queues": [Queue(pool.queue, Exchange(pool.queue), routing_key=pool.queue) for pool in Pool],
        "task_default_queue": Pool.THREADS.queue,  # never used; without it Celery would declare one named "celery"
        "task_default_exchange": Pool.THREADS.queue,
        "task_serializer": "json",
        "accept_content": ["json"],  # nothing that could run code
        "broker_transport_options": {
            "global_keyprefix": settings.key_prefix,  # several Downpours, or others, on one Redis
            "socket_timeout": min(settings.redis_timeout, QUICK),  # the default is for ever
            "socket_connect_timeout": settings.redis_timeout,
            "socket_keepalive": True,
            "socket_keepalive_options": KEEPALIVE,
            "health_check_interval": IDLE,
            "ack_emulation": False,  # no unacked tracking: the ledger has its own; see ``worker.celery_fixes``
            # An event asks for a connection once; the default is to ask for four seconds, in the middle of a job. The
            # worker's own loop is patient by other settings.
            "max_retries": 0,
        },
    }


def _for_kombu(url: str) -> tuple[str, dict[str, Any] | None]:
    """The URL as kombu writes it, and its TLS options: kombu verifies nothing unless it is told to, redis-py all."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    tls: dict[str, Any] = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if parts.scheme == "unix":
        return urlunsplit(parts._replace(scheme="redis+socket", query=f"virtual_host={options.get('db', 0)}")), None
    if parts.scheme == "rediss":
        tls = {"ssl_cert_reqs": "required", **tls}
        tls["ssl_check_hostname"] = tls.get("ssl_check_hostname", "").upper() not in FALSE_STRINGS
    path = f"/{options['db']}" if "db" in options else parts.path
    return urlunsplit(parts._replace(path=path, query="")), tls or None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message to send."""

    ref: str
    pool: Pool
    label: str  # what Flower shows for it


def label(job: Job, more: int = 0) -> str:
    """``Demo_Video.mp4 from origin:8080``: the host without credentials, never the query with its tokens."""
    host = match[1] if (match := _HOST.match(job.url)) else ""
    shown = f"{job.filename} from {host}"[:_LABEL].encode(errors="replace").decode()  # a record may have any text
    return shown + (f" and {more} more" if more else "")


def envelopes_of(ledger: Ledger, refs: Mapping[str, Pool]) -> list[Envelope]:
    """Messages for jobs that the ledger knows. Without a record of the first job, or a ref that can be read: none."""
    parsed: list[tuple[Ref, Pool]] = []
    for text, pool in refs.items():
        with suppress(ValueError):
            parsed.append((Ref.parse(text), pool))
    jobs = {record.id: record.job for record in ledger.read(job_id(ref.batch, ref.first) for ref, _ in parsed)}
    return [
        Envelope(str(ref), pool, label(job, ref.last - ref.first))
        for ref, pool in parsed
        if (job := jobs.get(job_id(ref.batch, ref.first)))
    ]


class Texts:
    """Writes messages as text: the parts that all of them share are made once."""

    def __init__(self) -> None:
        self._mark = secrets.token_urlsafe(6)
        self._tags = count()
        self._tails = {pool: _tail(pool) for pool in Pool}

    def of(self, envelope: Envelope) -> str:
        # A ref has no character that JSON would write in another way; a label may have.
        ref, tag = envelope.ref, f"{self._mark}{next(self._tags):x}"
        return (
            f'{{"body":"[[\\"{ref}\\"],{{}},{{}}]",{_TYPE},"headers":{{{_HEAD},"id":"{ref}",'
            f'"kwargsrepr":{dumps(envelope.label)},{self._tails[envelope.pool]},"delivery_tag":"{tag}"}}}}'
        )


_TYPE = '"content-encoding":"utf-8","content-type":"application/json"'
_HEAD = f'"lang":"py","task":"{TASK_NAME}","argsrepr":""'


def _tail(pool: Pool) -> str:
    route = f'{{"exchange":"","routing_key":"{pool.queue}"}}'
    return f'"shadow":"download ({pool})"}},"properties":{{"priority":0,"delivery_info":{route}'


class MalformedError(ValueError):
    """An element of a queue that is no message of Downpour, or not a whole one. Says what was expected."""


class _Strict(BaseModel):
    """Part of a message. Keys that are not named are left out: nothing reads them."""

    model_config = ConfigDict(strict=True)


class _TaskHeaders(_Strict):
    task: str
    id: str
    kwargsrepr: str = ""
    # What would make Celery wait, drop the message, decode its body in another way or call other tasks.
    eta: None = None
    expires: None = None
    retries: Literal[0] = 0
    timelimit: tuple[None, None] | None = None
    group: None = None
    stamped_headers: None = None
    stamps: Annotated[dict[str, Any], Field(max_length=0)] = {}
    compression: None = None


class _DeliveryInfo(_Strict):
    exchange: str
    routing_key: str


class _Properties(_Strict):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    body_encoding: Literal["base64", "utf-8"] | None = None


class _PutBack(_Strict):
    """How kombu writes a body that it had decoded: that of a message which a stopping worker put back."""

    type: Literal["bytes"] = Field(alias="__type__")
    value: str = Field(alias="__value__")


class _Element(_Strict):
    body: str | _PutBack
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _TaskHeaders
    properties: _Properties


class _Embed(_Strict):
    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


_BODY = TypeAdapter(tuple[tuple[str], Annotated[dict[str, Any], Field(max_length=0)], _Embed])


def read(element: bytes, pool: Pool) -> Envelope:
    """What an element of the pool's queue says, if it is a whole message of this Downpour or an older one.

    Raises:
        MalformedError: it is not.
    """
    if len(element) > _MOST_BYTES:
        raise MalformedError(f"expected at most {_MOST_BYTES:,} bytes, got {len(element):,}")
    place = ""
    try:
        message = _Element.model_validate_json(element)
        _expect("headers.task", TASK_NAME, message.headers.task)
        _expect("properties.delivery_info.routing_key", pool.queue, message.properties.delivery_info.routing_key)
        place = "body: "
        content: str | bytes
        if isinstance(message.body, _PutBack):
            content = message.body.value
        elif message.properties.body_encoding == "base64":
            content = binascii.a2b_base64(message.body, strict_mode=True)
        else:
            content = message.body
        (text,), _, _ = _BODY.validate_json(content, strict=True)
        ref = Ref.parse(text)
    except ValueError as error:
        raise MalformedError(place + _first(error)) from error
    _expect("headers.id", text, message.headers.id)
    return Envelope(str(ref), pool, message.headers.kwargsrepr)


def _expect(place: str, expected: str, got: str) -> None:
    if got != expected:
        raise MalformedError(f"{place}: expected {expected}, got {got!r}")


def _first(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, detail["loc"])), detail["msg"])))


class Publisher:
    """Sends messages; one per thread."""

    def __init__(self, settings: Settings) -> None:
        self._ledger = Ledger(connect(settings, connections=1), settings.key_prefix)
        self._texts = Texts()

    def send(self, envelopes: Iterable[Envelope], *, front: bool = False) -> None:
        """Put messages on their queues, in order, unless no job of theirs waits for them any more.

        The task's id is the ref, so a message sent again is the same row in Flower.

        Raises:
            redis.RedisError: Redis is away or full. Messages may be missing then; the sweep sends them, because
                their jobs are in the ledger.
        """
        texts: dict[Pool, list[tuple[str, str]]] = {pool: [] for pool in Pool}
        for envelope in envelopes:
            texts[envelope.pool].append((envelope.ref, self._texts.of(envelope)))
        for pool, pairs in texts.items():
            for at in range(0, len(pairs), AT_ONCE):
                self._ledger.send(pool, pairs[at : at + AT_ONCE], front=front)

    def close(self) -> None:
        self._ledger.redis.close()
