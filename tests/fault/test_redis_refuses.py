"""Redis answers and refuses: a failover, a full disk, a long script, a long load. Workers stay up and go on by themselves."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from celery import Celery
from kombu import Exchange, Queue
from redis import Redis
from redis.exceptions import RedisError

from ledger.jobs import Pool
from ledger.messages import broker_options
from tests.fault.given import SLOTS, all_done, pools
from tests.valkey_process import ValkeyProcess
from tests.waiting import stays, wait_for
from tests.world import World

pytestmark = pytest.mark.timeout(200)

LASTS = 6.0  # seconds of refusal, longer than a job and than a lease
JOBS = 6  # more than slots: some run, some are reserved, and the worker still asks for more


@contextmanager
def a_replica(world: World, **options: str) -> Iterator[None]:
    """A failover as the old primary sees it; what blocks on it is told UNBLOCKED."""
    with world.valkey.client() as redis:
        for name, value in options.items():
            redis.config_set(name.replace("_", "-"), value)
        redis.replicaof("127.0.0.1", "1")  # where nothing listens
        yield
        redis.replicaof("NO", "ONE")


def a_replica_without_its_primary(world: World) -> AbstractContextManager[None]:
    return a_replica(world, replica_serve_stale_data="no")


@contextmanager
def unblocked(world: World) -> Iterator[None]:
    with world.valkey.client() as redis:
        for _ in range(3):
            for client in wait_for(lambda: blocked(redis), what="workers that wait for a message"):
                redis.execute_command("CLIENT UNBLOCK", client, "ERROR")
        yield


def blocked(redis: Redis) -> list[str]:
    waiting = [client["id"] for client in redis.client_list() if client["cmd"] == "brpop" and "b" in client["flags"]]
    return waiting if len(waiting) == len(Pool) else []


@contextmanager
def no_replicas(world: World) -> Iterator[None]:
    with world.valkey.client() as redis:
        redis.config_set("min-replicas-to-write", "1")
        yield
        redis.config_set("min-replicas-to-write", "0")


@contextmanager
def unsaved(world: World) -> Iterator[None]:
    """A snapshot that cannot be written, as on a full disk: writes and PING are answered MISCONF."""
    with world.valkey.client() as redis:
        folder = Path(redis.config_get("dir")["dir"])
        (folder / "dump.rdb" / "in-the-way").mkdir(parents=True)
        redis.config_set("save", "3600 1")
        redis.bgsave()
        wait_for(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", what="the snapshot to fail")
        yield
        redis.config_set("save", "")


@contextmanager
def a_long_script(world: World) -> Iterator[None]:
    with world.valkey.client() as redis, world.valkey.client(timeout_s=60) as other:
        redis.config_set("busy-reply-threshold", "100")

        def run() -> None:
            with contextlib.suppress(RedisError):
                other.eval("while true do end", 0)

        script = threading.Thread(target=run)
        script.start()
        yield
        redis.script_kill()
        script.join(10)


@contextmanager
def loading(world: World) -> Iterator[None]:
    with world.valkey.client() as redis:
        for number in range(100):
            redis.set(f"ballast:{number}", random.randbytes(2000))  # it looks up from loading after so many bytes
        redis.bgrewriteaof()
        wait_for(lambda: redis.info("persistence")["aof_rewrite_in_progress"] == 0, what="the log to be rewritten")
        world.valkey.restart({"key-load-delay": "50000", "loading-process-events-interval-bytes": "1024"})
        assert redis.info("persistence")["loading"]
        yield
        wait_for(lambda: not redis.info("persistence")["loading"], what="the log to be loaded")


@contextmanager
def full_when_workers_connect(world: World) -> Iterator[None]:
    with world.valkey.client() as redis:
        redis.config_set("maxmemory", "1mb")
        redis.client_kill_filter(_type="normal", skipme=True)
        yield
        redis.config_set("maxmemory", "0")


Refusal = Callable[[World], AbstractContextManager[None]]
REFUSALS: dict[str, Refusal] = {
    "READONLY": a_replica,
    "MASTERDOWN": a_replica_without_its_primary,
    "UNBLOCKED": unblocked,
    "NOREPLICAS": no_replicas,
    "MISCONF": unsaved,
    "BUSY": a_long_script,
    "LOADING": loading,
    "OOM": full_when_workers_connect,
}
refusals = pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)


@pytest.fixture
def busy(world: World) -> World:
    """All three workers in the middle of their jobs, with more jobs in their hands."""
    world.start(*Pool, slots=SLOTS)
    for pool in Pool:
        world.submit(pool, [world.paced(f"{pool}{n}", 2) for n in range(JOBS)], batch=pool)
    for pool in Pool:
        world.running(SLOTS, batch=pool, with_bytes=True)
    return world


@refusals
def test_every_worker_outlives_it_calmly_and_goes_on(busy: World, refusal: Refusal) -> None:
    services = {pool: busy.service(f"worker-{pool}") for pool in Pool}
    children = services[Pool.PREFORK].children()
    told = {pool: len(service.text()) for pool, service in services.items()}
    with refusal(busy):
        for pool, service in services.items():
            stays(lambda: service.process.poll() is None, seconds=LASTS / len(Pool), what=f"{pool}'s worker to stay up")
    for pool, service in services.items():
        records = all_done(busy, JOBS, pool, seconds=20)
        assert all(len(record.attempts) == 1 for record in records), "a running job was repeated"
        assert service.process.poll() is None, pool
        calm(service.text()[told[pool] :])
    assert services[Pool.PREFORK].children() == children
    with asking(busy) as app:
        in_touch(busy, app)


def calm(log: str) -> None:
    """A few lines on what is the matter: neither a line a second nor a traceback."""
    lines = [line for line in log.splitlines() if "INFO" not in line]
    assert len(lines) <= JOBS + 4, log
    assert "Traceback" not in log, log
    assert "Warning" not in log, log


@contextmanager
def asking(world: World) -> Iterator[Celery]:
    with Celery(set_as_current=False) as app:
        app.conf.update(broker_options(world.settings))
        yield app


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
        for pool, service in services.items():
            wait_for(lambda: service.health.stat().st_mtime > before[pool], what=f"{pool}'s heartbeat")


@pools
def test_a_worker_that_starts_meanwhile_waits(world: World, pool: Pool) -> None:
    world.submit(pool, [world.file(f"f{n}") for n in range(3)])
    with no_replicas(world):
        service = world.worker(pool)
        wait_for(lambda: "NOREPLICAS" in service.text() or "replicas" in service.text(), what="it to say why it waits")
        stays(lambda: service.process.poll() is None, seconds=3, what="it to wait")
    all_done(world, 3, seconds=20)


def test_remote_control_that_cannot_be_answered_disturbs_no_worker(busy: World) -> None:
    told = {pool: len(busy.service(f"worker-{pool}").text()) for pool in Pool}
    with asking(busy) as app, app.connection() as connection, busy.valkey.client() as redis:
        # Given a question that each worker has answered, and a queue for more answers
        with redis.pubsub() as heard:
            heard.subscribe("t:/0.celery.pidbox")
            assert len(app.control.ping(timeout=10, limit=len(Pool))) == len(Pool)
            question = wait_for(lambda: next((m["data"] for m in iter(heard.get_message, None) if m["type"] == "message"), None))
        reply_to = json.loads(b64decode(json.loads(question)["body"]))["reply_to"]
        answers = Queue("answers", Exchange(reply_to["exchange"]), routing_key=reply_to["routing_key"])
        answers(connection.default_channel).declare()
        redis.config_set("maxmemory", "1mb")
        # If it is asked again while Redis takes no answer, I expect each worker to say so once and to go on
        redis.publish("t:/0.celery.pidbox", question)
        for pool in Pool:
            wait_for(lambda: "no answer" in busy.service(f"worker-{pool}").text(), what=f"{pool} to hear of it")
        redis.config_set("maxmemory", "0")
        for pool in Pool:
            all_done(busy, JOBS, pool, seconds=20)
            calm(busy.service(f"worker-{pool}").text()[told[pool] :])
        in_touch(busy, app)
