"""How a message gets on a queue: exactly Celery's envelope, through kombu, in batches.

The settings of the broker connection live here because the worker, the producer and the sweep must agree on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import KombuError, OperationalError

from ledger.connection import connect
from ledger.jobs import TASK_NAME, Job, Pool
from ledger.ledger import Ledger
from ledger.settings import Settings

_AT_ONCE = 500  # messages per pipeline
# Straight to the queue: it needs no declaration (a quarter of the time), and no retry that would outlast our bounds.
_DIRECT: dict[str, Any] = {"declare": [], "retry": False}


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
            # It only guards messages that a worker reserved and did not start; the sweep is there first.
            "visibility_timeout": 24 * 3600,
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


class Publisher:
    """Sends messages; one per thread."""

    def __init__(self, settings: Settings) -> None:
        self._app = Celery("downpour", set_as_current=False)
        self._app.conf.update(broker_options(settings))
        self._ledger = Ledger(connect(settings, connections=1), settings.key_prefix)

    def send(self, envelopes: Iterable[Envelope]) -> None:
        """Put messages on their queues, in order, and tell the ledger that they are there.

        Raises:
            kombu.exceptions.OperationalError, redis.RedisError: Redis is away or full. Messages may be missing
            then; the sweep sends them, because their jobs are in the ledger.
        """
        sent: dict[Pool, list[str]] = {}
        try:
            with self._app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=_AT_ONCE):
                for envelope in envelopes:
                    self._send(producer, envelope)
                    sent.setdefault(envelope.pool, []).append(envelope.ref)
        except KombuError as error:  # a batch that breaks is no OperationalError to kombu; to us it is
            raise OperationalError(f"{error}: {error.__cause__}" if error.__cause__ else str(error)) from error
        for pool, refs in sent.items():
            for at in range(0, len(refs), _AT_ONCE):
                self._ledger.sent(pool, refs[at : at + _AT_ONCE])

    def _send(self, producer: Any, envelope: Envelope) -> None:
        message = self._app.amqp.as_task_v2(
            envelope.ref,  # the task's id: a message sent again is the same row in Flower
            TASK_NAME,
            args=(envelope.ref,),
            argsrepr="",
            kwargsrepr=envelope.label,
            shadow=f"download ({envelope.pool})",
            ignore_result=True,
        )
        self._app.amqp.send_task_message(producer, TASK_NAME, message, **_DIRECT, queue=envelope.pool.queue)

    def close(self) -> None:
        self._app.close()
