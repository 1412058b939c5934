"""R: what becomes of messages when something fails. Q: who waits for whom on the queues."""

from __future__ import annotations

from collections.abc import Iterator

from celery.exceptions import QueueNotFound

from poolbench.doctor.diagnosis import Finding, NotChecked, Result, Severity, check
from poolbench.doctor.observed import Observed, Worker

SLOW_RESTORE = 600.0  # seconds
PREFETCH = 4  # messages per slot: Celery's default
LONG = 5.0  # seconds that a task has run while others wait behind it
_SHOWN = 3  # names, of many
_MATRIX = 'make matrix ARGS="-k {}"'


def some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def restores_after(worker: Worker) -> float:
    """Seconds after which idle prefork and threads workers put a killed worker's messages back, at the latest."""
    options = worker.transport_options
    return worker.visibility + float(
        options.get("unacked_restore_interval", 10) * options.get("unacked_restore_throttle", 10)
    )


def time_limits(worker: Worker, tasks: dict[str, str] | None = None) -> Iterator[tuple[str, float]]:
    """Hard limits, in seconds, and where they are set; None: of all its tasks."""
    if way := worker.set_to("time_limit", "task_time_limit"):
        yield way, float(way.rpartition(" ")[2])
    for task, limit in worker.having("time_limit").items():
        if tasks is None or task in tasks:
            yield f"time_limit = {limit} of {task}", float(limit)


@check(
    "R01",
    "A gevent-only fleet never restores what a killed worker held",
    Severity.WARNING,
    redis=True,
    why="With acks_late the message stays in unacked. A gevent worker looks there only when its read times out.",
    evidence="A gevent worker was killed with a late-acked job; an idle gevent worker had not taken it within the "
    "window in which prefork and threads did, restore options set.",
    again=_MATRIX.format("worker-killed-acks-late-tuned"),
    mend="Run one prefork or threads worker on the same broker: it restores for all. Or acknowledge early.",
)
def gevent_restores_nothing(seen: Observed) -> Iterator[Result]:
    if seen.late_acking and {worker.pool for worker in seen.workers} == {"gevent"}:
        late = sorted({task for worker in seen.late_acking for task in worker.late_acked})
        yield Finding("all workers", f"{len(seen.workers)} gevent, no other pool; acks_late: {some(late)}")


@check(
    "R02",
    "A task may be longer than the visibility timeout",
    Severity.ERROR,
    redis=True,
    why="Redis takes a late-acked message for lost after that time: the task starts again while it still runs.",
    evidence="A late-acked job of 8 s at a visibility timeout of 2 s began again while it ran (prefork, threads).",
    again=_MATRIX.format("longer-than-visibility"),
    mend="broker_transport_options = {'visibility_timeout': more than the longest task}, the same on all workers and "
    "producers; or acknowledge early.",
)
def longer_than_visibility(seen: Observed) -> Iterator[Result]:
    least = min((worker.visibility for worker in seen.workers), default=0.0)  # whichever looks, restores for all
    for worker in seen.late_acking:
        late = worker.having("acks_late")
        runs = [
            f"{run.task} has run for {run.age:.0f} s" for run in worker.running if run.task in late and run.age > least
        ]
        limits = [way for way, limit in time_limits(worker, late) if limit > least]
        if runs or limits:
            yield Finding(worker.name, f"visibility timeout {least:g} s; {some(runs + limits)}")


@check(
    "R03",
    "What runs when a worker is killed is lost",
    Severity.WARNING,
    why="An early acknowledgement (the default) removes the message before the task runs. A kill (out of memory, the "
    "end of a stop's grace) loses it without a notice.",
    evidence="SIGKILL while a job ran, early acknowledgement: in no queue any more, on every pool.",
    again=_MATRIX.format("worker-killed"),
    mend="acks_late = True for tasks that may run twice; or a record of your own of what is unfinished. If losing is "
    "fine: --skip R03.",
)
def early_ack(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        late = worker.having("acks_late")
        if early := sorted(set(worker.tasks) - set(late)):
            yield Finding(
                worker.name, f"{len(early)} of {len(worker.tasks)} tasks are acknowledged early: {some(early)}"
            )


@check(
    "R04",
    "A task that kills its process repeats for ever",
    Severity.WARNING,
    why="reject_on_worker_lost puts the message back each time; nothing on Redis counts the deaths.",
    evidence="acks_late with task_reject_on_worker_lost: one such job began at least 4 times in 30 s and went on.",
    again=_MATRIX.format("poison"),
    mend="Leave it off, or count the starts of a task id yourself and give up at a number.",
)
def poison(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        reject = set(worker.having("reject_on_worker_lost"))
        if worker.conf.get("task_reject_on_worker_lost"):
            reject |= set(worker.tasks)
        if worker.pool == "prefork" and (tasks := sorted(reject & set(worker.late_acked))):
            yield Finding(worker.name, f"reject_on_worker_lost and acks_late: {some(tasks)}")


@check(
    "R05",
    "A restart of Redis ends the worker",
    Severity.WARNING,
    redis=True,
    why="Celery 5.7.0 exits with an AttributeError when the connection is lost while late-acked jobs run.",
    evidence="Redis killed and started again while a late-acked job ran: prefork and threads workers exited with 1.",
    again=_MATRIX.format("redis-restarts"),
    mend="Have something that starts workers again (restart: always), or acknowledge early.",
)
def redis_restart(seen: Observed) -> Iterator[Result]:
    for worker in seen.late_acking:
        if worker.version == "5.7.0" and worker.pool in ("prefork", "threads"):
            yield Finding(worker.name, f"Celery {worker.version}, {worker.pool}, acks_late: {some(worker.late_acked)}")


@check(
    "R06",
    "A lost connection runs late-acked tasks twice",
    Severity.WARNING,
    redis=True,
    why="The messages of running tasks go back on the queue at once, and the first runs go on.",
    evidence="Redis closed all connections and stayed up: 4 of 4 late-acked tasks began again and both runs ended, on "
    "every pool. With the setting prefork and gevent ended the first run; threads did not.",
    again='make pools ARGS="-k lost_connection"',
    mend="worker_cancel_long_running_tasks_on_connection_loss = True (prefork, gevent); on threads acknowledge early, "
    "or write tasks that may run twice.",
)
def twice_after_loss(seen: Observed) -> Iterator[Result]:
    for worker in seen.late_acking:
        on = worker.conf.get("worker_cancel_long_running_tasks_on_connection_loss")
        if worker.pool == "threads" or (worker.pool in ("prefork", "gevent") and not on):
            state = "on, without effect" if on else "off"
            yield Finding(worker.name, f"{worker.pool}, the setting is {state}; acks_late: {some(worker.late_acked)}")


@check(
    "R07",
    "An ETA beyond the visibility timeout",
    Severity.ERROR,
    redis=True,
    why="A worker holds the message, unacknowledged, until it is due. Redis takes it for lost before that, delivers it "
    "again, and the task runs more than once.",
    evidence="A task with a countdown of 8 s at a visibility timeout of 2 s ran more than once.",
    again='make pools ARGS="-k eta_beyond"',
    mend="Keep ETA and countdown below visibility_timeout; schedule later ones with beat or a table of your own.",
)
def far_eta(seen: Observed) -> Iterator[Result]:
    least = min((worker.visibility for worker in seen.workers), default=0.0)
    for worker in seen.workers:
        if far := [f"{task} is due in {due:.0f} s" for task, due in worker.etas.items() if due > least]:
            yield Finding(worker.name, f"visibility timeout {least:g} s; {some(far)}")


@check(
    "R08",
    "retry_backoff does nothing without autoretry_for",
    Severity.ERROR,
    why="retry_backoff is read by automatic retries only. self.retry() waits default_retry_delay each time.",
    evidence="A task with retry_backoff=1 that calls self.retry() was due again after 180 s, the default delay.",
    again='make test ARGS="-k back_off_waits"',
    mend="autoretry_for=(TheErrors,), or self.retry(countdown=...) with a delay of your own.",
)
def backoff_alone(seen: Observed) -> Iterator[Result]:
    for name, task in seen.own_tasks.items():
        if (backoff := getattr(task, "retry_backoff", None)) and not getattr(task, "autoretry_for", ()):
            yield Finding(
                name, f"retry_backoff = {backoff}, no autoretry_for; default_retry_delay = {task.default_retry_delay}"
            )


@check(
    "R09",
    "A killed worker's messages come back late",
    Severity.NOTE,
    redis=True,
    why="Late-acked messages return after the visibility timeout, and up to restore interval x throttle more.",
    evidence="Late-acked, visibility timeout 4 s: not back within 20 s with the defaults (up to 100 s more), back in "
    "time with both options at 1.",
    again=_MATRIX.format("worker-killed-acks-late"),
    mend="visibility_timeout a little above the longest task, unacked_restore_interval = 1 and "
    "unacked_restore_throttle = 1 in broker_transport_options.",
)
def slow_restore(seen: Observed) -> Iterator[Result]:
    for worker in seen.late_acking:
        if worker.pool in ("prefork", "threads") and (seconds := restores_after(worker)) > SLOW_RESTORE:
            yield Finding(
                worker.name, f"after up to {seconds:g} s: visibility timeout {worker.visibility:g} s, and the restore"
            )


@check(
    "Q01",
    "Tasks are routed to a queue that no worker consumes",
    Severity.ERROR,
    why="The message waits for ever; nothing says so.",
    evidence="Tasks sent to such a queue were all still on it when the workers had done the rest.",
    again='make test ARGS="-k nobody_consumes"',
    mend="Start a worker with -Q QUEUE, or route the task elsewhere (task_routes, the task's queue).",
)
def unserved(seen: Observed) -> Iterator[Result]:
    served = {queue for worker in seen.workers for queue in worker.queues}
    routed: dict[str, list[str]] = {}
    for name, task in seen.own_tasks.items():
        queue = getattr(task, "queue", None)
        try:
            route = seen.app.amqp.router.route({"queue": queue} if queue else {}, name)
        except QueueNotFound:
            continue  # it cannot be sent, and that is said to the sender
        except Exception as error:
            yield NotChecked(name, f"its router raised {type(error).__name__} for a task without arguments")
            continue
        if (target := route.get("queue")) is not None:
            routed.setdefault(getattr(target, "name", target), []).append(name)
    for queue in sorted(set(routed) - served):
        yield Finding(queue, f"{seen.broker.waiting(queue)} messages wait; tasks: {some(sorted(routed[queue]))}")


@check(
    "Q02",
    "A worker takes far more messages than it has slots",
    Severity.NOTE,
    why="What it holds no other worker can run, even an idle one, and autoscalers that count the queue see none.",
    evidence="A worker with one slot and a prefetch multiplier of 50 took all 20 messages; an idle one got none.",
    again='make pools ARGS="-k taken_by_one"',
    mend="worker_prefetch_multiplier = 1 (with many short tasks: 4).",
)
def prefetch(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        count = int(worker.stats.get("prefetch_count", 0))
        free = count - worker.scheduled  # for each message that is not due yet Celery takes one more
        if count == 0 or free > PREFETCH * worker.slots:
            most = f"up to {free} messages" if count else "any number of messages"
            held = worker.reserved.total()
            yield Finding(worker.name, f"takes {most} for {worker.slots} slots; {held} wait in it now")


@check(
    "Q03",
    "Long tasks hold every slot while others wait behind them",
    Severity.NOTE,
    redis=True,
    why="A queue is first in, first out: a short task waits for the long ones before it.",
    evidence="All slots of a queue's workers ran long tasks, and a short one began only when the first had ended.",
    again='make test ARGS="-k long_before_short"',
    mend="A queue and a worker of their own for the long tasks: task_routes.",
)
def long_before_short(seen: Observed) -> Iterator[Result]:
    for queue in sorted({queue for worker in seen.workers for queue in worker.queues}):
        consumers = [worker for worker in seen.workers if queue in worker.queues]
        running = [run for worker in consumers for run in worker.running]
        if len(running) < sum(worker.slots for worker in consumers) or min(run.age for run in running) < LONG:
            continue
        waiting = sum((worker.reserved for worker in consumers), seen.broker.next_tasks(queue))
        names = {run.task for run in running}
        if others := [f"{count} {task}" for task, count in waiting.items() if task not in names]:
            age = min(run.age for run in running)
            held = f"{some(sorted(names))} on all {len(running)} slots for at least {age:.0f} s"
            yield Finding(queue, f"{held}; behind them: {some(others)}")
