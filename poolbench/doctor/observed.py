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
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from celery.app.control import DuplicateNodenameWarning
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from poolbench.doctor.worker_process import WorkerProcess, others_here, process_of
from poolbench.runfiles import PoolbenchError
from poolbench.workers import events

# By module of celery.concurrency.
POOLS = {"prefork": "prefork", "thread": "threads", "gevent": "gevent", "solo": "solo"}
PINGS, BETWEEN_PINGS = 8, 0.1  # to each gevent worker, and seconds between two
WINDOW = 1.5  # seconds, at the least, over which CPU is measured and tasks and their events are counted
_EVENT = 3.0  # seconds that an event may lie in its worker: they are sent in batches
OLDEST = 100  # unacknowledged messages that are looked at
DEFAULT_VISIBILITY = 3600.0  # seconds, of kombu's Redis transport
_ATTRIBUTES = ("acks_late", "soft_time_limit", "time_limit", "reject_on_worker_lost", "rate_limit")
_SECRET = re.compile(r"(\w://)[^/@\s\"]*@")


def without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1", text)


class CannotAskError(PoolbenchError):
    """No diagnosis is possible: the broker or every worker is out of reach."""


class BrokerRefusedError(Exception):
    """Redis refused a command that a check needs, or did not answer it."""


@dataclass(frozen=True)
class Worker:
    """What a worker answered, and what follows from it."""

    name: str
    stats: Mapping[str, Any]
    said: Mapping[str, Any]  # its answers to all other questions
    cpu_share: float  # of one core, while it was looked at
    late: tuple[float, ...]  # seconds from a ping to its answer; gevent only
    began: int  # tasks while it was looked at
    process: WorkerProcess | None  # None: not on this host, or not readable

    @property
    def pool(self) -> str:
        """prefork, threads, gevent, solo; else the name of the module"""
        return _pool(self.stats)

    @property
    def slots(self) -> int:
        return int(self.stats["pool"].get("max-concurrency") or 1)

    @property
    def conf(self) -> Mapping[str, Any]:
        """With defaults."""
        found: Mapping[str, Any] = self.said["conf"]
        return found

    @property
    def queues(self) -> list[str]:
        return [queue["name"] for queue in self.said["queues"]]

    @cached_property
    def tasks(self) -> dict[str, dict[str, str]]:
        """By name the attributes that are set, as text: ``shop.pay [acks_late=True time_limit=30]``"""
        parts = (text.partition(" [")[::2] for text in self.said["registered"])
        return {name: dict(re.findall(r"(\w+)=([^ \]]*)", attributes)) for name, attributes in parts}

    @property
    def running(self) -> list[tuple[str, float]]:
        """Tasks, and seconds since each began."""
        now = time.time()
        return [(each["name"], now - (each["time_start"] or now)) for each in self.said["active"]]

    @property
    def reserved(self) -> Counter[str]:
        """Tasks of messages in hand that do not run yet."""
        return Counter(each["name"] for each in self.said["reserved"])

    @property
    def scheduled(self) -> list[dict[str, Any]]:
        """Messages in hand that are not due yet."""
        return list(self.said["scheduled"])

    @property
    def etas(self) -> dict[str, float]:
        """Seconds until a task is due, the longest, by task."""
        etas = [(each["request"]["name"], each["eta"]) for each in self.scheduled if each["eta"]]
        due = sorted((datetime.fromisoformat(eta).timestamp() - time.time(), task) for task, eta in etas)
        return {task: seconds for seconds, task in due}

    @property
    def held(self) -> set[str]:
        """Ids of all messages in its hands."""
        scheduled = (each["request"] for each in self.scheduled)
        return {each["id"] for each in (*self.said["active"], *self.said["reserved"], *scheduled)}

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
        try:
            return getattr(self.redis, command)(*words, **more)
        except RedisError as error:
            raise BrokerRefusedError(f"it refused {command.upper().replace('_', ' ')}: {error}") from error

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
class Observation:
    app: Any
    broker: Broker
    workers: list[Worker]
    names: Mapping[str, int]  # answers to one ping by each name
    silent: list[str]  # answered the ping, and then not all questions
    events_of: set[str] | None  # workers whose task events were heard; None: the broker refused
    grace: float | None  # seconds that the platform gives a worker to stop; None: not said
    orphans: list[float] | None  # seconds since messages that no worker has in hand were taken; None: refused
    mute: list[WorkerProcess] | None  # connected workers on this host that did not answer; None: not known

    @property
    def own_tasks(self) -> dict[str, Any]:
        return {name: task for name, task in self.app.tasks.items() if not name.startswith("celery.")}

    @property
    def visibility(self) -> float:
        """Seconds: whichever worker looks, restores for all."""
        return min((worker.visibility for worker in self.workers), default=0.0)


def is_async(task: Any) -> bool:
    body = inspect.unwrap(task.run)  # autoretry_for wraps it
    return inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body)


# -- asking


def observe(app: Any, timeout: float, grace: float | None = None) -> Observation:
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
        subscribed, began = _subscribed(app, broker), time.time()
        workers = _workers(app, names, timeout)
        heard = _heard(subscribed, {each.name for each in workers if each.began})
        unacked = _unacked(broker)
    except (OperationalError, *broker.connection.connection_errors) as error:
        raise CannotAskError(f"the broker at {broker.address} went away: {type(error).__name__}: {error}") from error
    mute = _mute(broker, names, {int(worker.stats["pid"]) for worker in workers})
    if not names and not mute:
        raise CannotAskError(
            f"no worker answered within {timeout:g} s at {broker.address}: is one up that uses this broker? "
            "A gevent or solo worker that computes cannot answer; give it more time: --timeout 10"
        )
    held = set[str]().union(*(worker.held for worker in workers))
    limited = {task for worker in workers for task in worker.having("rate_limit")}  # these wait unseen
    orphans = None
    if unacked is not None:  # what a worker took since it was asked is not among what it has in hand
        ours = (since for key, task, since in unacked if key not in held and task not in limited)
        orphans = [time.time() - since for since in ours if since < began]
    silent = sorted(set(names) - {worker.name for worker in workers})
    return Observation(app, broker, workers, names, silent, heard, grace, orphans, mute)


def _broker(app: Any, timeout: float) -> Broker:
    options = dict(app.conf.broker_transport_options)
    connection = app.connection_for_read()
    kind = connection.transport.driver_type
    address = without_secrets(connection.as_uri()).partition("?")[0]
    if kind == "redis":  # so that a server which accepts and says nothing ends the command, too
        times = {"socket_timeout": timeout + 1, "socket_connect_timeout": timeout}
        app.conf.broker_transport_options = {**options, **times}
        connection = app.connection_for_read()
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=timeout)
        channel = connection.default_channel
    except Exception as error:
        said = without_secrets(f"{type(error).__name__}: {error}")
        raise CannotAskError(f"the broker does not answer at {address}: {said}") from error
    if kind != "redis":
        return Broker(kind, address, connection, transport_options=options)
    client = Redis(connection_pool=channel.pool)
    return Broker(kind, address, connection, client, channel.global_keyprefix or "", channel.keyprefix_fanout, options)


def _mute(broker: Broker, names: Collection[str], known: Collection[int]) -> list[WorkerProcess] | None:
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
    return [process for process in connected if process.name not in names]


def _unacked(broker: Broker) -> list[tuple[str, str, float]] | None:
    """The oldest messages that workers took and did not acknowledge: id, task, and when each was taken."""
    if broker.redis is None:
        return None
    options, found = broker.transport_options, []
    key, index = (broker.prefix + options.get(f"{name}_key", name) for name in ("unacked", "unacked_index"))
    try:
        tags = dict(broker.ask("zrange", index, 0, OLDEST - 1, withscores=True))
        texts = broker.ask("hmget", key, list(tags)) if tags else ()
    except BrokerRefusedError:
        return None
    for text, since in zip(texts, tags.values(), strict=True):
        with suppress(ValueError, KeyError, TypeError):  # gone meanwhile, or not Celery's
            headers = json.loads(text)[0]["headers"]
            found.append((headers["id"], headers["task"], float(since)))
    return found


def _subscribed(app: Any, broker: Broker) -> Any:
    """To events of tasks, by a plain subscription: it binds no queue. None if the broker is no Redis."""
    if broker.redis is None:
        return None
    heard = broker.redis.pubsub(ignore_subscribe_messages=True)
    heard.psubscribe(f"{broker.prefix}{broker.fanout}{app.conf.event_exchange}/task.*")
    return heard


def _heard(subscribed: Any, awaited: Collection[str]) -> set[str] | None:
    """Workers whose events came; None if the broker did not let us listen."""
    if subscribed is None:
        return None
    heard: set[str] = set()
    last = time.monotonic() + _EVENT
    try:
        while True:
            if message := subscribed.get_message(timeout=0.1):
                heard.update(str(event.get("hostname")) for event in events(message["data"]))
            if heard.issuperset(awaited) or time.monotonic() > last:
                return heard
    except RedisError:
        return None
    finally:
        subscribed.close()


def _workers(app: Any, names: Counter[str], timeout: float) -> list[Worker]:
    """Those that answer all questions."""
    if not names:
        return []
    ask = app.control.inspect(destination=list(names), timeout=timeout, limit=names.total())
    began, before = time.monotonic(), ask.stats() or {}
    answers = {
        "conf": ask.conf(with_defaults=True),
        "queues": ask.active_queues(),
        "registered": ask.registered(*_ATTRIBUTES),
        "active": ask.active(),
        "reserved": ask.reserved(),
        "scheduled": ask.scheduled(),
    }
    late = _lateness(app, [name for name, stats in before.items() if _pool(stats) == "gevent"], timeout)
    time.sleep(max(0.0, WINDOW - (time.monotonic() - began)))
    after = ask.stats() or {}
    seconds = time.monotonic() - began
    found = []
    for name in sorted(names):
        said = {what: (answer or {}).get(name) for what, answer in answers.items()}
        if name not in before or name not in after or None in said.values():
            continue
        share = (_cpu(after[name]) - _cpu(before[name])) / seconds
        count = sum(after[name]["total"].values()) - sum(before[name]["total"].values())
        process = process_of(name, before[name])
        found.append(Worker(name, before[name], said, share, tuple(late.get(name, ())), count, process))
    return found


def _pool(stats: Mapping[str, Any]) -> str:
    module = str(stats["pool"].get("implementation", "")).partition(":")[0].rpartition(".")[2]
    return POOLS.get(module, module)


def _cpu(stats: Mapping[str, Any]) -> float:
    usage = stats["rusage"]
    return float(usage["utime"] + usage["stime"]) if isinstance(usage, Mapping) else 0.0


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
