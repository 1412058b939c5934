"""Rows: workers that are stopped at work, and what comes back after a death."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import partial
from subprocess import TimeoutExpired

from ledger.jobs import Attempt, FailureKind, JobState, Pool
from tests.celery_workers import ProjectWorker
from tests.matrix.downpour import Downpour, closed, done_in, one, running
from tests.matrix.outcomes import Outcome, error
from tests.matrix.row import Race, Row, columns
from tests.matrix.stock import Stock
from tests.matrix.times import BODY, EXIT, LONG, OFTEN, PATIENCE, POISON, REDELIVERY, SOFT, STOP, VISIBILITY
from tests.waiting import wait_for
from tests.worker_process import Service

TUNED = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}


def sigterm(stock: Stock) -> str:
    worker = stock.start()
    stock.running(BODY)
    worker.signal(signal.SIGTERM)
    if (code := worker.wait(PATIENCE)) != 0:
        return error(f"exit_{code}")
    return Outcome.WORKS if stock.count("end", "job") else fate(stock, "job")


def docker_stop(stock: Stock) -> str:
    worker = stock.start()
    stock.running(LONG)
    _stop_or_kill(worker)
    return fate(stock, "job")


def _stop_or_kill(worker: Service) -> None:
    """SIGTERM, then SIGKILL for whoever is still there: what a container engine does."""
    worker.signal(signal.SIGTERM)
    try:
        worker.wait(STOP)
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
    stock.running(body)
    worker.signal(signal.SIGTERM)
    try:
        worker.wait(body + EXIT)
    except TimeoutExpired:
        return Outcome.NEVER_EXITS
    return Outcome.FINISHES_ANYWAY if stock.count("end", "job") else fate(stock, "job")


# -- stopped: Downpour


def grace_is_enough(downpour: Downpour) -> str:
    world = downpour.busy(BODY, grace=PATIENCE)
    code = world.service(f"worker-{downpour.pool}").terminate(PATIENCE)
    return Outcome.WORKS if code == 0 and done_in(one(world), 1) else error(f"exit_{code}")


def killed_while_stopping(downpour: Downpour) -> str:
    world = downpour.busy(BODY, grace=LONG)
    _stop_or_kill(world.service(f"worker-{downpour.pool}"))
    world.worker(downpour.pool, name="second")
    first, *others = (attempt.kind for attempt in closed(world).attempts)
    return Outcome.WORKS if first is FailureKind.LOST and others == [None] else Outcome.LOST


def grace_is_short(downpour: Downpour) -> str:
    """The job outlasts the grace: it is handed back, and the next worker goes on with its file."""
    world = downpour.busy(LONG, size=1_000_000, grace=SOFT)
    code = world.service(f"worker-{downpour.pool}").terminate(SOFT + EXIT)
    if code != 0:
        return error(f"exit_{code}")
    record = one(world)
    wait_for(lambda: len(one(world).attempts) == 1, what="the attempt to be closed")
    return Outcome.WORKS if record.state is JobState.QUEUED else Outcome.LOST


# -- deaths: stock Celery


def killed(stock: Stock) -> str:
    worker = stock.start()
    stock.running(LONG)
    wait_for(lambda: not stock.unacked("job"), seconds=PATIENCE, what="the worker to acknowledge what its child began")
    worker.kill()
    return fate(stock, "job")


def killed_acks_late(stock: Stock, options: dict[str, int]) -> str:
    """Two workers, one of which has nothing to do; the one with the job is killed at once."""
    transport = {"visibility_timeout": VISIBILITY, **options}
    workers = [
        stock.launch(name=name, task_acks_late=True, broker_transport_options=transport) for name in ("first", "second")
    ]
    for worker in workers:
        worker.wait_until_ready()
    if not options:  # each has its look at the start behind it, and the next one comes after 100 s
        wait_for(lambda: stock.looks() >= len(workers), seconds=PATIENCE, what="the first look of each")
    pid = stock.running(BODY / 2).pid
    _kill_without_the_lock(stock, next(worker for worker in workers if pid in (worker.pid, *worker.children())))
    assert not stock.count("end", "job"), "the machine was too slow: the job ended before the kill"
    try:
        wait_for(lambda: stock.count("end", "job"), seconds=REDELIVERY, what="the job to run again")
    except AssertionError:
        return Outcome.NOT_IN_TIME if stock.unacked("job") else fate(stock, "job")
    return Outcome.WORKS


def _kill_without_the_lock(stock: Stock, worker: ProjectWorker) -> None:
    """Whoever dies while it holds that lock keeps everybody from lost messages for 300 s: no part of this row."""

    def frozen_without_it() -> bool:
        worker.signal(signal.SIGSTOP)
        if stock.restoring():
            worker.signal(signal.SIGCONT)
            return False
        return True

    wait_for(frozen_without_it, seconds=PATIENCE, what="a moment in which nobody restores messages")
    worker.kill()


def longer_than_visibility(stock: Stock) -> str:
    options = {"visibility_timeout": VISIBILITY / 2, **TUNED}
    stock.start(slots=2, task_acks_late=True, broker_transport_options=options)
    stock.send("note", "job", 2 * VISIBILITY)
    wait_for(
        lambda: stock.count("start", "job") > 1 or stock.count("end", "job"), seconds=PATIENCE, what="a second start"
    )
    return Outcome.RUNS_TWICE if stock.count("start", "job") > 1 else Outcome.WORKS


def child_killed(stock: Stock) -> str:
    worker = stock.start(result_backend=stock.results)
    os.kill(stock.running(LONG).pid, signal.SIGKILL)
    stock.state("job")
    if not stock.serves(worker):
        return Outcome.CRASHES
    return Outcome.WORKS if stock.count("start", "job") > 1 else fate(stock, "job")


def poison(stock: Stock) -> str:
    stock.start(task_acks_late=True, task_reject_on_worker_lost=True)
    stock.send("die", "job")
    stock.begun("job")
    try:
        wait_for(lambda: stock.count("start", "job") >= OFTEN, seconds=POISON, what="the job to come back")
    except AssertionError:
        return Outcome.WORKS
    return Outcome.NEVER_ENDS


def redis_restarts(stock: Stock) -> str:
    worker = stock.start(slots=2, task_acks_late=True)
    stock.running(BODY)
    stock.valkey.restart()
    return Outcome.WORKS if stock.serves(worker) else Outcome.CRASHES


# -- deaths: Downpour


def standby_takes_over(downpour: Downpour) -> str:
    world = downpour.world()
    world.start(downpour.pool)
    world.worker(downpour.pool, name="second").wait_until_ready()
    world.submit(downpour.pool, [world.paced("job", BODY)])
    running(world)
    incarnations = world.ledger.redis.hgetall(world.ledger.keys.incarnations)
    key = world.ledger.redis.hget(world.ledger.keys.job("b.0"), "h")
    assert key is not None
    name = "second" if '"second@' in str(incarnations[key]) else str(downpour.pool)
    world.service(f"worker-{name}").kill()
    return _lost_once(world.finished(seconds=REDELIVERY)[0].attempts)


def successor_takes_over(downpour: Downpour) -> str:
    """The worker held one job and had another one in hand."""
    world = downpour.world()
    world.start(downpour.pool, slots=1)
    world.submit(downpour.pool, [world.paced("job", BODY), world.file("in-hand")])
    running(world)
    world.service(f"worker-{downpour.pool}").kill()
    world.worker(downpour.pool, name="second").wait_until_ready()
    job, in_hand = world.finished(seconds=REDELIVERY)
    return _lost_once(job.attempts) if done_in(in_hand, 1) else Outcome.LOST


def _lost_once(attempts: Sequence[Attempt]) -> str:
    return Outcome.WORKS if [each.kind for each in attempts] == [FailureKind.LOST, None] else Outcome.LOST


def longer_than_lease(downpour: Downpour) -> str:
    world = downpour.world(lease=VISIBILITY / 2)
    world.start(downpour.pool)
    world.submit(downpour.pool, [world.paced("job", 2 * VISIBILITY)])
    return Outcome.WORKS if done_in(closed(world), 1) else Outcome.RUNS_TWICE


def child_killed_in_downpour(downpour: Downpour) -> str:
    world = downpour.busy(BODY, slots=1)
    os.kill(world.service(f"worker-{downpour.pool}").children()[0], signal.SIGKILL)
    return _lost_once(closed(world).attempts)


def poison_in_downpour(downpour: Downpour) -> str:
    world = downpour.world(max_losses=2)
    world.start(downpour.pool, slots=1)
    worker = world.service(f"worker-{downpour.pool}")
    world.submit(downpour.pool, [world.paced("job", LONG)])

    def killed_until_final() -> bool:
        if one(world).state is JobState.RUNNING:
            for child in worker.children():
                os.kill(child, signal.SIGKILL)
        return world.batch().finished

    wait_for(killed_until_final, seconds=PATIENCE, every=0.2, what="the job to be called poison")
    last = closed(world).last
    return Outcome.WORKS if last and last.kind is FailureKind.POISON else Outcome.NEVER_ENDS


def redis_restarts_under_downpour(downpour: Downpour) -> str:
    world = downpour.busy(BODY)
    world.valkey.restart()
    if not done_in(closed(world), 1):
        return Outcome.RUNS_TWICE
    world.submit(downpour.pool, [world.file("after")], batch="after")
    closed(world, "after")
    return Outcome.WORKS if world.service(f"worker-{downpour.pool}").running else Outcome.CRASHES


_NO_CHILD = "there is no child: the process is the worker"
_TIMES = "nothing to tune: the row above holds with the settings as they are"
ONE_PROCESS = {
    column: _NO_CHILD for system in ("Celery", "Downpour") for column in columns(system, Pool.THREADS, Pool.GEVENT)
}


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
    Row(
        "worker-killed",
        "SIGKILL of the worker, early acknowledgement (the default)",
        killed,
        standby_takes_over,
        "SIGKILL to the worker and its children while a job runs; then the broker's queue and `unacked` are read. "
        "Downpour: a second worker, which was idle, finishes the job.",
        "What ran is gone, without a notice. Downpour acknowledges early too, but its ledger knows what is missing.",
    ),
    Row(
        "worker-killed-acks-late",
        "SIGKILL of the worker, `acks_late`",
        partial(killed_acks_late, options={}),
        successor_takes_over,
        f"Two workers that have been up for a while, visibility timeout {VISIBILITY:g} s. The one that runs the job "
        f"is killed; the job must have run again within {REDELIVERY:g} s. Downpour: the only worker is killed, with a "
        "job running and one in its hands, and another one is started.",
        "The message is not lost. But idle workers look for such messages every 100 s, and only after the visibility "
        "timeout, which must be longer than the longest job. gevent looks only when its queue read times out. "
        "(A worker that dies while it looks keeps its lock: up to 300 s more.) "
        "Downpour's lease does not depend on how long jobs take.",
    ),
    Row(
        "worker-killed-acks-late-tuned",
        "… with `unacked_restore_interval=1`, `unacked_restore_throttle=1`",
        partial(killed_acks_late, options=TUNED),
        None,
        "As above with these two transport options.",
        "Two options that few know make the redelivery prompt, on prefork and threads.",
        absent=dict.fromkeys(columns("Downpour"), _TIMES),
    ),
    Row(
        "longer-than-visibility",
        "A job longer than the visibility timeout",
        longer_than_visibility,
        longer_than_lease,
        f"`acks_late`, visibility timeout {VISIBILITY / 2:g} s, the two options above, a second slot, a job of "
        f"{2 * VISIBILITY:g} s. Is there a second start before its end? Downpour: `DOWNPOUR_LEASE={VISIBILITY / 2:g}`.",
        "With `acks_late` the visibility timeout has to be longer than any job; then recovery is later than any job. "
        "A lease belongs to a process, and is renewed.",
    ),
    Row(
        "child-killed",
        "SIGKILL of one child",
        child_killed,
        child_killed_in_downpour,
        "SIGKILL to the process that runs a job, early acknowledgement. Once its result is final and the worker has "
        "run another job, the broker's queue and `unacked` are read. Downpour: the job is done in its second attempt.",
        "The kernel's out-of-memory killer does this. Celery notes a WorkerLostError and that is all.",
        absent=ONE_PROCESS,
    ),
    Row(
        "poison",
        "A job that kills its process each time",
        poison,
        poison_in_downpour,
        f"`acks_late` and `task_reject_on_worker_lost`, the setting against the row above: {OFTEN} starts within "
        f"{POISON:g} s mean for ever. Downpour: whatever child runs the job is killed; `DOWNPOUR_MAX_LOSSES=2`.",
        "The setting that saves jobs from a dead child makes one bad job immortal. Downpour counts deaths.",
        absent=ONE_PROCESS,
    ),
    Row(
        "redis-restarts",
        "Redis restarts while `acks_late` jobs run",
        redis_restarts,
        redis_restarts_under_downpour,
        f"A job of {BODY:g} s, a free slot; Redis (with an append-only file) gets SIGKILL and is started again. Either "
        "the worker ends, or it runs a job that is sent afterwards. Downpour: that, and the job ran once.",
        "With `acks_late` a restart of Redis takes workers with it; have something that starts them again.",
        racy={
            "Celery gevent": Race(
                frozenset({Outcome.WORKS, Outcome.CRASHES}),
                "it survived each run of this row so far, and crashed in other experiments",
            )
        },
    ),
)
