"""Celery's events from the sweep: of worker processes that died, because a killed worker sends none; and totals.

Without them Flower shows a dead worker's jobs as STARTED until they run again, and the worker with its last figures.
The events of a round are published together on the channel of Celery's task events, the only one that the sweep's role
may publish on. The order matters: an event of a task makes Flower take its worker for alive, so worker-offline is last.

The row of a chunk's message is not the row of any of its jobs. They come back in messages of their own, so the chunk's
row ends here.
Kept true by ``tests/fault/test_last_events.py``.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from typing import Any

from redis import Redis

from ledger.jobs import JobState
from ledger.records import Keys

_AT_ONCE = 500  # events per PUBLISH


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A job whose worker process died."""

    row: str  # the ref of the message by which it was claimed, or which led its group: Flower's id of the row
    state: JobState  # QUEUED, FAILED or CANCELLED
    reason: str = ""  # if it failed


def tell_flower(redis: Redis, keys: Keys, jobs: Mapping[str, Sequence[TakenOver]], alive: Collection[str]) -> None:
    """Publish what became of the jobs of dead worker processes, and which workers are gone.

    To be called before the jobs' messages are sent: a late task-retried would hide that a job runs again.

    Args:
        jobs: by the name of the worker whose process died; the list is empty if it held none.
        alive: names of workers that have a living process.

    Raises:
        redis.RedisError: Redis is away, or its users are of a version before this one.
    """
    now, events = time.time(), []
    for worker, taken in jobs.items():
        rows: dict[str, list[TakenOver]] = {}
        for job in taken:
            rows.setdefault(job.row, []).append(job)
        found = [_event(row, group) for row, group in rows.items()]
        if worker not in alive:
            found.append({"type": "worker-offline", "active": 0})
        events += [{**event, "hostname": worker, "timestamp": now} for event in found]
    for at in range(0, len(events), _AT_ONCE):
        _publish(redis, keys, events[at : at + _AT_ONCE])


def tell_totals(redis: Redis, keys: Keys, totals: Mapping[str, Any]) -> None:
    """For Flower's page of lanes, see ``deploy/lanes_page.py``; Celery and Flower make nothing of it.

    Args:
        totals: as JSON can have it.

    Raises:
        redis.RedisError: as ``tell_flower``.
    """
    _publish(redis, keys, [{"type": "ledger-totals", "hostname": "sweep", **totals}])


def _publish(redis: Redis, keys: Keys, events: Sequence[Mapping[str, Any]]) -> None:
    redis.publish(keys.events("task.multi", redis.get_connection_kwargs().get("db", 0)), _envelope(events))


def _event(row: str, jobs: Sequence[TakenOver]) -> dict[str, Any]:
    if back := sum(job.state is JobState.QUEUED for job in jobs):
        return {"type": "task-retried", "uuid": row, "result": f"its worker process died; jobs queued again: {back}"}
    if failed := next((job for job in jobs if job.state is JobState.FAILED), None):
        return {"type": "task-failed", "uuid": row, "exception": f"failed: {failed.reason}"}
    return {"type": "task-revoked", "uuid": row, "result": "cancelled by request"}


def _envelope(events: Sequence[Mapping[str, Any]]) -> str:
    """As kombu writes it."""
    return dumps(
        {
            "body": dumps(events),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": {"delivery_info": {"exchange": "celeryev", "routing_key": "task.multi"}, "delivery_tag": ""},
        }
    )
