"""The same work for other task queues: GET, SHA-256, write, rename. No records, no events, no checks.

Each library's worker loads this module, and so does the process that fills its queue. It runs in the environment of
requirements/bench.txt and imports nothing of Downpour's.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from typing import Any

QUEUE, REDIS = os.environ["BENCH_QUEUE"], os.environ["BENCH_REDIS"]


def save(target: str, body: bytes) -> None:
    hashlib.sha256(body).hexdigest()
    folder, name = os.path.split(target)
    part = f"{folder}.part-{name}"
    with open(part, "wb") as file:  # noqa: PTH123 - as lean as the rivals can be
        file.write(body)
    os.rename(part, target)  # noqa: PTH104


def fetcher() -> Callable[[str, str], None]:
    import urllib3  # noqa: PLC0415 - each library's worker loads what it needs

    pool = urllib3.PoolManager(maxsize=32, retries=False)

    def bring(url: str, target: str) -> None:
        answer = pool.request("GET", url)
        assert answer.status == 200, answer.status
        save(target, answer.data)

    return bring


def of_dramatiq() -> tuple[Any, Callable[[str, str], object]]:
    import dramatiq  # noqa: PLC0415
    from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415

    broker = RedisBroker(url=REDIS)
    dramatiq.set_broker(broker)
    return broker, dramatiq.actor(fetcher(), actor_name="bring").send


def of_taskiq() -> tuple[Any, Callable[[str, str], object]]:
    import asyncio  # noqa: PLC0415

    import aiohttp  # noqa: PLC0415
    from taskiq_redis import ListQueueBroker  # noqa: PLC0415

    broker = ListQueueBroker(REDIS)
    sessions: list[aiohttp.ClientSession] = []

    @broker.task(task_name="bring")
    async def bring(url: str, target: str) -> None:
        if not sessions:
            sessions.append(aiohttp.ClientSession())
        async with sessions[0].get(url) as answer:
            save(target, await answer.read())

    loop = asyncio.new_event_loop()
    return broker, lambda url, target: loop.run_until_complete(bring.kiq(url, target))


def of_huey() -> tuple[Any, Callable[[str, str], object]]:
    from huey import RedisHuey  # noqa: PLC0415

    broker = RedisHuey("bench", url=REDIS, results=False)
    return broker, broker.task()(fetcher())


def of_celery() -> tuple[Any, Callable[[str, str], object]]:
    from celery import Celery  # noqa: PLC0415

    broker = Celery("bench", broker=REDIS)
    broker.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)
    return broker, broker.task(name="bring")(fetcher()).delay


OF = {"dramatiq": of_dramatiq, "taskiq": of_taskiq, "huey": of_huey, "celery": of_celery}
broker, send = OF[QUEUE.partition("-")[0]]()


def fill(target: str) -> None:
    for number, url in enumerate(sys.stdin.read().split()):
        send(url, os.path.join(target, str(number)))  # noqa: PTH118
