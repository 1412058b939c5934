"""How fast jobs are submitted, ledger first, beside kombu's fastest way without any ledger.

What is compared is processor time, the producer's and Redis' added up: as they take turns, its inverse is the rate of
an idle machine. The ways take turns, and each round gives ratios of its own: how fast the machine is falls out of them,
and jobs per second are for ``python -m benchmarks enqueue``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from statistics import median

import psutil
import pytest
from celery import Celery

from ledger.jobs import TASK_NAME, Job, Pool
from ledger.messages import broker_options
from ledger.redis_client import connect
from ledger.settings import Settings
from producer.client import Client
from tests.valkey_process import ValkeyProcess

JOBS, ROUNDS = 10_000, 5
LEAST = {"1": 1.2, "50": 4.0}  # times kombu's rate, by jobs per message; measured: 1.6 to 2.6 and 4.8 to 7.4


def job(number: int) -> Job:
    url = f"https://downloads.example.org/releases/2026/some-project/artifact-{number:06d}.bin"
    return Job(url, url.rpartition("/")[2], hashlib.sha256(url.encode()).hexdigest(), 1_000_000 + number)


def by_kombu(app: Celery) -> None:
    with app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=500):
        for number in range(JOBS):
            ref = f"b.{number}"
            message = app.amqp.as_task_v2(ref, TASK_NAME, args=(ref,), argsrepr="", kwargsrepr="", ignore_result=True)
            app.amqp.send_task_message(producer, TASK_NAME, message, declare=[], retry=False, queue=Pool.THREADS.queue)


@pytest.mark.timeout(180)
def test_ledger_first_is_faster_than_kombu_without_a_ledger(settings: Settings, valkey: ValkeyProcess) -> None:
    app = Celery("downpour", set_as_current=False)
    app.conf.update(broker_options(settings))
    client, redis = Client(settings), connect(settings)
    jobs = [job(number) for number in range(JOBS)]
    server = psutil.Process(valkey.pid)

    def spent(way: Callable[[], object]) -> float:
        """Processor seconds per job."""
        redis.flushall()
        before = time.process_time() + sum(server.cpu_times()[:2])
        way()
        return (time.process_time() + sum(server.cpu_times()[:2]) - before) / JOBS

    ways: dict[str, Callable[[], object]] = {
        "kombu": lambda: by_kombu(app),
        "1": lambda: list(client.submit("b", jobs, [Pool.THREADS], 1)),
        "50": lambda: list(client.submit("b", jobs, [Pool.THREADS], 50)),
    }
    cost: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            cost[name].append(spent(way))
    times = {way: median(kombu / ours for kombu, ours in zip(cost["kombu"], cost[way], strict=True)) for way in LEAST}
    print({way: f"{1 / median(costs):,.0f} jobs/s" for way, costs in cost.items()}, times)
    assert {way: ratio for way, ratio in times.items() if ratio < LEAST[way]} == {}
