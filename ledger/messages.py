"""How a message gets on a queue: Celery's envelope, in the form that kombu gives it in Redis.

Of the envelope's headers those are left out that say nothing: Celery reads them as what they would have said. That and
a body in plain text make 400 bytes of 1,000, and writing it ourselves takes a tenth of the time that kombu takes.
``tests/service/test_messages.py`` compares what a worker sees of such a message with what it sees of Celery's own.

The settings of the broker connection live here because the worker, the producer and the sweep must agree on them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from json import dumps
from typing import Any
from urllib.parse import urlsplit

from kombu import Exchange, Queue

from ledger.connection import connect
from ledger.jobs import TASK_NAME, Job, Pool
from ledger.ledger import Ledger
from ledger.settings import Settings

_AT_ONCE = 500  # messages per call: a few milliseconds of Redis' time


def broker_options(settings: Settings) -> dict[str, Any]:
    """Celery's settings for the broker, each with its why."""
    return {
        "broker_url": settings.redis_url_with_password(),
        "task_queues": [Queue(pool.queue, Exchange(pool.queue), routing_key=pool.queue) for pool in Pool],
        "task_default_queue": Pool.THREADS.queue,  # never used; without it Celery would declare one named "celery"
        "task_default_exchange": Pool.THREADS.queue,
        "task_serializer": "json",
        "accept_content": ["json"],  # nothing that could run code
        "broker_transport_options": {
            "global_keyprefix": settings.key_prefix,  # several Downpours, or others, on one Redis
            "socket_timeout": settings.redis_timeout,  # the default is for ever
            "socket_connect_timeout": settings.redis_timeout,
            "socket_keepalive": True,
            "health_check_interval": 25,
            # No books in Redis of what workers have in hand: the ledger has them; see ``worker.broker``.
            "ack_emulation": False,
            # Who tells of an event asks for a connection once; the default is to ask for four seconds, in the middle of
            # a job. Whoever needs the broker (the worker's own loop) is patient by other settings.
            "max_retries": 0,
        },
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message to send."""

    ref: str
    pool: Pool
    label: str  # what Flower shows for it


def label(job: Job, more: int = 0) -> str:
    """``Demo_Video.mp4 from origin:8080``: the host without credentials, never the query with its tokens."""
    parts = urlsplit(job.url)
    host = parts.netloc.rpartition("@")[2]
    return f"{job.filename} from {host}" + (f" and {more} more" if more else "")


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


class Publisher:
    """Sends messages; one per thread."""

    def __init__(self, settings: Settings) -> None:
        self._ledger = Ledger(connect(settings, connections=1), settings.key_prefix)
        self._texts = Texts()

    def send(self, envelopes: Iterable[Envelope], *, front: bool = False) -> None:
        """Put messages on their queues, in order, unless nobody waits for them any more.

        The task's id is the ref, so a message sent again is the same row in Flower.

        Raises:
            redis.RedisError: Redis is away or full. Messages may be missing then; the sweep sends them, because
                their jobs are in the ledger.
        """
        groups: dict[Pool, list[tuple[str, str]]] = {}
        for envelope in envelopes:
            group = groups.setdefault(envelope.pool, [])
            group.append((envelope.ref, self._texts.of(envelope)))
            if len(group) == _AT_ONCE:
                self._ledger.send(envelope.pool, group, front=front)
                group.clear()
        for pool, group in groups.items():
            self._ledger.send(pool, group, front=front)

    def close(self) -> None:
        self._ledger.redis.close()
