"""When each job's message was received by a worker's main process: Celery's own events, heard while a turn runs.

Between the ledger's two moments, queued and claimed, this one tells the queue's part from the worker's: its pool, its
hands that were full. Celery says it with ``time.time()`` of the worker's machine, the ledger counts by Redis' clock;
the caller puts it between the two. Events may be lost, and a Redis that does not let us listen gives none: then nothing
is known, and nothing else changes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

_EXCHANGE = "celeryev"
_EVENTS = ("task.multi", "task.received")  # Celery sends task events in groups
_PATIENCE = 0.2  # seconds between two looks whether it is over


class Arrivals:
    """Args: redis is used by this thread alone; prefix is the broker's."""

    def __init__(self, redis: Redis, prefix: str, database: int = 0) -> None:
        self._channels = [f"{prefix}/{database}.{_EXCHANGE}/{event}" for event in _EVENTS]
        self._redis = redis
        self._over = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="arrivals", daemon=True)
        self.moments: dict[str, float] = {}  # job id: time.time() of the worker's machine

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(2.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.wait(_PATIENCE)  # the last group may be on its way
        self._over.set()
        self._thread.join(2.0)

    def _pubsub(self) -> PubSub:
        return self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call, no-any-return]

    def _listen(self) -> None:
        with contextlib.suppress(RedisError, OSError), self._pubsub() as heard:
            heard.subscribe(*self._channels)
            heard.get_message(timeout=1.0)
            self._ready.set()
            while not self._over.is_set():
                message = heard.get_message(timeout=_PATIENCE)
                for event in events(message["data"]) if message else ():
                    if event.get("type") == "task-received":
                        self.moments.setdefault(str(event["uuid"]), float(event["timestamp"]))
        self._ready.set()


def events(text: str | bytes) -> Iterator[dict[str, Any]]:
    """What kombu's envelope holds: an event, or a list of them; nothing if it is neither."""
    try:
        envelope = json.loads(text)
        body = envelope["body"]
        if envelope["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        found = json.loads(body)
    except (ValueError, KeyError, TypeError):
        return
    yield from (each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict))
