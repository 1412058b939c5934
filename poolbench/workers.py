"""When each job's message was received by a worker's main process, from Celery's own events during a run.

Between the ledger's two moments, queued and claimed, this one separates the time in the queue from the time in the
worker. Celery stamps an event with ``time.time()`` of the worker's host, whose clock may be hours off. The event with
the smallest difference between arrival and stamp gives that of the clocks, to some milliseconds. Events may be lost,
and a Redis that does not let us subscribe gives none: then nothing is known, and nothing else changes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

_EVENTS = ("task.multi", "task.received")  # Celery sends task events in groups
_PATIENCE = 0.2  # seconds between two looks whether it is over
ON_THE_WAY = 0.05  # seconds that the quickest event may have taken: clocks that differ by less are taken to be one


class Arrivals:
    """Args: redis is used by this thread alone; prefix is the broker's."""

    def __init__(self, redis: Redis, prefix: str, database: int = 0) -> None:
        self._channels = [f"{prefix}/{database}.celeryev/{event}" for event in _EVENTS]
        self._redis = redis
        self._over = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="arrivals", daemon=True)
        self._said: dict[str, tuple[str, float]] = {}  # job id: the worker's host, and its time.time()
        self._late: dict[str, float] = {}  # host: seconds from what its clock said to when ours heard it, the least

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(2.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.wait(_PATIENCE)  # the last group may be on its way
        self._over.set()
        self._thread.join(2.0)

    def ahead(self) -> dict[str, float]:
        """Seconds by which the clocks of hosts that were heard are ahead of ours."""
        ours = socket.gethostname()
        late = self._late.copy()
        return {host: 0.0 if host == ours or abs(by) < ON_THE_WAY else -by for host, by in late.items()}

    def moments(self) -> dict[str, float]:
        """When each job was received, in seconds since the epoch by our clock."""
        said, ahead = self._said.copy(), self.ahead()  # copies, in this order: the thread may still listen
        return {job: moment - ahead[host] for job, (host, moment) in said.items()}

    def _listen(self) -> None:
        heard: PubSub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        with contextlib.suppress(RedisError, OSError), heard:
            heard.subscribe(*self._channels)
            heard.get_message(timeout=1.0)
            self._ready.set()
            while not self._over.is_set():
                message = heard.get_message(timeout=_PATIENCE)
                now = time.time()
                for event in events(message["data"]) if message else ():
                    self._note(event, now)
        self._ready.set()

    def _note(self, event: dict[str, Any], now: float) -> None:
        host, moment = str(event.get("hostname")).partition("@")[2], event.get("timestamp")
        if not isinstance(moment, int | float):
            return
        self._late[host] = min(self._late.get(host, now - moment), now - moment)
        if event.get("type") == "task-received":
            self._said.setdefault(str(event.get("uuid")), (host, moment))


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
