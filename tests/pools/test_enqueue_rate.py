"""How fast jobs are submitted, ledger first, beside kombu's fastest way without any ledger.

Time on this machine is shared, so what is compared is processor time, the producer's and Redis' added up: as they take
turns, its inverse is the rate of an idle machine. The ways are measured in turn, and the medians are compared.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from statistics import median

import psutil
import pytest
from celery import Celery

from ledger.connection import connect
from ledger.jobs import TASK_NAME, Job, Pool
from ledger.messages import broker_options
from ledger.settings import Settings
from producer.client import Client
from tests.valkey_process import ValkeyProcess

JOBS, ROUNDS = 10_000, 3
LEAST = {1: 10_000, 50: 50_000}  # jobs per second by jobs per message; measured: 24,000 to 26,000 and 72,000 to 84,000


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
def test_ten_thousand_jobs_per_second_one_per_message_and_fifty_thousand_at_fifty(
    settings: Settings, valkey: ValkeyProcess
) -> None:
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
    rates = {name: 1 / median(costs) for name, costs in cost.items()}
    print({name: f"{rate:,.0f} jobs/s" for name, rate in rates.items()})
    assert rates["1"] >= LEAST[1]
    assert rates["50"] >= LEAST[50]
    assert rates["1"] > rates["kombu"], "with the ledger it costs more than kombu without one"
