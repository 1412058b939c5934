"""Rows: stopping a worker that is at work."""

from __future__ import annotations

import signal
from subprocess import TimeoutExpired

from ledger.jobs import FailureKind, JobState
from tests.matrix.downpour import Downpour, closed, done_in, one, running
from tests.matrix.outcomes import Outcome, error
from tests.matrix.row import Row
from tests.matrix.stock import Stock, StockWorker
from tests.matrix.times import BODY, EXIT, LONG, PATIENCE, SOFT, STOP
from tests.waiting import wait_for
from tests.worker_process import Service


def sigterm(stock: Stock) -> str:
    worker = stock.start()
    stock.send("sleep", "job", BODY)
    stock.begun("job")
    worker.send(signal.SIGTERM)
    if (code := worker.process.wait(PATIENCE)) != 0:
        return error(f"exit_{code}")
    return Outcome.WORKS if stock.count("end", "job") else fate(stock, "job")


def docker_stop(stock: Stock) -> str:
    worker = stock.start()
    stock.send("sleep", "job", LONG)
    stock.begun("job")
    _stop_or_kill(worker)
    return fate(stock, "job")


def _stop_or_kill(worker: Service) -> None:
    """SIGTERM, then SIGKILL for whoever is still there: what a container engine does."""
    worker.send(signal.SIGTERM)
    try:
        worker.process.wait(STOP)
    except TimeoutExpired:
        worker.kill()


def fate(stock: Stock, name: str) -> str:
    """Of a job whose worker is gone and that did not finish, by what the broker still has."""
    if stock.on_queue(name):
        return Outcome.WORKS
    return Outcome.NOT_IN_TIME if stock.unacked(name) else Outcome.LOST


def soft_shutdown(stock: Stock) -> str:
    worker = stock.start(variables={"REMAP_SIGTERM": "SIGQUIT"}, task_acks_late=True, worker_soft_shutdown_timeout=SOFT)
    body = SOFT + BODY
    stock.send("sleep", "job", body)
    stock.begun("job")
    worker.send(signal.SIGTERM)
    if not _exits(worker, body):
        return Outcome.NEVER_EXITS
    return Outcome.FINISHES_ANYWAY if stock.count("end", "job") else fate(stock, "job")


def _exits(worker: StockWorker, body: float) -> bool:
    try:
        worker.process.wait(body + EXIT)
    except TimeoutExpired:
        return False
    return True


# -- Downpour


def grace_is_enough(downpour: Downpour) -> str:
    world = downpour.world(grace=PATIENCE)
    world.start(downpour.pool)
    world.submit(downpour.pool, [world.paced("job", BODY)])
    running(world)
    code = world.service(f"worker-{downpour.pool}").terminate(PATIENCE)
    return Outcome.WORKS if code == 0 and done_in(one(world), 1) else error(f"exit_{code}")


def killed_while_stopping(downpour: Downpour) -> str:
    world = downpour.world(grace=LONG)
    world.start(downpour.pool)
    world.submit(downpour.pool, [world.paced("job", BODY)])
    running(world)
    _stop_or_kill(world.service(f"worker-{downpour.pool}"))
    world.worker(downpour.pool, name="second")
    first, *others = (attempt.kind for attempt in closed(world).attempts)
    return Outcome.WORKS if first is FailureKind.LOST and others == [None] else Outcome.LOST


def grace_is_short(downpour: Downpour) -> str:
    """The job outlasts the grace: it is handed back, and the next worker goes on with its file."""
    world = downpour.world(grace=SOFT)
    world.start(downpour.pool)
    world.submit(downpour.pool, [world.paced("job", LONG, size=1_000_000)])
    running(world)
    code = world.service(f"worker-{downpour.pool}").terminate(SOFT + EXIT)
    if code != 0:
        return error(f"exit_{code}")
    record = one(world)
    wait_for(lambda: len(one(world).attempts) == 1, what="the attempt to be closed")
    return Outcome.WORKS if record.state is JobState.QUEUED else Outcome.LOST


ROWS = (
    Row(
        "sigterm",
        "Warm shutdown: SIGTERM, and all the time in the world",
        sigterm,
        grace_is_enough,
        f"SIGTERM while a job of {BODY:g} s runs: it ends as it should, and the exit code is 0.",
        "With enough time every pool stops well. Celery waits for ever; Downpour for `DOWNPOUR_GRACE`.",
    ),
    Row(
        "docker-stop",
        "Warm shutdown with longer jobs: SIGTERM, then SIGKILL",
        docker_stop,
        killed_while_stopping,
        f"SIGTERM, {STOP:g} s later SIGKILL to the worker and its children, as `docker stop -t {STOP:g}` does it, "
        "while a long job runs; then the broker's queue and `unacked` are read. Downpour: the same, with a grace that "
        "is too long for it, and a second worker finishes the job.",
        "With Celery's defaults a deployment loses what runs longer than the engine's patience. "
        "In Downpour the sweep puts it back on its queue when the lease has expired.",
    ),
    Row(
        "soft-shutdown",
        "Soft shutdown: stop within a time, keep the jobs",
        soft_shutdown,
        grace_is_short,
        f"`worker_soft_shutdown_timeout={SOFT:g}`, `REMAP_SIGTERM=SIGQUIT`, `acks_late`; SIGTERM while a job of "
        f"{SOFT + BODY:g} s runs. It works if the worker is gone before the body's end and the message is back on its "
        f"queue. A worker has {EXIT:g} s after the body's end to be gone. Downpour: `DOWNPOUR_GRACE={SOFT:g}` and a "
        "plain SIGTERM; the record is `queued` again when the worker exits with 0.",
        "Celery's answer to short stops is one for prefork: threads and gevent fail while they announce it, and stay "
        "until the body has ended. Downpour's jobs look at the grace themselves, hand "
        "themselves back and are resumed by the next worker.",
    ),
)
