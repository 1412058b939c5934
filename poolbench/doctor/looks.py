"""How each check looks at what was observed: P what a pool makes of its settings, R what becomes of messages when
something fails, Q who waits for whom, B the broker, D the host and what runs beside the workers.

A look yields a ``Finding`` per place, a ``NotChecked`` per place that it cannot see, else nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from celery import __version__
from celery.exceptions import QueueNotFound

from poolbench.doctor.observed import POOLS, Observation, Worker, is_async
from poolbench.doctor.worker_process import WorkerProcess

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
_ELSEWHERE = "its process cannot be seen from here: run the doctor on its host, in its container"


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
Found = str | None  # in one place
LOOKS: dict[str, Look] = {}  # by the code of the check


def check(code: str) -> Callable[[Look], Look]:
    """The look of this check."""

    def put(look: Look) -> Look:
        LOOKS[code] = look
        return look

    return put


def per_worker(code: str, *pools: str, late: bool = False) -> Callable[[Callable[[Observation, Worker], Found]], None]:
    """The same, of one worker at a time, of these pools; default: of all.

    Args:
        late: of those with tasks that are acknowledged late.
    """

    def put(look: Callable[[Observation, Worker], Found]) -> None:
        def each(seen: Observation) -> Iterator[Result]:
            asked = [worker for worker in seen.workers if not pools or worker.pool in pools]
            for worker in (worker for worker in asked if worker.late_acked or not late):
                if found := look(seen, worker):
                    yield Finding(worker.name, found)

        LOOKS[code] = each

    return put


def per_process(code: str, *pools: str) -> Callable[[Callable[[Worker, WorkerProcess], Found]], None]:
    """The same, of workers of these pools whose process must be seen."""

    def put(look: Callable[[Worker, WorkerProcess], Found]) -> None:
        def each(seen: Observation) -> Iterator[Result]:
            for worker in (worker for worker in seen.workers if worker.pool in pools):
                if worker.process is None:
                    yield NotChecked(worker.name, f"its cores and limits are not known: {_ELSEWHERE}")
                elif found := look(worker, worker.process):
                    yield Finding(worker.name, found)

        LOOKS[code] = each

    return put


def _some(names: Collection[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(list(names)[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


# -- pools


def _ignored(seen: Observation, pools: Collection[str], options: Mapping[str, str], attribute: str) -> Iterator[Result]:
    """Settings that a pool accepts and does not apply. Options: of the command line, and the setting of the same."""
    for worker in seen.workers:
        if worker.pool not in pools:
            continue
        ways = [way for option, setting in options.items() if (way := worker.set_to(option, setting))]
        ways += [f"{attribute} = {value} of {task}" for task, value in worker.having(attribute).items()]
        if ways:
            yield Finding(worker.name, f"{', '.join(ways)}; the pool is {worker.pool}")
        elif worker.process is None:
            yield NotChecked(worker.name, f"nothing in its settings; its command line is not known: {_ELSEWHERE}")


_SOFT, _HARD = {"soft_time_limit": "task_soft_time_limit"}, {"time_limit": "task_time_limit"}
_RECYCLING = {name: f"worker_{name}" for name in ("max_tasks_per_child", "max_memory_per_child")}
LOOKS["P01"] = partial(_ignored, pools=(*_GREEN, "solo"), options=_SOFT, attribute="soft_time_limit")
LOOKS["P02"] = partial(_ignored, pools=("threads", "solo"), options=_HARD, attribute="time_limit")
LOOKS["P03"] = partial(_ignored, pools=(*_GREEN, "solo"), options=_RECYCLING, attribute="")


@per_process("P04", *_GREEN)
def few_slots(worker: Worker, process: WorkerProcess) -> Found:
    few = worker.slots <= process.host_cores
    return f"{worker.pool} with {worker.slots} slots on {process.host_cores} cores" if few else None


@check("P05")
def unpatched(seen: Observation) -> Iterator[Result]:
    processes = list(seen.mute or ())  # such a worker hardly ever answers
    if seen.mute is None:
        yield NotChecked("this host", _UNKNOWN)
    for worker in seen.workers:
        if worker.pool == "gevent" and worker.process is not None:
            processes.append(worker.process)
        elif worker.pool == "gevent":
            yield NotChecked(worker.name, f"its command line is not known: {_ELSEWHERE}")
    for process in processes:
        pool = process.options.get("pool")
        if not process.patches_gevent and (pool or seen.app.conf.worker_pool) == "gevent":
            spelt = f"the option is not spelt -P {pool}" if pool else "no -P in its command line"
            yield Finding(process.name or f"pid {process.pid}", f"the pool is gevent, and {spelt}")


@per_process("P06", "prefork")
def more_than_cores(worker: Worker, process: WorkerProcess) -> Found:
    if not worker.slots >= process.host_cores > process.cores:
        return None
    return f"{worker.slots} slots; it may use {process.cores:g} of {process.host_cores} cores"


@per_worker("P07", "threads")
def autoscaled_threads(_seen: Observation, worker: Worker) -> Found:
    scale = worker.stats.get("autoscaler")
    return f"--autoscale {scale.get('max')},{scale.get('min')} on threads" if scale else None


@per_worker("P08", "gevent")
def computing_gevent(_seen: Observation, worker: Worker) -> Found:
    busy = worker.cpu_share > BUSY
    return f"it used {worker.cpu_share:.0%} of a core while it was looked at" if busy else None


@check("P09")
def async_tasks(seen: Observation) -> Iterator[Result]:
    pools = sorted({worker.pool for worker in seen.workers} & set(POOLS.values()))
    for name, task in seen.own_tasks.items():
        if pools and is_async(task):
            yield Finding(name, f"async def, on {', '.join(pools)}")


@per_worker("P10", "gevent")
def blocked_hub(_seen: Observation, worker: Worker) -> Found:
    late = [seconds for seconds in worker.late if seconds > LATE]
    if len(late) < LATE_PINGS:
        return None
    of = f"{len(late)} of {len(worker.late)} pings"
    return f"{of} were answered later than {LATE} s, the last after {max(late):.1f} s"


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


@per_worker("R02", late=True)
def longer_than_visibility(seen: Observation, worker: Worker) -> Found:
    found = _longer(worker, worker.late_acked, seen.visibility)
    return f"visibility timeout {seen.visibility:g} s; {found}" if found else None


@per_worker("R03")
def early_ack(_seen: Observation, worker: Worker) -> Found:
    early = sorted(set(worker.tasks) - set(worker.late_acked))
    return f"{len(early)} of {len(worker.tasks)} tasks are acknowledged early: {_some(early)}" if early else None


@per_worker("R04", "prefork")
def poison(_seen: Observation, worker: Worker) -> Found:
    everywhere = worker.conf.get("task_reject_on_worker_lost")
    reject = worker.tasks if everywhere else worker.having("reject_on_worker_lost")
    tasks = [task for task in worker.late_acked if task in reject]
    return f"reject_on_worker_lost and acks_late: {_some(tasks)}" if tasks else None


@per_worker("R05", "prefork", "threads", late=True)
def redis_restart(_seen: Observation, worker: Worker) -> Found:
    here = __version__ == "5.7.0"
    return f"Celery {__version__}, {worker.pool}, acks_late: {_some(worker.late_acked)}" if here else None


@per_worker("R06", "prefork", *_GREEN, late=True)
def twice_after_loss(_seen: Observation, worker: Worker) -> Found:
    on = worker.conf.get("worker_cancel_long_running_tasks_on_connection_loss")
    if on and worker.pool != "threads":
        return None
    state = "on, without effect" if on else "off"
    return f"{worker.pool}, the setting is {state}; acks_late: {_some(worker.late_acked)}"


@per_worker("R07")
def far_eta(seen: Observation, worker: Worker) -> Found:
    far = [f"{task} is due in {due:.0f} s" for task, due in worker.etas.items() if due > seen.visibility]
    return f"visibility timeout {seen.visibility:g} s; {_some(far)}" if far else None


@check("R08")
def backoff_alone(seen: Observation) -> Iterator[Result]:
    for name, task in seen.own_tasks.items():
        if (backoff := getattr(task, "retry_backoff", None)) and not getattr(task, "autoretry_for", ()):
            delay = task.default_retry_delay
            yield Finding(name, f"retry_backoff = {backoff}, no autoretry_for; default_retry_delay = {delay}")


@per_worker("R09", "prefork", "threads", late=True)
def slow_restore(_seen: Observation, worker: Worker) -> Found:
    """Idle prefork and threads workers put a killed worker's messages back after so long, at the latest."""
    throttle = [float(worker.transport_options.get(f"unacked_restore_{word}", 10)) for word in ("interval", "throttle")]
    seconds = worker.visibility + throttle[0] * throttle[1]
    slow = seconds > SLOW_RESTORE
    return f"after up to {seconds:g} s: visibility timeout {worker.visibility:g} s, and the restore" if slow else None


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
def prefetch(_seen: Observation, worker: Worker) -> Found:
    count = int(worker.stats.get("prefetch_count", 0))
    free = count - len(worker.scheduled)  # for each message that is not due yet Celery takes one more
    if count > 0 and free <= PREFETCH * worker.slots:
        return None
    most = f"up to {free} messages" if count else "any number of messages"
    return f"takes {most} for {worker.slots} slots; {worker.reserved.total()} wait in it now"


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
def expiry(_seen: Observation, worker: Worker) -> Found:
    backend, expires = str(worker.conf.get("result_backend") or ""), worker.conf.get("result_expires")
    kept = backend.startswith(("redis", "rediss", "sentinel")) and not expires
    return f"result_expires = {expires}, results in Redis" if kept else None


@check("B04")
def stranded(seen: Observation) -> Iterator[Result]:
    if seen.orphans is None:
        yield NotChecked("broker", "it refused to show which messages are unacknowledged")
    elif silent := [*seen.silent, *(process.name for process in seen.mute or ())]:
        yield NotChecked("broker", f"a worker that does not answer may have them: {_some(silent)}")
    elif ages := [age for age in seen.orphans if age > STRANDED]:
        yield Finding("broker", f"{len(ages)} of the oldest unacknowledged messages, the oldest for {max(ages):.0f} s")


@check("B05")
def buffers(seen: Observation) -> Iterator[Result]:
    for client in seen.broker.ask("client_list", _type="pubsub"):
        if (size := int(client.get("omem", 0))) > BUFFERED:
            who = client.get("name") or client.get("addr")
            yield Finding("broker", f"{size:,} bytes wait for the subscriber {who}")


@per_worker("B06", "gevent", late=True)
def connections(_seen: Observation, worker: Worker) -> Found:
    most = int(worker.transport_options.get("max_connections") or MOST_CONNECTIONS)
    few = most < 2 * worker.slots
    return f"max_connections {most} for {worker.slots} greenlets, acks_late" if few else None


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


@per_process("D04", *_GREEN)
def descriptors(worker: Worker, process: WorkerProcess) -> Found:
    few = 0 <= process.descriptors < 2 * worker.slots
    return f"ulimit -n {process.descriptors} for {worker.slots} slots" if few else None


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
        yield Finding(process.name or f"pid {process.pid}", f"pid {process.pid}, started with -A {process.app}")
