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
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
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


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker answered, and what follows from it."""

    name: str
    pool: str  # prefork, threads, gevent, solo; else the name of the module
    slots: int
    stats: Mapping[str, Any]
    conf: Mapping[str, Any]  # with defaults
    queues: list[str]
    tasks: Mapping[str, Mapping[str, str]]  # by name the attributes that are set, as text
    running: list[tuple[str, float]]  # tasks, and seconds since each began
    reserved: Counter[str]  # tasks of messages in hand that do not run yet
    scheduled: int  # messages in hand that are not due yet
    etas: Mapping[str, float]  # seconds until a task is due, the longest, by task
    held: set[str]  # ids of all messages in its hands
    cpu_share: float  # of one core, while it was looked at
    late: tuple[float, ...]  # seconds from a ping to its answer; gevent only
    began: int  # tasks while it was looked at
    process: WorkerProcess

    def set_to(self, option: str, setting: str) -> str:
        """How an option of the command line, or else a setting, is set: for people; empty if it is not, or not seen."""
        if value := self.process.options.get(option):
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

    def ask(self, command: str, *words: Any, to: str = "", **more: Any) -> Any:
        """A method of redis-py that only reads.

        Args:
            to: what for; instead of the command in the words of a refusal.

        Raises:
            BrokerRefusedError: not permitted, not known or not answered.
        """
        try:
            return getattr(self.redis, command)(*words, **more)
        except RedisError as error:
            what = to or f"{command.upper().replace('_', ' ')}: {error}"
            raise BrokerRefusedError(f"it refused {what}") from error

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

    def unacked(self) -> list[tuple[str, str, float]]:
        """The oldest messages that workers took and did not acknowledge: id, task, and when each was taken."""
        options, to, found = self.transport_options, "to show which messages are unacknowledged", []
        key, index = (self.prefix + options.get(f"{name}_key", name) for name in ("unacked", "unacked_index"))
        tags = dict(self.ask("zrange", index, 0, OLDEST - 1, withscores=True, to=to))
        texts = self.ask("hmget", key, list(tags), to=to) if tags else ()
        for text, since in zip(texts, tags.values(), strict=True):
            with suppress(ValueError, KeyError, TypeError):  # gone meanwhile, or not Celery's
                headers = json.loads(text)[0]["headers"]
                found.append((headers["id"], headers["task"], float(since)))
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
    asked: float  # when the workers began to be asked, in seconds since the epoch
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
        subscribed, asked = _subscribed(app, broker), time.time()
        workers = _workers(app, names, timeout)
        heard = _heard(subscribed, {each.name for each in workers if each.began})
    except (OperationalError, *broker.connection.connection_errors) as error:
        raise CannotAskError(f"the broker at {broker.address} went away: {type(error).__name__}: {error}") from error
    mute = _mute(broker, names, {int(worker.stats["pid"]) for worker in workers})
    if not names and not mute:
        raise CannotAskError(
            f"no worker answered within {timeout:g} s at {broker.address}: is one up that uses this broker? "
            "A gevent or solo worker that computes cannot answer; give it more time: --timeout 10"
        )
    silent = sorted(set(names) - {worker.name for worker in workers})
    return Observation(app, broker, workers, names, silent, heard, grace, asked, mute)


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
    if broker.redis is not None:
        database = str(broker.redis.connection_pool.connection_kwargs.get("db", 0))
        with suppress(BrokerRefusedError):
            clients = broker.ask("client_list")
            ports = {int(each["addr"].rpartition(":")[2]) for each in clients if each["db"] == database}
            connected = others_here(broker.connection.port or 0, ports, known)
            return [process for process in connected if process.name not in names]
    return None


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
    heard, last = set[str](), time.monotonic() + _EVENT
    with suppress(RedisError), subscribed:
        while True:
            if message := subscribed.get_message(timeout=0.1):
                heard.update(str(event.get("hostname")) for event in events(message["data"]))
            if heard.issuperset(awaited) or time.monotonic() > last:
                return heard
    return None


def _workers(app: Any, names: Counter[str], timeout: float) -> list[Worker]:
    """Those that answer all questions."""
    if not names:
        return []
    ask = app.control.inspect(destination=list(names), timeout=timeout, limit=names.total())
    asked, before = time.monotonic(), ask.stats() or {}
    answers = {
        "conf": ask.conf(with_defaults=True),
        "queues": ask.active_queues(),
        "registered": ask.registered(*_ATTRIBUTES),
        "active": ask.active(),
        "reserved": ask.reserved(),
        "scheduled": ask.scheduled(),
    }
    late = _lateness(app, [name for name, stats in before.items() if _pool(stats) == "gevent"], timeout)
    time.sleep(max(0.0, WINDOW - (time.monotonic() - asked)))
    after = ask.stats() or {}
    seconds = time.monotonic() - asked
    found = []
    for name in sorted(names):
        said = {what: (answer or {}).get(name) for what, answer in answers.items()}
        if name not in before or name not in after or None in said.values():
            continue
        share = (_cpu(after[name]) - _cpu(before[name])) / seconds
        began = sum(after[name]["total"].values()) - sum(before[name]["total"].values())
        with suppress(KeyError, TypeError, ValueError, AttributeError):  # an answer was an error: it counts as silent
            found.append(_worker(name, before[name], said, cpu_share=share, late=late.get(name, ()), began=began))
    return found


def _worker(
    name: str, stats: Mapping[str, Any], said: Mapping[str, Any], *, cpu_share: float, late: Sequence[float], began: int
) -> Worker:
    """Args: said: its answers to all other questions."""
    now, scheduled = time.time(), [each["request"] for each in said["scheduled"]]
    parts = (text.partition(" [")[::2] for text in said["registered"])  # shop.pay [acks_late=True time_limit=30]
    etas = [(each["eta"], each["request"]["name"]) for each in said["scheduled"] if each["eta"]]
    due = sorted((datetime.fromisoformat(eta).timestamp() - now, task) for eta, task in etas)
    return Worker(
        name=name,
        pool=_pool(stats),
        slots=int(stats["pool"].get("max-concurrency") or 1),
        stats=stats,
        conf=said["conf"],
        queues=[queue["name"] for queue in said["queues"]],
        tasks={task: dict(re.findall(r"(\w+)=([^ \]]*)", attributes)) for task, attributes in parts},
        running=[(each["name"], now - (each["time_start"] or now)) for each in said["active"]],
        reserved=Counter(each["name"] for each in said["reserved"]),
        scheduled=len(scheduled),
        etas={task: seconds for seconds, task in due},
        held={each["id"] for each in (*said["active"], *said["reserved"], *scheduled)},
        cpu_share=cpu_share,
        late=tuple(late),
        began=began,
        process=process_of(name, stats),
    )


def _pool(stats: Mapping[str, Any]) -> str:
    module = str(stats["pool"].get("implementation", "")).partition(":")[0].rpartition(".")[2]
    return POOLS.get(module, module)


def _cpu(stats: Mapping[str, Any]) -> float:
    usage = stats["rusage"]
    return float(usage["utime"] + usage["stime"]) if isinstance(usage, Mapping) else 0.0


def _lateness(app: Any, names: list[str], timeout: float) -> dict[str, list[float]]:
    """How long each worker's answers to some pings took; one that did not come counts with the timeout."""
    late = {name: [timeout] * PINGS for name in names}
    for number in range(PINGS if names else 0):
        asked = time.monotonic()

        def note(reply: Mapping[str, Any], number: int = number, asked: float = asked) -> None:
            for name in reply:
                late[name][number] = time.monotonic() - asked

        app.control.ping(destination=names, timeout=timeout, callback=note)
        time.sleep(BETWEEN_PINGS)
    return late
