"""Rows: taking back what was asked for."""

from __future__ import annotations

import signal
from collections.abc import Callable

from ledger.jobs import JobState, Ref
from tests.matrix.downpour import Downpour, closed, done_in, one, running
from tests.matrix.outcomes import Outcome, error
from tests.matrix.row import Row
from tests.matrix.stock import Stock
from tests.matrix.times import BODY, LONG, PATIENCE
from tests.producer_process import run as producer
from tests.waiting import wait_for
from tests.world import World


def reserved(stock: Stock) -> str:
    worker = stock.start()
    stock.send("sleep", "first", BODY)
    stock.begun("first")
    stock.send("sleep", "job", 0.0)
    wait_for(lambda: stock.unacked("job"), seconds=PATIENCE, what="the worker to take the job in hand")
    return _revoked_before_it_begins(stock, lambda: stock.serves(worker))


def queued(stock: Stock) -> str:
    worker = stock.start(worker_prefetch_multiplier=1)
    _one_on_the_queue(stock)
    return _revoked_before_it_begins(stock, lambda: stock.serves(worker))


def queued_then_restart(stock: Stock) -> str:
    worker = stock.start(worker_prefetch_multiplier=1)
    _one_on_the_queue(stock)

    def restart() -> None:
        worker.send(signal.SIGTERM)
        worker.process.wait(PATIENCE)
        assert stock.on_queue("job"), "the first worker took the job before it stopped"
        stock.serves(stock.start(name="second"))

    word = _revoked_before_it_begins(stock, restart)
    return Outcome.FORGOTTEN if word == Outcome.IGNORED else word


def _one_on_the_queue(stock: Stock) -> None:
    stock.send("sleep", "first", BODY)
    stock.begun("first")
    for name in ("second", "third", "job"):  # one of them in hand, at the most two
        stock.send("sleep", name, 0.0)
    wait_for(lambda: stock.unacked("second"), seconds=PATIENCE, what="the worker to take its fill")


def _revoked_before_it_begins(stock: Stock, then: Callable[[], object]) -> str:
    answer = stock.ask("revoke", task_id="job")
    assert not stock.count("end", "first"), "the machine was too slow: the first job ended before the revoke"
    assert answer, "nobody answered the revoke"
    if "error" in answer:
        return error(answer["error"].partition("(")[0])
    then()  # ends after everything that was sent before
    return Outcome.IGNORED if stock.count("start", "job") else Outcome.WORKS


def terminate(stock: Stock) -> str:
    worker = stock.start()
    stock.send("sleep", "job", BODY)
    stock.begun("job")
    stock.ask("revoke", task_id="job", terminate=True)
    ended = stock.ended("job")
    if not stock.serves(worker):
        return Outcome.CRASHES
    return Outcome.FINISHES_ANYWAY if ended == "end" else Outcome.WORKS


# -- Downpour


def _behind_another(downpour: Downpour) -> World:
    """One slot, which is taken; a job in the worker's hands, one on the queue."""
    world = downpour.world()
    world.start(downpour.pool, slots=1)
    world.submit(downpour.pool, [world.paced("first", BODY)], batch="first")
    running(world, "first")
    for batch in ("hand", "between", "queue"):
        world.submit(downpour.pool, [world.file(batch)], batch=batch)
    return world


def _cancelled(world: World, batch: str) -> str:
    """Cancelled before it began, and at once."""
    record = one(world, batch)
    return Outcome.WORKS if record.state is JobState.CANCELLED and not record.attempts else Outcome.IGNORED


def cancel_in_hand(downpour: Downpour) -> str:
    world = _behind_another(downpour)
    world.ledger.cancel(Ref("hand", 0, 0))
    word = _cancelled(world, "hand")
    for batch in ("first", "between", "queue"):
        assert done_in(closed(world, batch), 1)
    return word if word == _cancelled(world, "hand") else Outcome.FINISHES_ANYWAY


def cancel_on_the_queue(downpour: Downpour) -> str:
    world = _behind_another(downpour)
    world.ledger.cancel(Ref("queue", 0, 0))
    for batch in ("first", "hand", "between"):
        closed(world, batch)
    return _cancelled(world, "queue")


def cancel_then_restart(downpour: Downpour) -> str:
    world = _behind_another(downpour)
    world.ledger.cancel(Ref("queue", 0, 0))
    world.service(f"worker-{downpour.pool}").terminate()
    world.worker(downpour.pool, name="second")
    for batch in ("first", "hand", "between"):
        closed(world, batch)
    return _cancelled(world, "queue")


def cancel_running(downpour: Downpour) -> str:
    world = downpour.world()
    world.start(downpour.pool)
    world.submit(downpour.pool, [world.paced("job", LONG)])
    running(world)
    said = producer(world.settings, "cancel", "b")
    assert said.code == 0, said.err
    record = closed(world)
    return Outcome.WORKS if record.state is JobState.CANCELLED and not world.files() else Outcome.FINISHES_ANYWAY


ROWS = (
    Row(
        "revoke-reserved",
        "Revoke the task that is next in a worker's hands",
        reserved,
        cancel_in_hand,
        "One slot, taken; the job behind it is in the worker's hands (`unacked`) when `revoke` is answered. Then one "
        "more job runs; the marks show whether the revoked body began. Downpour: `Ledger.cancel`.",
        "threads and gevent look at revokes when they hand a task to their executor, where it may wait. A later revoke "
        "comes too late. A cancel in Downpour is a state in the ledger; a job that is not queued "
        "any more cannot be claimed.",
    ),
    Row(
        "revoke-queued",
        "Revoke a task on the queue",
        queued,
        cancel_on_the_queue,
        "As above with `worker_prefetch_multiplier=1` and two jobs in between, so that the message is still on the "
        "queue in Redis. Downpour: `Ledger.cancel`.",
        "Works while the workers that heard it live.",
    ),
    Row(
        "revoke-restart",
        "… and the workers restart before they come to it",
        queued_then_restart,
        cancel_then_restart,
        "As above; after the answer the worker is stopped with SIGTERM and another one is started.",
        "Celery keeps revoked ids in the workers' memory: without a `--statedb` a deployment forgets them. "
        "Downpour keeps them in the ledger.",
    ),
    Row(
        "terminate",
        "Stop a running task: `revoke(terminate=True)`",
        terminate,
        cancel_running,
        f"A body that sleeps {BODY:g} s, terminated once it has begun; seen are its marks and whether the worker runs "
        "another job. Downpour: `producer cancel` on a running download, and no file is left.",
        "Flower's *Terminate* is this call: on threads it says revoked, and the body goes on. "
        "`producer cancel` stops a download in every pool.",
    ),
)
