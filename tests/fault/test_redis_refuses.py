"""Redis answers and refuses: a failover, a full disk, a long script. Workers stay up and go on by themselves."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery
from kombu import Exchange, Queue
from redis import Redis

from ledger.jobs import Pool
from tests.fault.given import SLOTS, all_done, all_whole, pools
from tests.refusals import REFUSALS, Refusal, full_when_clients_connect, no_replicas
from tests.valkey_process import ValkeyProcess
from tests.waiting import stays, wait_for
from tests.world import World

pytestmark = pytest.mark.timeout(200)

LASTS = 6.0  # seconds of refusal, longer than a job and than a lease
JOBS = 6  # more than slots: some run, some are reserved, and the worker still asks for more


@contextmanager
def unblocked(valkey: ValkeyProcess) -> Iterator[None]:
    with valkey.client() as redis:
        for _ in range(3):
            for client in wait_for(lambda: blocked(redis), what="workers that wait for a message"):
                redis.execute_command("CLIENT UNBLOCK", client, "ERROR")
        yield


def blocked(redis: Redis) -> list[str]:
    waiting = [client["id"] for client in redis.client_list() if client["cmd"] == "brpop" and "b" in client["flags"]]
    return waiting if len(waiting) == len(Pool) else []


refusals = pytest.mark.parametrize("refusal", [*REFUSALS.values(), unblocked], ids=[*REFUSALS, "UNBLOCKED"])


@pytest.fixture
def busy(world: World) -> World:
    """All three workers in the middle of their jobs, with more jobs in their hands."""
    world.start(*Pool, slots=SLOTS)
    for pool in Pool:
        world.submit(pool, [world.paced(f"{pool}{n}", 4) for n in range(JOBS)], batch=pool)
    for pool in Pool:
        world.running(SLOTS, batch=pool, with_bytes=True)
    return world


@refusals
def test_every_worker_outlives_it_calmly_and_goes_on(busy: World, refusal: Refusal) -> None:
    services = {pool: busy.service(f"worker-{pool}") for pool in Pool}
    children = services[Pool.PREFORK].children()
    told = {pool: len(service.text()) for pool, service in services.items()}
    with refusal(busy.valkey):
        stays(lambda: not ended(busy), seconds=LASTS, what="all workers to stay up")
    for pool, service in services.items():
        records = all_done(busy, JOBS, pool, seconds=20)
        assert all(len(record.attempts) == 1 for record in records), "a running job was repeated"
        calm(service.text()[told[pool] :])
    assert not ended(busy)
    assert services[Pool.PREFORK].children() == children
    with busy.celery() as app:
        in_touch(busy, app)


def ended(world: World) -> list[Pool]:
    return [pool for pool in Pool if not world.service(f"worker-{pool}").running]


def calm(log: str) -> None:
    """A few lines on what is the matter: neither a line a second nor a traceback."""
    lines = [line for line in log.splitlines() if "INFO" not in line]
    assert len(lines) <= JOBS + 4, log
    assert "Traceback" not in log, log
    assert "Warning" not in log, log


def in_touch(world: World, app: Celery) -> None:
    """Each worker answers remote control, says that it lives, and its health file is touched."""
    services = {pool: world.service(f"worker-{pool}") for pool in Pool}
    answers = {next(iter(answer)).partition("@")[0] for answer in app.control.ping(timeout=10, limit=len(Pool))}
    assert answers == set(Pool)
    with world.valkey.client() as redis, redis.pubsub() as events:
        before = {pool: service.health.stat().st_mtime for pool, service in services.items()}
        events.psubscribe("t:/0.celeryev/*")
        heard: set[Pool] = set()

        def alive() -> bool:
            for message in iter(events.get_message, None):
                heard.update(pool for pool in Pool if f'"hostname": "{pool}@' in str(message["data"]))
            return heard == set(Pool)

        wait_for(alive, what="an event of each worker")
    wait_for(
        lambda: all(service.health.stat().st_mtime > before[pool] for pool, service in services.items()),
        what="a heartbeat of each worker",
    )


@pools
def test_a_worker_that_starts_meanwhile_waits(world: World, pool: Pool) -> None:
    world.submit(pool, [world.file(f"f{n}") for n in range(3)])
    with no_replicas(world.valkey):
        service = world.worker(pool)
        wait_for(lambda: "NOREPLICAS" in service.text() or "replicas" in service.text(), what="it to say why it waits")
        stays(lambda: service.running, seconds=3, what="it to wait")
    all_done(world, 3, seconds=20)


@pools
def test_a_full_redis_is_emptied_by_a_worker_that_connects_to_it(world: World, pool: Pool) -> None:
    """Otherwise there would never be room again."""
    world.submit(pool, [world.file(f"f{n}") for n in range(JOBS)])
    with full_when_clients_connect(world.valkey):
        world.start(pool)
        all_done(world, JOBS, seconds=30)


@pools
def test_a_worker_that_is_told_to_stop_meanwhile_stops(world: World, pool: Pool) -> None:
    world.start(pool, slots=SLOTS)
    world.submit(
        pool, [world.paced(f"f{n}", 8) for n in range(SLOTS - 1)]
    )  # a gevent worker without a slot asks nothing
    world.running(SLOTS - 1, with_bytes=True)
    service = world.service(f"worker-{pool}")
    with no_replicas(world.valkey):
        wait_for(lambda: "waits for Redis" in service.text(), what="it to hear of it")
        assert service.terminate(world.settings.grace + 10) == 0
    calm(service.text().partition(" ready.")[2])
    world.worker(pool, name="second")
    all_whole(world, SLOTS - 1)


def test_remote_control_that_cannot_be_answered_disturbs_no_worker(busy: World) -> None:
    told = {pool: len(busy.service(f"worker-{pool}").text()) for pool in Pool}
    with busy.celery() as app, app.connection() as connection, busy.valkey.client() as redis:
        # Given a question that each worker has answered, and a queue for more answers
        with redis.pubsub() as heard:
            heard.subscribe("t:/0.celery.pidbox")
            assert len(app.control.ping(timeout=10, limit=len(Pool))) == len(Pool)
            question = wait_for(
                lambda: next((m["data"] for m in iter(heard.get_message, None) if m["type"] == "message"), None)
            )
        reply_to = json.loads(b64decode(json.loads(question)["body"]))["reply_to"]
        answers = Queue("answers", Exchange(reply_to["exchange"]), routing_key=reply_to["routing_key"])
        answers(connection.default_channel).declare()
        redis.config_set("maxmemory", "1mb")
        # If it is asked again while Redis takes no answer, I expect each worker to say so once and to go on
        redis.publish("t:/0.celery.pidbox", question)
        wait_for(
            lambda: all("no answer" in busy.service(f"worker-{pool}").text() for pool in Pool),
            what="each worker to hear of it",
        )
        redis.config_set("maxmemory", "0")
        for pool in Pool:
            all_done(busy, JOBS, pool, seconds=20)
            calm(busy.service(f"worker-{pool}").text()[told[pool] :])
        in_touch(busy, app)
