"""R: what becomes of messages when something fails. Q: who waits for whom on the queues."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress

from celery.exceptions import QueueNotFound

from poolbench.doctor.diagnosis import Finding, NotChecked, Result, check
from poolbench.doctor.observed import Observed, Worker

SLOW_RESTORE = 600.0  # seconds
PREFETCH = 4  # messages per slot: Celery's default
LONG = 5.0  # seconds that a task has run while others wait behind it
_SHOWN = 3  # names, of many


def some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def restores_after(worker: Worker) -> float:
    """Seconds after which idle prefork and threads workers put a killed worker's messages back, at the latest."""
    options = worker.transport_options
    return worker.visibility + float(
        options.get("unacked_restore_interval", 10) * options.get("unacked_restore_throttle", 10)
    )


def time_limits(worker: Worker, tasks: Collection[str]) -> Iterator[tuple[str, float]]:
    """Hard limits of these tasks: where they are set, and seconds."""
    own = {task: limit for task, limit in worker.having("time_limit").items() if task in tasks}
    ways = [worker.set_to("time_limit", "task_time_limit"), *(f"{task}: time_limit = {own[task]}" for task in own)]
    for way in filter(None, ways):
        with suppress(ValueError):  # not a number, as Celery finds out, too
            yield way, float(way.rpartition(" ")[2])


@check("R01")
def gevent_restores_nothing(seen: Observed) -> Iterator[Result]:
    if seen.late_acking and {worker.pool for worker in seen.workers} == {"gevent"}:
        late = sorted({task for worker in seen.late_acking for task in worker.late_acked})
        yield Finding("all workers", f"{len(seen.workers)} gevent, no other pool; acks_late: {some(late)}")


@check("R02")
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


@check("R03")
def early_ack(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        late = worker.having("acks_late")
        if early := sorted(set(worker.tasks) - set(late)):
            yield Finding(
                worker.name, f"{len(early)} of {len(worker.tasks)} tasks are acknowledged early: {some(early)}"
            )


@check("R04")
def poison(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        reject = set(worker.having("reject_on_worker_lost"))
        if worker.conf.get("task_reject_on_worker_lost"):
            reject |= set(worker.tasks)
        if worker.pool == "prefork" and (tasks := sorted(reject & set(worker.late_acked))):
            yield Finding(worker.name, f"reject_on_worker_lost and acks_late: {some(tasks)}")


@check("R05")
def redis_restart(seen: Observed) -> Iterator[Result]:
    for worker in seen.late_acking:
        if worker.version == "5.7.0" and worker.pool in ("prefork", "threads"):
            yield Finding(worker.name, f"Celery {worker.version}, {worker.pool}, acks_late: {some(worker.late_acked)}")


@check("R06")
def twice_after_loss(seen: Observed) -> Iterator[Result]:
    for worker in seen.late_acking:
        on = worker.conf.get("worker_cancel_long_running_tasks_on_connection_loss")
        if worker.pool == "threads" or (worker.pool in ("prefork", "gevent") and not on):
            state = "on, without effect" if on else "off"
            yield Finding(worker.name, f"{worker.pool}, the setting is {state}; acks_late: {some(worker.late_acked)}")


@check("R07")
def far_eta(seen: Observed) -> Iterator[Result]:
    least = min((worker.visibility for worker in seen.workers), default=0.0)
    for worker in seen.workers:
        if far := [f"{task} is due in {due:.0f} s" for task, due in worker.etas.items() if due > least]:
            yield Finding(worker.name, f"visibility timeout {least:g} s; {some(far)}")


@check("R08")
def backoff_alone(seen: Observed) -> Iterator[Result]:
    for name, task in seen.own_tasks.items():
        if (backoff := getattr(task, "retry_backoff", None)) and not getattr(task, "autoretry_for", ()):
            yield Finding(
                name, f"retry_backoff = {backoff}, no autoretry_for; default_retry_delay = {task.default_retry_delay}"
            )


@check("R09")
def slow_restore(seen: Observed) -> Iterator[Result]:
    for worker in seen.late_acking:
        if worker.pool in ("prefork", "threads") and (seconds := restores_after(worker)) > SLOW_RESTORE:
            yield Finding(
                worker.name, f"after up to {seconds:g} s: visibility timeout {worker.visibility:g} s, and the restore"
            )


@check("Q01")
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


@check("Q02")
def prefetch(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        count = int(worker.stats.get("prefetch_count", 0))
        free = count - worker.scheduled  # for each message that is not due yet Celery takes one more
        if count == 0 or free > PREFETCH * worker.slots:
            most = f"up to {free} messages" if count else "any number of messages"
            held = worker.reserved.total()
            yield Finding(worker.name, f"takes {most} for {worker.slots} slots; {held} wait in it now")


@check("Q03")
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
