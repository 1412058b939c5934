"""Rows: signs of life under load, and coroutines."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ledger.leases import Leases
from tests.matrix.downpour import Downpour
from tests.matrix.outcomes import Outcome, error
from tests.matrix.row import Row, columns
from tests.matrix.stock import Stock
from tests.matrix.times import BURN, LEAST_BEATS, PATIENCE, PING
from tests.waiting import wait_for
from tests.worker_process import Service
from tests.world import World


def ping(stock: Stock) -> str:
    stock.start(slots=2)
    stock.running(BURN, "burn")
    answer = stock.ask("ping", seconds=PING)
    assert not stock.count("end", "job"), "the machine was too slow: the body ended before the ping did"
    return Outcome.WORKS if answer else Outcome.NO_ANSWER


def heartbeat(stock: Stock) -> str:
    stock.start("-E", slots=2)
    with stock.valkey.client() as redis, redis.pubsub() as events:
        events.psubscribe("*worker.heartbeat")
        begun = stock.running(BURN, "burn").at
        beats = []
        while not stock.count("end", "job"):
            message = events.get_message(ignore_subscribe_messages=True, timeout=0.1)
            if message and time.time() > begun:
                beats.append(time.time())
        ended = next(note.at for note in stock.notes("job") if note.what == "end")
    return Outcome.WORKS if sum(at < ended for at in beats) >= LEAST_BEATS else Outcome.SILENT


def coroutine(stock: Stock) -> str:
    stock.start(result_backend=stock.results)
    stock.send("coroutine", "job")
    if stock.state("job") == "FAILURE":
        return error(stock.failure("job"))
    return Outcome.WORKS if stock.count("end", "job") else Outcome.NEVER_RUNS


def coroutine_without_result(stock: Stock) -> str:
    stock.start(task_ignore_result=True)
    stock.send("coroutine", "job", ignore_result=True)
    wait_for(lambda: stock.count("success", "job"), seconds=PATIENCE, what="the task to be called a success")
    return Outcome.WORKS if stock.count("end", "job") else Outcome.NEVER_RUNS


# -- Downpour: its own job never computes for long, so a task that does is put into its worker


@dataclass(frozen=True, slots=True)
class Burning:
    world: World
    worker: Service
    incarnation: str

    @property
    def over(self) -> bool:
        return (self.world.folder / "ended").exists()


def _burning(downpour: Downpour) -> Burning:
    """A worker one of whose two slots has begun to compute."""
    world = downpour.world()
    worker = downpour.launch(world, "-c", "2", "-I", "tests.matrix.downpour_burn").wait_until_ready()
    downpour.hears()
    begun, ended = world.folder / "begun", world.folder / "ended"
    downpour.app.send_task("burn", args=(str(begun), str(ended), BURN), queue=downpour.pool.queue)
    wait_for(begun.exists, seconds=PATIENCE, what="the body to begin")
    incarnations = wait_for(
        lambda: world.ledger.redis.hkeys(world.ledger.keys.incarnations), what="the worker to be in the ledger"
    )
    return Burning(world, worker, str(incarnations[0]))


def ping_downpour(downpour: Downpour) -> str:
    burning = _burning(downpour)
    answer = downpour.ask("ping", seconds=PING)
    assert not burning.over, "the machine was too slow: the body ended before the ping did"
    return Outcome.WORKS if answer else Outcome.NO_ANSWER


def health_file(downpour: Downpour) -> str:
    burning = _burning(downpour)
    touched = set()
    begun = time.time()

    def look() -> bool:
        at = burning.worker.health.stat().st_mtime
        if at > begun and not burning.over:
            touched.add(at)
        return burning.over

    wait_for(look, seconds=PATIENCE, what="the body to end")
    return Outcome.WORKS if len(touched) >= LEAST_BEATS else Outcome.SILENT


def lease(downpour: Downpour) -> str:
    burning = _burning(downpour)
    leases = Leases(burning.world.ledger.redis, burning.world.ledger.keys.prefix, 0.0)
    lapsed = []

    def look() -> bool:
        lapsed.append(not any(each.alive and each.incarnation == burning.incarnation for each in leases.known()))
        return burning.over

    wait_for(look, seconds=PATIENCE, what="the body to end")
    return Outcome.SILENT if any(lapsed) else Outcome.WORKS


_NOT_ASYNC = dict.fromkeys(columns("Downpour"), "its one task is no coroutine; `-P gevent` runs it as one")

ROWS = (
    Row(
        "ping",
        "Ping while a job computes",
        ping,
        ping_downpour,
        f"Two slots, one of which computes for {BURN:g} s in pure Python; a ping with a timeout of {PING:g} s. "
        "Downpour: its worker with such a task put into it (`-I`), because its own jobs never do that.",
        "Do not restart a gevent worker because it does not answer: it may be at work.",
    ),
    Row(
        "heartbeat",
        "Heartbeat while a job computes",
        heartbeat,
        health_file,
        f"The same; at least {LEAST_BEATS} `worker-heartbeat` events must arrive before the body ends. Downpour: at "
        "least that many touches of the health file, which follows this heartbeat.",
        "Under gevent Flower shows a computing worker as offline. Downpour's health file grows old as well, because "
        "the worker cannot take jobs. The containers are unhealthy after 15 s.",
    ),
    Row(
        "lease",
        "Lease while a job computes",
        None,
        lease,
        "The same, and `DOWNPOUR_LEASE=2`: the lease must be in Redis at every look, 50 times a second.",
        "A native thread renews the lease, so that no job is taken from a worker that is merely busy.",
        absent=dict.fromkeys(columns("Celery"), "it has no lease; see the heartbeat above"),
    ),
    Row(
        "async-def",
        "An `async def` task",
        coroutine,
        None,
        "Sent to a worker with a result back end; seen are the body's marks and the result.",
        "No pool of Celery awaits anything: the coroutine is made and thrown away.",
        absent=_NOT_ASYNC,
    ),
    Row(
        "async-def-ignore-result",
        "… with `ignore_result`",
        coroutine_without_result,
        None,
        "The same without results; seen are the body's marks and the `task_success` signal.",
        "Worse: the coroutine is dropped without an error, so the task is a success that never ran.",
        absent=_NOT_ASYNC,
    ),
)
