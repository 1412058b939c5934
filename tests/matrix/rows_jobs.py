"""Rows: jobs that are ended: by a time limit, or because somebody takes them back."""

from __future__ import annotations

import signal
from collections.abc import Callable

from download.tempfile import FOLDER
from ledger.jobs import FailureKind, Job, JobState, Ref
from tests.matrix.downpour import Downpour, closed, done_in, one, running
from tests.matrix.outcomes import Outcome, error
from tests.matrix.row import Row, columns
from tests.matrix.stock import Stock
from tests.matrix.times import BODY, LIMIT, LONG, PATIENCE
from tests.producer_process import run as producer
from tests.waiting import wait_for
from tests.world import World


def soft(stock: Stock) -> str:
    stock.start()
    stock.send("note", "job", BODY, soft_time_limit=LIMIT)
    how = stock.ended("job")
    return {"SoftTimeLimitExceeded": Outcome.WORKS, "end": Outcome.IGNORED}.get(how) or error(how)


def hard(task: str) -> Callable[[Stock], str]:
    def run(stock: Stock) -> str:
        worker = stock.start(result_backend=stock.results)
        stock.send(task, "job", BODY, time_limit=LIMIT)
        ended, called = stock.ended("job"), stock.state("job")
        if not stock.serves(worker):
            return Outcome.CRASHES
        if ended == "end":
            return Outcome.IGNORED if called == "SUCCESS" else Outcome.FINISHES_ANYWAY
        return Outcome.WORKS if called == "FAILURE" else error(called)

    return run


def deadline(path: str) -> Callable[[Downpour], str]:
    def run(downpour: Downpour) -> str:
        world = downpour.world(deadline=LIMIT)
        world.start(downpour.pool)
        world.submit(downpour.pool, [Job(f"{world.origin.url}{path}", "job")])
        record = closed(world)
        assert record.last is not None
        in_time = record.last.finished - record.last.started < LIMIT + BODY
        stopped = (record.state, record.last.kind) == (JobState.FAILED, FailureKind.DEADLINE)
        published = [path for path in world.files() if FOLDER not in path.parts]
        return Outcome.WORKS if stopped and in_time and not published else error(str(record.last.kind))

    return run


# -- taken back: stock Celery


def reserved(stock: Stock) -> str:
    worker = stock.start()
    stock.send("note", "first", BODY)
    stock.begun("first")
    stock.send("note", "job", 0.0)
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
        worker.signal(signal.SIGTERM)
        worker.wait(PATIENCE)
        assert stock.on_queue("job"), "the first worker took the job before it stopped"
        stock.serves(stock.start(name="second"))

    word = _revoked_before_it_begins(stock, restart)
    return Outcome.FORGOTTEN if word == Outcome.IGNORED else word


def _one_on_the_queue(stock: Stock) -> None:
    stock.send("note", "first", BODY)
    stock.begun("first")
    for name in ("second", "third", "job"):  # one of them in hand, at the most two
        stock.send("note", name, 0.0)
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
    stock.running(BODY)
    stock.ask("revoke", task_id="job", terminate=True)
    ended = stock.ended("job")
    if not stock.serves(worker):
        return Outcome.CRASHES
    return Outcome.FINISHES_ANYWAY if ended == "end" else Outcome.WORKS


# -- taken back: Downpour


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
    world = downpour.busy(LONG)
    said = producer(world.settings, "cancel", "b")
    assert said.code == 0, said.err
    record = closed(world)
    return Outcome.WORKS if record.state is JobState.CANCELLED and not world.files() else Outcome.FINISHES_ANYWAY


ROWS = (
    Row(
        "soft-time-limit",
        "Soft time limit",
        soft,
        deadline(f"/paced/{LONG}/job?size=100000"),
        f"A body that sleeps {BODY:g} s is sent with `soft_time_limit={LIMIT:g}`; it writes down what it was ended "
        f"with. Downpour: `DOWNPOUR_DEADLINE={LIMIT:g}` and a file that takes {LONG:g} s.",
        "A soft limit protects jobs of prefork and of nothing else; threads and gevent accept it and say nothing. "
        "In Downpour the job itself checks its deadline, between two pieces of the file, so every pool keeps it. "
        "The record says `deadline`, and what was received waits for a retry.",
    ),
    Row(
        "hard-time-limit",
        "Hard time limit",
        hard("note"),
        deadline("/faults/stall?name=job&after=1000&size=100000"),
        f"The same body with `time_limit={LIMIT:g}`; seen are its marks, its process and its result. "
        f"Downpour: `DOWNPOUR_DEADLINE={LIMIT:g}` and a server that sends 1,000 bytes and then nothing.",
        "On threads a hung job keeps its slot for ever, whatever limit it has. Downpour cuts each wait on the network "
        "into slices, so a server that says nothing cannot outlast the deadline either.",
    ),
    Row(
        "hard-time-limit-cpu",
        "Hard time limit of a body that computes",
        hard("burn"),
        None,
        f"A body that computes for {BODY:g} s without a pause, with `time_limit={LIMIT:g}`.",
        "A greenlet can only be ended where it waits: gevent calls such a job a failure after it has run to its end.",
        absent=dict.fromkeys(columns("Downpour"), "a download waits; it never computes for long"),
    ),
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
