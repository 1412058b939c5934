"""How each check looks at what was observed: P what a pool makes of its settings, R what becomes of messages when
something fails, Q who waits for whom, B the broker, D the host and what runs beside the workers.

A look yields a ``Finding`` per place, a ``NotChecked`` per place that it cannot see, else nothing.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from celery import __version__
from celery.exceptions import QueueNotFound

from poolbench.doctor.observed import POOLS, Observation, Worker, is_async

BUSY = 0.2  # of a core: a gevent worker above it is late for everything else
LATE, LATE_PINGS = 0.25, 3  # seconds, and how many answers must be later
SLOW_RESTORE = 600.0  # seconds
PREFETCH = 4  # messages per slot: Celery's default
LONG = 5.0  # seconds that a task has run while others wait behind it
FULL = 0.9  # of maxmemory
STRANDED = 5.0  # seconds that a message is in no worker's hands until that is said
BUFFERED = 2**20  # bytes that wait for one subscriber
MOST_CONNECTIONS = 10  # kombu's default
_SHOWN = 3  # names, of many
_GREEN = ("threads", "gevent")
_UNKNOWN = "the broker does not say who is connected, so workers that do not answer cannot be found"
_ELSEWHERE = (
    "its command line is not known, nor its cores and limits, for its process cannot be seen from here: run the doctor"
    " on its host, in its container"
)


@dataclass(frozen=True, slots=True)
class Finding:
    where: str  # a worker, a task, a queue, or the broker
    found: str  # with the figures that were seen


@dataclass(frozen=True, slots=True)
class NotChecked:
    where: str
    why: str


Result = Finding | NotChecked
Look = Callable[[Observation], Iterator[Result]]
Found = Iterator[str]  # what is found of one worker
LOOKS: dict[str, Look] = {}  # by the code of the check


def check(code: str) -> Callable[[Look], Look]:
    """The look of this check."""
    return lambda look: LOOKS.setdefault(code, look)


def per_worker(
    code: str, *pools: str, late: bool = False, process: bool = False
) -> Callable[[Callable[[Worker], Found]], None]:
    """The same, of one worker at a time, of these pools; default: of all.

    Args:
        late: of those with tasks that are acknowledged late.
        process: it looks at the process; where nothing is found and that cannot be seen, this is said.
    """

    def put(look: Callable[[Worker], Found]) -> None:
        def each(seen: Observation) -> Iterator[Result]:
            asked = [worker for worker in seen.workers if not pools or worker.pool in pools]
            for worker in (worker for worker in asked if worker.late_acked or not late):
                found = list(look(worker))
                yield from (Finding(worker.name, text) for text in found)
                if process and not found and not worker.process.seen:
                    yield NotChecked(worker.name, _ELSEWHERE)

        LOOKS[code] = each

    return put


def _some(names: Collection[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(list(names)[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


# -- pools


def _ignored(worker: Worker, options: Mapping[str, str], attribute: str) -> Found:
    """Settings that a pool accepts and does not apply. Options: of the command line, and the setting of the same."""
    ways = [way for option, setting in options.items() if (way := worker.set_to(option, setting))]
    ways += [f"{attribute} = {value} of {task}" for task, value in worker.having(attribute).items()]
    if ways:
        yield f"{', '.join(ways)}; the pool is {worker.pool}"


_SOFT, _HARD = {"soft_time_limit": "task_soft_time_limit"}, {"time_limit": "task_time_limit"}
_RECYCLING = {name: f"worker_{name}" for name in ("max_tasks_per_child", "max_memory_per_child")}
per_worker("P01", *_GREEN, "solo", process=True)(partial(_ignored, options=_SOFT, attribute="soft_time_limit"))
per_worker("P02", "threads", "solo", process=True)(partial(_ignored, options=_HARD, attribute="time_limit"))
per_worker("P03", *_GREEN, "solo", process=True)(partial(_ignored, options=_RECYCLING, attribute=""))


@per_worker("P04", *_GREEN, process=True)
def few_slots(worker: Worker) -> Found:
    if worker.slots <= worker.process.host_cores:
        yield f"{worker.pool} with {worker.slots} slots on {worker.process.host_cores} cores"


@check("P05")
def unpatched(seen: Observation) -> Iterator[Result]:
    gevent = [worker for worker in seen.workers if worker.pool == "gevent"]
    yield from (NotChecked(worker.name, _ELSEWHERE) for worker in gevent if not worker.process.seen)
    if seen.mute is None:
        yield NotChecked("this host", _UNKNOWN)
    # A worker that is not patched hardly ever answers.
    for process in [*(seen.mute or ()), *(worker.process for worker in gevent if worker.process.seen)]:
        pool = process.options.get("pool")
        if not process.patches_gevent and (pool or seen.app.conf.worker_pool) == "gevent":
            spelt = f"the option is not spelt -P {pool}" if pool else "no -P in its command line"
            yield Finding(process.called, f"the pool is gevent, and {spelt}")


@per_worker("P06", "prefork", process=True)
def more_than_cores(worker: Worker) -> Found:
    if worker.slots >= worker.process.host_cores > worker.process.cores:
        yield f"{worker.slots} slots; it may use {worker.process.cores:g} of {worker.process.host_cores} cores"


@per_worker("P07", "threads")
def autoscaled_threads(worker: Worker) -> Found:
    if scale := worker.stats.get("autoscaler"):
        yield f"--autoscale {scale.get('max')},{scale.get('min')} on threads"


@per_worker("P08", "gevent")
def computing_gevent(worker: Worker) -> Found:
    if worker.cpu_share > BUSY:
        yield f"it used {worker.cpu_share:.0%} of a core while it was looked at"


@check("P09")
def async_tasks(seen: Observation) -> Iterator[Result]:
    pools = sorted({worker.pool for worker in seen.workers} & set(POOLS.values()))
    for name, task in seen.own_tasks.items():
        if pools and is_async(task):
            yield Finding(name, f"async def, on {', '.join(pools)}")


@per_worker("P10", "gevent")
def blocked_hub(worker: Worker) -> Found:
    late = [seconds for seconds in worker.late if seconds > LATE]
    if len(late) >= LATE_PINGS:
        of = f"{len(late)} of {len(worker.late)} pings"
        yield f"{of} were answered later than {LATE} s, the last after {max(late):.1f} s"


# -- recovery


def _longer(worker: Worker, tasks: Collection[str], than: float) -> str:
    """What may run, or has run, for more seconds: of these tasks of the worker."""
    longer = [f"{task} has run for {age:.0f} s" for task, age in worker.running if task in tasks and age > than]
    own = {task: limit for task, limit in worker.having("time_limit").items() if task in tasks}
    ways = [worker.set_to("time_limit", "task_time_limit"), *(f"{task}: time_limit = {own[task]}" for task in own)]
    for way in filter(None, ways):
        with suppress(ValueError):  # not a number, as Celery finds out, too
            if float(way.rpartition(" ")[2]) > than:
                longer.append(way)
    return _some(longer)


@check("R01")
def gevent_restores_nothing(seen: Observation) -> Iterator[Result]:
    late = sorted({task for worker in seen.workers for task in worker.late_acked})
    if late and {worker.pool for worker in seen.workers} == {"gevent"}:
        yield Finding("all workers", f"{len(seen.workers)} gevent, no other pool; acks_late: {_some(late)}")


@check("R02")
def longer_than_visibility(seen: Observation) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.late_acked and (found := _longer(worker, worker.late_acked, seen.visibility)):
            yield Finding(worker.name, f"visibility timeout {seen.visibility:g} s; {found}")


@per_worker("R03")
def early_ack(worker: Worker) -> Found:
    if early := sorted(set(worker.tasks) - set(worker.late_acked)):
        yield f"{len(early)} of {len(worker.tasks)} tasks are acknowledged early: {_some(early)}"


@per_worker("R04", "prefork")
def poison(worker: Worker) -> Found:
    everywhere = worker.conf.get("task_reject_on_worker_lost")
    reject = worker.tasks if everywhere else worker.having("reject_on_worker_lost")
    if tasks := [task for task in worker.late_acked if task in reject]:
        yield f"reject_on_worker_lost and acks_late: {_some(tasks)}"


@per_worker("R05", "prefork", "threads", late=True)
def redis_restart(worker: Worker) -> Found:
    if __version__ == "5.7.0":
        yield f"Celery {__version__}, {worker.pool}, acks_late: {_some(worker.late_acked)}"


@per_worker("R06", "prefork", *_GREEN, late=True)
def twice_after_loss(worker: Worker) -> Found:
    on = worker.conf.get("worker_cancel_long_running_tasks_on_connection_loss")
    if not on or worker.pool == "threads":
        state = "on, without effect" if on else "off"
        yield f"{worker.pool}, the setting is {state}; acks_late: {_some(worker.late_acked)}"


@check("R07")
def far_eta(seen: Observation) -> Iterator[Result]:
    for worker in seen.workers:
        if far := [f"{task} is due in {due:.0f} s" for task, due in worker.etas.items() if due > seen.visibility]:
            yield Finding(worker.name, f"visibility timeout {seen.visibility:g} s; {_some(far)}")


@check("R08")
def backoff_alone(seen: Observation) -> Iterator[Result]:
    for name, task in seen.own_tasks.items():
        if (backoff := getattr(task, "retry_backoff", None)) and not getattr(task, "autoretry_for", ()):
            delay = task.default_retry_delay
            yield Finding(name, f"retry_backoff = {backoff}, no autoretry_for; default_retry_delay = {delay}")


@per_worker("R09", "prefork", "threads", late=True)
def slow_restore(worker: Worker) -> Found:
    """Idle prefork and threads workers put a killed worker's messages back after so long, at the latest."""
    throttle = [float(worker.transport_options.get(f"unacked_restore_{word}", 10)) for word in ("interval", "throttle")]
    seconds = worker.visibility + throttle[0] * throttle[1]
    if seconds > SLOW_RESTORE:
        yield f"after up to {seconds:g} s: visibility timeout {worker.visibility:g} s, and the restore"


# -- queues


@check("Q01")
def unserved(seen: Observation) -> Iterator[Result]:
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
        yield Finding(queue, f"{seen.broker.waiting(queue)} messages wait; tasks: {_some(sorted(routed[queue]))}")


@per_worker("Q02")
def prefetch(worker: Worker) -> Found:
    count = int(worker.stats.get("prefetch_count", 0))
    free = count - worker.scheduled  # for each message that is not due yet Celery takes one more
    if count <= 0 or free > PREFETCH * worker.slots:
        most = f"up to {free} messages" if count else "any number of messages"
        yield f"takes {most} for {worker.slots} slots; {worker.reserved.total()} wait in it now"


@check("Q03")
def long_before_short(seen: Observation) -> Iterator[Result]:
    for queue in sorted({queue for worker in seen.workers for queue in worker.queues}):
        consumers = [worker for worker in seen.workers if queue in worker.queues]
        running = [run for worker in consumers for run in worker.running]
        shortest = min((age for _, age in running), default=0.0)
        if len(running) < sum(worker.slots for worker in consumers) or shortest < LONG:
            continue
        waiting = sum((worker.reserved for worker in consumers), seen.broker.next_tasks(queue))
        names = {task for task, _ in running}
        if others := [f"{count} {task}" for task, count in waiting.items() if task not in names]:
            held = f"{_some(sorted(names))} on all {len(running)} slots for at least {shortest:.0f} s"
            yield Finding(queue, f"{held}; behind them: {_some(others)}")


# -- the broker


@check("B01")
def eviction(seen: Observation) -> Iterator[Result]:
    memory = seen.broker.ask("info", "memory")
    policy, most = memory.get("maxmemory_policy", ""), int(memory.get("maxmemory", 0))
    if policy.startswith("allkeys") and most:
        yield Finding("broker", f"maxmemory-policy {policy}, maxmemory {most:,} bytes, used {memory['used_memory']:,}")


@check("B02")
def persistence(seen: Observation) -> Iterator[Result]:
    if not int(seen.broker.ask("info", "persistence").get("aof_enabled", 0)):
        replicas = seen.broker.ask("info", "replication").get("connected_slaves", 0)
        yield Finding("broker", f"appendonly no; {replicas} replicas")


@per_worker("B03")
def expiry(worker: Worker) -> Found:
    backend, expires = str(worker.conf.get("result_backend") or ""), worker.conf.get("result_expires")
    if backend.startswith(("redis", "rediss", "sentinel")) and not expires:
        yield f"result_expires = {expires}, results in Redis"


@check("B04")
def stranded(seen: Observation) -> Iterator[Result]:
    unacked = seen.broker.unacked()
    held = set[str]().union(*(worker.held for worker in seen.workers))
    limited = {task for worker in seen.workers for task in worker.having("rate_limit")}  # these wait unseen
    # What a worker took since it was asked is not among what it has in hand.
    lost = [since for key, task, since in unacked if since < seen.asked and key not in held and task not in limited]
    if silent := [*seen.silent, *(process.name for process in seen.mute or ())]:
        yield NotChecked("broker", f"a worker that does not answer may have them: {_some(silent)}")
    elif ages := [age for since in lost if (age := time.time() - since) > STRANDED]:
        yield Finding("broker", f"{len(ages)} of the oldest unacknowledged messages, the oldest for {max(ages):.0f} s")


@check("B05")
def buffers(seen: Observation) -> Iterator[Result]:
    for client in seen.broker.ask("client_list", _type="pubsub"):
        if (size := int(client.get("omem", 0))) > BUFFERED:
            who = client.get("name") or client.get("addr")
            yield Finding("broker", f"{size:,} bytes wait for the subscriber {who}")


@per_worker("B06", "gevent", late=True)
def connections(worker: Worker) -> Found:
    most = int(worker.transport_options.get("max_connections") or MOST_CONNECTIONS)
    if most < 2 * worker.slots:
        yield f"max_connections {most} for {worker.slots} greenlets, acks_late"


@check("B07")
def unverified(seen: Observation) -> Iterator[Result]:
    options = seen.broker.redis.connection_pool.connection_kwargs
    if seen.broker.connection.ssl and options.get("ssl_cert_reqs") in (None, "none", ssl.CERT_NONE):
        yield Finding("broker", f"{seen.broker.address}: ssl_cert_reqs is CERT_NONE, as this app connects")


@check("B08")
def full(seen: Observation) -> Iterator[Result]:
    memory = seen.broker.ask("info", "memory")
    used, most = int(memory["used_memory"]), int(memory.get("maxmemory", 0))
    if most and used > FULL * most and memory.get("maxmemory_policy") == "noeviction":
        yield Finding("broker", f"{used:,} of {most:,} bytes are used")


# -- deployment


@check("D01")
def grace(seen: Observation) -> Iterator[Result]:
    if seen.grace is None:
        yield NotChecked("platform", "a process cannot see how long its platform waits; say it: --grace SECONDS")
        return
    for worker in seen.workers:
        if longer := _longer(worker, worker.tasks, seen.grace):
            yield Finding(worker.name, f"grace {seen.grace:g} s; {longer}")


@per_worker("D04", *_GREEN, process=True)
def descriptors(worker: Worker) -> Found:
    if 0 <= worker.process.descriptors < 2 * worker.slots:
        yield f"ulimit -n {worker.process.descriptors} for {worker.slots} slots"


@check("D05")
def no_events(seen: Observation) -> Iterator[Result]:
    bound = seen.broker.ask("smembers", f"{seen.broker.prefix}_kombu.binding.{seen.app.conf.event_exchange}")
    keys = {member.decode(errors="replace").partition("\x06")[0] for member in bound}
    if not any(key == "#" or key.startswith("task") for key in keys):  # worker.# is of the workers themselves
        return
    if seen.events_of is None:
        yield NotChecked("broker", "it refused to let the doctor listen to events")
        return
    for worker in seen.workers:
        if worker.name in seen.events_of:
            continue
        if worker.began:
            yield Finding(worker.name, f"{worker.began} tasks began while it was looked at, and no event was heard")
        else:
            yield NotChecked(worker.name, "no task began while it was looked at, so no event was due")


@check("D06")
def one_name(seen: Observation) -> Iterator[Result]:
    for name, answers in seen.names.items():
        if answers > 1:
            yield Finding(name, f"{answers} workers answered by this name")


@check("D07")
def mute(seen: Observation) -> Iterator[Result]:
    if seen.mute is None:
        yield NotChecked("this host", _UNKNOWN)
    for process in seen.mute or ():
        yield Finding(process.called, f"pid {process.pid}, started with -A {process.app}")
