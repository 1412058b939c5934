"""B: the broker's own settings and state. D: the host, and what runs beside the workers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from poolbench.doctor.diagnosis import Finding, NotChecked, Result, Severity, check
from poolbench.doctor.message_checks import some, time_limits
from poolbench.doctor.observed import Observed
from poolbench.doctor.pool_checks import ELSEWHERE

FULL = 0.9  # of maxmemory
STRANDED = 5.0  # seconds that a message is in nobody's hands until that is said
BUFFERED = 2**20  # bytes that wait for one subscriber
MOST_CONNECTIONS = 10  # kombu's default


@check(
    "B01",
    "A full Redis drops queues without an error",
    Severity.WARNING,
    redis=True,
    why="An eviction policy for all keys removes whole queues when memory is full: a queue is one key.",
    evidence="allkeys-lru and a full memory: a queue of 2,000 messages was gone, and no client got an error.",
    again='make pools ARGS="-k full_memory"',
    mend="maxmemory-policy noeviction, and an alarm on used_memory.",
)
def eviction(seen: Observed) -> Iterator[Result]:
    memory = seen.broker.info("memory")
    policy, most = memory.get("maxmemory_policy", ""), int(memory.get("maxmemory", 0))
    if policy.startswith("allkeys") and most:
        yield Finding("broker", f"maxmemory-policy {policy}, maxmemory {most:,} bytes, used {memory['used_memory']:,}")


@check(
    "B02",
    "A restart of Redis loses the backlog",
    Severity.WARNING,
    redis=True,
    why="Without an append-only file nothing, or an old snapshot, is read back.",
    evidence="SIGKILL and restart: without the file all waiting messages were gone, with it none.",
    again='make pools ARGS="-k restart_keeps"',
    mend="appendonly yes, appendfsync everysec. A managed Redis with replicas and failover may do: --skip B02.",
)
def persistence(seen: Observed) -> Iterator[Result]:
    if not int(seen.broker.info("persistence").get("aof_enabled", 0)):
        replicas = seen.broker.info("replication").get("connected_slaves", 0)
        yield Finding("broker", f"appendonly no; {replicas} replicas")


@check(
    "B03",
    "Results never expire",
    Severity.WARNING,
    why="Each result stays in Redis until memory is full; then nothing can be published.",
    evidence="With result_expires = None the key of a result had no time to live; with the default it had a day.",
    again='make test ARGS="-k results_stay"',
    mend="result_expires = seconds (default: a day), or task_ignore_result = True.",
)
def expiry(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        backend = str(worker.conf.get("result_backend") or "disabled")
        if backend.startswith(("redis", "rediss", "sentinel")) and not worker.conf.get("result_expires"):
            yield Finding(worker.name, f"result_expires = {worker.conf.get('result_expires')}, results in Redis")


@check(
    "B04",
    "Messages are in nobody's hands",
    Severity.WARNING,
    redis=True,
    why="A killed worker took them and did not acknowledge. They are on no queue until they are restored.",
    evidence="A worker was killed with a late-acked job: its message lay in unacked, and no living worker had it.",
    again='make test ARGS="-k nobodys_hands"',
    mend="They return after the visibility timeout if a prefork or threads worker runs (see R01, R09); a restart of "
    "a worker looks at once.",
)
def stranded(seen: Observed) -> Iterator[Result]:
    if mute := [*seen.silent, *(process.name for process in seen.mute)]:
        yield NotChecked("broker", f"a worker that does not answer may have them: {some(mute)}")
        return
    if ages := [age for age in seen.orphans.values() if age > STRANDED]:
        yield Finding("broker", f"{len(ages)} of the oldest unacknowledged messages, the oldest for {max(ages):.0f} s")


@check(
    "B05",
    "A subscriber does not keep up with events",
    Severity.WARNING,
    redis=True,
    why="Redis buffers for it, in its own memory, and cuts it off at client-output-buffer-limit: Flower then misses "
    "what happened, or Redis runs full if there is no limit.",
    evidence="A subscriber that does not read: its buffer grew in CLIENT LIST, and Redis closed it at the limit.",
    again='make pools ARGS="-k does_not_read"',
    mend="Send fewer events (no -E where nobody looks), a faster consumer, and a client-output-buffer-limit pubsub "
    "that is not 0.",
)
def buffers(seen: Observed) -> Iterator[Result]:
    for client in seen.broker.ask("client_list", _type="pubsub"):
        if (size := int(client.get("omem", 0))) > BUFFERED:
            who = client.get("name") or client.get("addr")
            yield Finding("broker", f"{size:,} bytes wait for the subscriber {who}")


@check(
    "B06",
    "Too few connections for gevent and late acknowledgement",
    Severity.WARNING,
    redis=True,
    why="Each greenlet that ends needs a connection to acknowledge. When none is left the acknowledgement fails and "
    "the task runs again later.",
    evidence="300 late-acked tasks that end together on gevent -c 100: with 10 connections acknowledgements failed "
    "and messages stayed in unacked; with 200 none.",
    again='make pools ARGS="-k too_few_connections"',
    mend="broker_transport_options = {'max_connections': 2 x the concurrency}; or acknowledge early.",
)
def connections(seen: Observed) -> Iterator[Result]:
    for worker in seen.late_acking:
        most = int(worker.transport_options.get("max_connections") or MOST_CONNECTIONS)
        if worker.pool == "gevent" and most < 2 * worker.slots:
            yield Finding(worker.name, f"max_connections {most} for {worker.slots} greenlets, acks_late")


@check(
    "B07",
    "TLS without verification",
    Severity.ERROR,
    redis=True,
    why="Anybody on the way can be the broker: read tasks, and send some.",
    evidence="rediss:// without options connected to a server whose certificate nobody vouches for.",
    again='make test ARGS="-k nobody_vouches"',
    mend="broker_use_ssl = {'ssl_cert_reqs': ssl.CERT_REQUIRED, 'ssl_ca_certs': 'ca.pem'}, or the same in the URL: "
    "rediss://host?ssl_cert_reqs=CERT_REQUIRED.",
)
def unverified(seen: Observed) -> Iterator[Result]:
    options = seen.broker.redis.connection_pool.connection_kwargs
    if seen.broker.connection.ssl and options.get("ssl_cert_reqs") in (None, "none", ssl.CERT_NONE):
        yield Finding("broker", f"{seen.broker.address}: ssl_cert_reqs is CERT_NONE, as this app connects")


@check(
    "B08",
    "Redis is nearly full",
    Severity.ERROR,
    redis=True,
    why="A full Redis with noeviction refuses messages and acknowledgements.",
    evidence="noeviction and a full memory: publishing failed at once, with an error about maxmemory.",
    again='make test ARGS="-k full_redis"',
    mend="More maxmemory, more workers, results that expire (B03).",
)
def full(seen: Observed) -> Iterator[Result]:
    memory = seen.broker.info("memory")
    used, most = int(memory["used_memory"]), int(memory.get("maxmemory", 0))
    if most and used > FULL * most and memory.get("maxmemory_policy") == "noeviction":
        yield Finding("broker", f"{used:,} of {most:,} bytes are used")


@check(
    "D01",
    "Tasks may be longer than the time to stop",
    Severity.WARNING,
    why="After the grace the platform kills the worker: early-acked tasks are lost, late-acked ones wait in unacked.",
    evidence="SIGTERM, 2 s later SIGKILL, as docker stop does it, with a longer job: lost, on every pool.",
    again='make matrix ARGS="-k docker-stop"',
    mend="A grace above the longest task: stop_grace_period (Docker: 10 s), terminationGracePeriodSeconds "
    "(Kubernetes: 30 s), TimeoutStopSec (systemd: 90 s).",
)
def grace(seen: Observed) -> Iterator[Result]:
    if seen.grace is None:
        yield NotChecked("platform", "a process cannot see how long its platform waits; say it: --grace SECONDS")
        return
    for worker in seen.workers:
        longer = [f"{run.task} has run for {run.age:.0f} s" for run in worker.running if run.age > seen.grace]
        longer += [way for way, limit in time_limits(worker) if limit > seen.grace]
        if longer:
            yield Finding(worker.name, f"grace {seen.grace:g} s; {some(longer)}")


@check(
    "D04",
    "Too few file descriptors",
    Severity.WARNING,
    why="A task that waits for a connection holds one, often two with the result back end. Then connects fail.",
    evidence="gevent -c 100 with ulimit -n 128: of 100 tasks with two sockets each some failed with EMFILE.",
    again='make pools ARGS="-k few_descriptors"',
    mend="ulimit -n above 2 x the concurrency and 100 (Docker: ulimits.nofile; systemd: LimitNOFILE).",
)
def descriptors(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool not in ("threads", "gevent"):
            continue
        if worker.process is None:
            yield NotChecked(worker.name, f"its limits are not known: {ELSEWHERE}")
        elif 0 <= worker.process.descriptors < 2 * worker.slots:
            yield Finding(worker.name, f"ulimit -n {worker.process.descriptors} for {worker.slots} slots")


@check(
    "D05",
    "Flower gets no events of tasks",
    Severity.NOTE,
    redis=True,
    why="Somebody listens to events, and the worker sends none for its tasks: pages stay empty.",
    evidence="A worker without -E ran tasks, and a receiver of all events heard none of them; with -E it did.",
    again='make pools ARGS="-k events_of_tasks"',
    mend="celery worker -E, or worker_send_task_events = True.",
)
def no_events(seen: Observed) -> Iterator[Result]:
    exchange = seen.app.conf.event_exchange
    bound = seen.broker.ask("smembers", f"{seen.broker.prefix}_kombu.binding.{exchange}")
    keys = {member.decode(errors="replace").partition("\x06")[0] for member in bound}
    if not any(key == "#" or key.startswith("task") for key in keys):  # worker.# is of the workers themselves
        return
    for worker in seen.workers:
        if worker.name in seen.event_tasks:
            continue
        if worker.began:
            yield Finding(worker.name, f"{worker.began} tasks began while it was looked at, and no event was heard")
        else:
            yield NotChecked(worker.name, "no task began while it was looked at, so no event was due")


@check(
    "D06",
    "Two workers have one name",
    Severity.ERROR,
    why="Remote control, Flower and this doctor see one of them, and not always the same.",
    evidence="Two workers were started with one name: inspect stats showed one.",
    again='make test ARGS="-k one_name"',
    mend="celery worker -n NAME@%h with a name of its own for each worker of a host.",
)
def one_name(seen: Observed) -> Iterator[Result]:
    for name, answers in seen.names.items():
        if answers > 1:
            yield Finding(name, f"{answers} workers answered by this name")


@check(
    "D07",
    "A worker of this host is connected and does not answer",
    Severity.WARNING,
    why="It cannot be controlled, shows as offline in Flower, and fails every health check by ping.",
    evidence="A gevent worker without patches answered no ping; so did one that computed.",
    again='make test ARGS="-k answers_nobody"',
    mend="See P05, P08 and P10; of a solo worker it is normal while a task runs.",
)
def mute(seen: Observed) -> Iterator[Result]:
    for process in seen.mute:
        yield Finding(process.name or f"pid {process.pid}", f"pid {process.pid}, started with -A {process.app}")
