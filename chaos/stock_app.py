"""The same job in a stock Celery app: the same download function, a temp file, a rename, and Celery's own safety.

    celery -A chaos.stock_app worker -P threads -Q downloads.threads
    python -m chaos.stock_app FILE POOL BATCH  # submits a manifest, a message per job

CHAOS_PROFILE chooses how far it is tuned; CHAOS_MARKS is a folder in which each process notes what it starts and ends.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery, signals
from kombu import Exchange, Queue

from download.addresses import AddressPolicy
from download.fetch import Fetcher, Wanted
from download.threads import native_runner
from download.timeouts import Limits
from ledger.jobs import Pool, job_id
from ledger.redis_client import PerProcess
from ledger.settings import get_settings

_LATE = {"task_acks_late": True, "task_reject_on_worker_lost": True}
PROFILES: dict[str, dict[str, Any]] = {
    "default": {},
    "late": _LATE,
    "tuned": {
        **_LATE,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport_options": {
            "visibility_timeout": 20,  # more than twice the longest job
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_restore_limit": 1000,
            "polling_interval": 3,  # without it an idle gevent worker never restores
            "socket_timeout": 10,  # the default is for ever
            "socket_keepalive": True,
            "max_connections": 250,
        },
    },
}

settings = get_settings()
app = Celery("stock")
app.conf.update(
    {
        "broker_url": settings.redis_url_with_password(),
        "task_queues": [Queue(pool.queue, Exchange(pool.queue), routing_key=pool.queue) for pool in Pool],
        "task_default_queue": Pool.THREADS.queue,
        "task_ignore_result": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        **PROFILES[os.environ.get("CHAOS_PROFILE", "default")],
    }
)


def _marks() -> int:
    folder = Path(os.environ["CHAOS_MARKS"])
    return os.open(folder / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _fetcher() -> Fetcher:
    return Fetcher(AddressPolicy.from_settings(settings), user_agent=settings.user_agent, run=native_runner())


marks, fetcher = PerProcess(_marks), PerProcess(_fetcher)


def mark(letter: str, job: str) -> None:
    """One line in one write: whole, or not there."""
    os.write(marks(), f"{letter} {time.time():.4f} {job}\n".encode())


@app.task(name="chaos.download")
def download(job: str, url: str, filename: str, sha256: str, size: int) -> None:
    mark("S", job)
    temp = settings.downloads / ".partial" / f"{job}.{secrets.token_hex(4)}.part"
    final = settings.downloads / job.rpartition(".")[0] / filename
    fetcher().fetch(Wanted(url, sha256, size), temp, Limits.from_settings(settings))
    final.parent.mkdir(parents=True, exist_ok=True)
    temp.replace(final)
    temp.with_name(temp.name + ".json").unlink(missing_ok=True)  # its validators
    mark("E", job)


@signals.heartbeat_sent.connect
def _alive(**_: Any) -> None:
    if settings.health_file:
        settings.health_file.touch()


def submit() -> None:
    manifest, pool, batch = Path(sys.argv[1]), Pool(sys.argv[2]), sys.argv[3]
    with manifest.open(encoding="utf-8") as lines:
        for ordinal, line in enumerate(lines):
            job = json.loads(line)
            words = (job_id(batch, ordinal), job["url"], job["filename"], job["sha256"], job["size"])
            download.apply_async(args=words, queue=pool.queue)
            if ordinal == 50:
                manifest.with_suffix(".begun").touch()


if __name__ == "__main__":
    submit()
