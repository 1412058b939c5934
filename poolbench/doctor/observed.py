"""What live workers, their processes, the broker and the app say, read once; nothing is changed or sent but questions.

Workers are asked by remote control, as ``celery inspect`` does. Options of the command line are invisible to it: they
are read from the process, when it runs on this host. Passwords are in none of these values.
"""

from __future__ import annotations

import inspect
import json
import re
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from celery.app.control import DuplicateNodenameWarning
from kombu.exceptions import OperationalError

from poolbench.doctor.worker_process import WorkerProcess, others_here, process_of

POOLS = {
    "prefork": "prefork",
    "thread": "threads",
    "gevent": "gevent",
    "solo": "solo",
}  # by module of celery.concurrency
PINGS, BETWEEN_PINGS = 8, 0.1  # to each gevent worker, and seconds between two
WINDOW = 1.5  # seconds, at the least, over which CPU is measured and tasks and their events are counted
_EVENT = 3.0  # seconds that an event may lie in its worker: they are sent in batches
OLDEST = 100  # unacknowledged messages that are looked at
DEFAULT_VISIBILITY = 3600.0  # seconds, of kombu's Redis transport
_ATTRIBUTES = ("acks_late", "soft_time_limit", "time_limit", "reject_on_worker_lost", "rate_limit")


class CannotAskError(Exception):
    """No diagnosis is possible: the app, the broker or every worker is out of reach."""


class BrokerRefusedError(Exception):
    """Redis refused a command that a check needs, or did not answer it."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    task: str
    queue: str
    age: float  # seconds since it began


@dataclass(frozen=True, slots=True)
class Worker:
    name: str
    pool: str  # prefork, threads, gevent, solo; else the name of the module
    slots: int
    version: str  # of Celery
    conf: Mapping[str, Any]  # with defaults
    stats: Mapping[str, Any]
    queues: tuple[str, ...]
    tasks: Mapping[str, Mapping[str, str]]  # name: the attributes that are set, as text
    running: tuple[RunningTask, ...]
    reserved: Counter[str]  # tasks of messages in hand that do not run yet
    scheduled: int  # messages in hand that are not due yet
    etas: Mapping[str, float]  # task: seconds until it is due, the longest
    held: frozenset[str]  # ids of all messages in its hands
    cpu_share: float  # of one core, while it was looked at
    late: tuple[float, ...]  # seconds from a ping to its answer; gevent only
    began: int  # tasks while it was looked at
    process: WorkerProcess | None  # None: not on this host, or not readable

    def set_to(self, option: str, setting: str) -> str:
        """How an option of the command line, or else a setting, is set: for people; empty if it is not, or not seen."""
        if self.process is not None and (value := self.process.options.get(option)):
            return f"--{option.replace('_', '-')} {value}"
        value = self.conf.get(setting)
        return f"{setting} = {value}" if value else ""

    def having(self, attribute: str) -> dict[str, str]:
        """Tasks with the attribute set, and its value."""
        return {name: each[attribute] for name, each in self.tasks.items() if each.get(attribute, "False") != "False"}

    @property
    def late_acked(self) -> list[str]:
        return sorted(self.having("acks_late"))

    @property
    def transport_options(self) -> Mapping[str, Any]:
        return self.conf.get("broker_transport_options") or {}

    @property
    def visibility(self) -> float:
        """Seconds."""
        return float(self.transport_options.get("visibility_timeout", DEFAULT_VISIBILITY))


@dataclass(frozen=True, slots=True)
class Broker:
    kind: str  # the transport: redis, amqp
    address: str  # without name and password
    connection: Any
    redis: Any = None  # a plain client, or None
    prefix: str = ""  # of every key
    fanout: str = ""  # of every channel of events
    transport_options: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, command: str, *words: Any, **more: Any) -> Any:
        """A method of redis-py that only reads.

        Raises:
            BrokerRefusedError: not permitted, not known or not answered.
        """
        from redis.exceptions import RedisError  # noqa: PLC0415 - only where the broker is Redis

        try:
            return getattr(self.redis, command)(*words, **more)
        except RedisError as error:
            raise BrokerRefusedError(f"it refused {command.upper().replace('_', ' ')}: {error}") from error

    def info(self, section: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.ask("info", section)
        return found

    def waiting(self, queue: str) -> int:
        """Messages on the queue."""
        with self.connection.channel() as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except self.connection.channel_errors:  # there is none, so nothing waits
                return 0

    def next_tasks(self, queue: str, most: int = 20) -> Counter[str]:
        """Names of the tasks that are taken next from a queue of Redis; nothing is removed."""
        found: Counter[str] = Counter()
        for text in self.ask("lrange", self.prefix + queue, -most, -1):
            with suppress(ValueError, KeyError, TypeError):
                found[json.loads(text)["headers"]["task"]] += 1
        return found


@dataclass(frozen=True, slots=True)
class Observed:
    app: Any
    broker: Broker
    workers: tuple[Worker, ...]
    names: Mapping[str, int]  # answers to one ping by each name
    silent: tuple[str, ...]  # answered the ping, and then not all questions
    events_of: frozenset[str] | None  # workers whose task events were heard; None: the broker refused
    grace: float | None  # seconds that the platform gives a worker to stop; None: not said
    orphans: Mapping[str, float] | None  # unacked messages in no worker's hands: id, and age in seconds; None: refused
    mute: tuple[WorkerProcess, ...] | None  # connected workers on this host that did not answer; None: not known

    @property
    def late_acking(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.late_acked]

    @property
    def own_tasks(self) -> dict[str, Any]:
        return {name: task for name, task in self.app.tasks.items() if not name.startswith("celery.")}


def is_async(task: Any) -> bool:
    body = inspect.unwrap(task.run)  # autoretry_for wraps it
    return inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body)


# -- asking


def observe(app: Any, timeout: float, grace: float | None = None) -> Observed:
    """
    Args:
        timeout: seconds that an answer may take, of a worker and of the broker.

    Raises:
        CannotAskError: the broker is away, or no worker answers.
    """
    broker = _broker(app, timeout)
    warnings.simplefilter("ignore", DuplicateNodenameWarning)  # a check says so
    try:
        names = Counter(name for reply in app.control.ping(timeout=timeout) for name in reply)
        before = _unacked(broker)
        with _task_events(app, broker) as heard:
            workers, silent = _workers(app, names, timeout)
            last = time.monotonic() + _EVENT
            while time.monotonic() < last and not heard.issuperset(each.name for each in workers if each.began):
                time.sleep(0.05)
        after = _unacked(broker)
    except (OperationalError, *broker.connection.connection_errors) as error:
        raise CannotAskError(f"the broker at {broker.address} went away: {type(error).__name__}: {error}") from error
    mute = _mute(broker, names, {int(worker.stats["pid"]) for worker in workers})
    if not names and not mute:
        raise CannotAskError(
            f"no worker answered within {timeout:g} s at {broker.address}: is one up that uses this broker? "
            "A gevent or solo worker that computes cannot answer; give it more time: --timeout 10"
        )
    held = frozenset[str]().union(*(worker.held for worker in workers))
    limited = {task for worker in workers for task in worker.having("rate_limit")}  # these wait unseen
    orphans = {key: since for key, (task, since) in (after or {}).items() if key not in held and task not in limited}
    return Observed(
        app=app,
        broker=broker,
        workers=workers,
        names=names,
        silent=silent,
        events_of=None if None in heard else frozenset(filter(None, heard)),
        grace=grace,
        orphans=None
        if before is None or after is None
        else {key: time.time() - since for key, since in orphans.items() if key in before},
        mute=mute,
    )


def _broker(app: Any, timeout: float) -> Broker:
    options = dict(app.conf.broker_transport_options)
    connection = app.connection_for_read()
    kind = connection.transport.driver_type
    address = re.sub(r"//[^/@]*@", "//", connection.as_uri()).partition("?")[0]
    if kind == "redis":  # so that a server which accepts and says nothing ends the command, too
        app.conf.broker_transport_options = {
            **options,
            "socket_timeout": timeout + 1,
            "socket_connect_timeout": timeout,
        }
        connection = app.connection_for_read()
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=timeout)
        channel = connection.default_channel
    except Exception as error:
        raise CannotAskError(f"the broker does not answer at {address}: {type(error).__name__}: {error}") from error
    if kind != "redis":
        return Broker(kind, address, connection, transport_options=options)
    from redis import Redis  # noqa: PLC0415 - only where the broker is Redis

    client = Redis(connection_pool=channel.pool)
    return Broker(kind, address, connection, client, channel.global_keyprefix or "", channel.keyprefix_fanout, options)


def _mute(broker: Broker, names: Collection[str], known: Collection[int]) -> tuple[WorkerProcess, ...] | None:
    """Of this host, connected to the broker's database; None if the broker does not say who is connected."""
    if broker.redis is None:
        return None
    database = str(broker.redis.connection_pool.connection_kwargs.get("db", 0))
    try:
        clients = broker.ask("client_list")
    except BrokerRefusedError:
        return None
    ports = {int(each["addr"].rpartition(":")[2]) for each in clients if each["db"] == database}
    connected = others_here(broker.connection.port or 0, ports, known)
    return tuple(process for process in connected if process.name not in names)


def _unacked(broker: Broker) -> dict[str, tuple[str, float]] | None:
    """The oldest messages that workers took and did not acknowledge: id, task, and when they were taken."""
    if broker.redis is None:
        return None
    key, index = (
        broker.prefix + broker.transport_options.get(f"{name}_key", name) for name in ("unacked", "unacked_index")
    )
    found = {}
    try:
        tags = dict(broker.ask("zrange", index, 0, OLDEST - 1, withscores=True))
        texts = broker.ask("hmget", key, list(tags)) if tags else ()
    except BrokerRefusedError:
        return None
    for text, since in zip(texts, tags.values(), strict=True):
        with suppress(ValueError, KeyError, TypeError):  # gone meanwhile, or not Celery's
            headers = json.loads(text)[0]["headers"]
            found[headers["id"]] = (headers["task"], float(since))
    return found


@contextmanager
def _task_events(app: Any, broker: Broker) -> Iterator[set[str | None]]:
    """Names of workers whose task events are on the way, by a plain subscription: it binds no queue.

    None is among them when the broker refused to let us listen.
    """
    heard: set[str | None] = set()
    if broker.redis is None:
        yield {None}
        return
    from poolbench.workers import events  # noqa: PLC0415 - it needs redis

    def note(message: Mapping[str, Any]) -> None:
        heard.update(str(event.get("hostname")) for event in events(message["data"]))

    def refused(_error: BaseException, _pubsub: Any, thread: Any) -> None:
        heard.add(None)
        thread.stop()

    pubsub = broker.redis.pubsub(ignore_subscribe_messages=True)
    pubsub.psubscribe(**{f"{broker.prefix}{broker.fanout}{app.conf.event_exchange}/task.*": note})
    thread = pubsub.run_in_thread(sleep_time=0.1, daemon=True, exception_handler=refused)
    try:
        yield heard
    finally:
        thread.stop()
        thread.join(2.0)


def _workers(app: Any, names: Counter[str], timeout: float) -> tuple[tuple[Worker, ...], tuple[str, ...]]:
    if not names:
        return (), ()
    ask = app.control.inspect(destination=list(names), timeout=timeout, limit=names.total())
    began, before = time.monotonic(), ask.stats() or {}
    answers = {
        "conf": ask.conf(with_defaults=True),
        "queues": ask.active_queues(),
        "registered": ask.registered(*_ATTRIBUTES),
        "active": ask.active(),
        "reserved": ask.reserved(),
        "scheduled": ask.scheduled(),
        "report": ask.report(),
    }
    green = [name for name, stats in before.items() if _pool(stats) == "gevent"]
    late = _lateness(app, green, timeout)
    time.sleep(max(0.0, WINDOW - (time.monotonic() - began)))
    after = ask.stats() or {}
    seconds = time.monotonic() - began
    found, silent = [], []
    for name in sorted(names):
        said = {what: (answer or {}).get(name) for what, answer in answers.items()}
        if name not in before or name not in after or None in said.values():
            silent.append(name)
            continue
        cpu, count = _cpu(after[name]) - _cpu(before[name]), _count(after[name]) - _count(before[name])
        found.append(_worker(name, before[name], said, cpu / seconds, count, late.get(name, [])))
    return tuple(found), tuple(silent)


def _worker(  # noqa: PLR0917 - what was seen of one worker, each once
    name: str, stats: Mapping[str, Any], said: dict[str, Any], cpu_share: float, began: int, late: list[float]
) -> Worker:
    now = time.time()
    requests = [*said["active"], *said["reserved"], *(each["request"] for each in said["scheduled"])]
    etas: dict[str, float] = {}
    for each in said["scheduled"]:
        if each["eta"]:
            due, task = datetime.fromisoformat(each["eta"]).timestamp() - now, each["request"]["name"]
            etas[task] = max(due, etas.get(task, 0.0))
    version = re.search(r"celery:(\S+)", said["report"]["ok"])
    return Worker(
        name=name,
        pool=_pool(stats),
        slots=int(stats["pool"].get("max-concurrency") or 1),
        version=version[1] if version else "",
        conf=said["conf"],
        stats=stats,
        queues=tuple(queue["name"] for queue in said["queues"]),
        tasks=dict(_attributes(text) for text in said["registered"]),
        running=tuple(
            RunningTask(each["name"], each["delivery_info"]["routing_key"], now - (each["time_start"] or now))
            for each in said["active"]
        ),
        reserved=Counter(each["name"] for each in said["reserved"]),
        scheduled=len(said["scheduled"]),
        etas=etas,
        held=frozenset(each["id"] for each in requests),
        cpu_share=cpu_share,
        late=tuple(late),
        began=began,
        process=process_of(name, stats),
    )


def _attributes(text: str) -> tuple[str, dict[str, str]]:
    """``shop.pay [acks_late=True time_limit=30]``"""
    name, _, rest = text.partition(" [")
    return name, dict(pair.split("=", 1) for pair in rest.removesuffix("]").split(" ") if "=" in pair)


def _pool(stats: Mapping[str, Any]) -> str:
    module = str(stats["pool"].get("implementation", "")).partition(":")[0].rpartition(".")[2]
    return POOLS.get(module, module)


def _cpu(stats: Mapping[str, Any]) -> float:
    usage = stats["rusage"]
    return float(usage["utime"] + usage["stime"]) if isinstance(usage, Mapping) else 0.0


def _count(stats: Mapping[str, Any]) -> int:
    return sum(stats["total"].values())


def _lateness(app: Any, names: list[str], timeout: float) -> dict[str, list[float]]:
    """How long each worker's answers to some pings took; one that did not come counts with the timeout."""
    late: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(PINGS if names else 0):
        asked, heard = time.monotonic(), dict.fromkeys(names, timeout)

        def note(reply: Mapping[str, Any], asked: float = asked, heard: dict[str, float] = heard) -> None:
            heard.update(dict.fromkeys(reply, time.monotonic() - asked))

        app.control.ping(destination=names, timeout=timeout, callback=note)
        for name in names:
            late[name].append(heard[name])
        time.sleep(BETWEEN_PINGS)
    return late
