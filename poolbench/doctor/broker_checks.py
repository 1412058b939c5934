"""B: the broker's own settings and state. D: the host, and what runs beside the workers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from poolbench.doctor.diagnosis import Finding, NotChecked, Result, check
from poolbench.doctor.message_checks import some, time_limits
from poolbench.doctor.observed import Observed
from poolbench.doctor.pool_checks import ELSEWHERE, UNKNOWN

FULL = 0.9  # of maxmemory
STRANDED = 5.0  # seconds that a message is in no worker's hands until that is said
BUFFERED = 2**20  # bytes that wait for one subscriber
MOST_CONNECTIONS = 10  # kombu's default


@check("B01")
def eviction(seen: Observed) -> Iterator[Result]:
    memory = seen.broker.info("memory")
    policy, most = memory.get("maxmemory_policy", ""), int(memory.get("maxmemory", 0))
    if policy.startswith("allkeys") and most:
        yield Finding("broker", f"maxmemory-policy {policy}, maxmemory {most:,} bytes, used {memory['used_memory']:,}")


@check("B02")
def persistence(seen: Observed) -> Iterator[Result]:
    if not int(seen.broker.info("persistence").get("aof_enabled", 0)):
        replicas = seen.broker.info("replication").get("connected_slaves", 0)
        yield Finding("broker", f"appendonly no; {replicas} replicas")


@check("B03")
def expiry(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        backend = str(worker.conf.get("result_backend") or "disabled")
        if backend.startswith(("redis", "rediss", "sentinel")) and not worker.conf.get("result_expires"):
            yield Finding(worker.name, f"result_expires = {worker.conf.get('result_expires')}, results in Redis")


@check("B04")
def stranded(seen: Observed) -> Iterator[Result]:
    if seen.orphans is None:
        yield NotChecked("broker", "it refused to show which messages are unacknowledged")
    elif silent := [*seen.silent, *(process.name for process in seen.mute or ())]:
        yield NotChecked("broker", f"a worker that does not answer may have them: {some(silent)}")
    elif ages := [age for age in seen.orphans.values() if age > STRANDED]:
        yield Finding("broker", f"{len(ages)} of the oldest unacknowledged messages, the oldest for {max(ages):.0f} s")


@check("B05")
def buffers(seen: Observed) -> Iterator[Result]:
    for client in seen.broker.ask("client_list", _type="pubsub"):
        if (size := int(client.get("omem", 0))) > BUFFERED:
            who = client.get("name") or client.get("addr")
            yield Finding("broker", f"{size:,} bytes wait for the subscriber {who}")


@check("B06")
def connections(seen: Observed) -> Iterator[Result]:
    for worker in seen.late_acking:
        most = int(worker.transport_options.get("max_connections") or MOST_CONNECTIONS)
        if worker.pool == "gevent" and most < 2 * worker.slots:
            yield Finding(worker.name, f"max_connections {most} for {worker.slots} greenlets, acks_late")


@check("B07")
def unverified(seen: Observed) -> Iterator[Result]:
    options = seen.broker.redis.connection_pool.connection_kwargs
    if seen.broker.connection.ssl and options.get("ssl_cert_reqs") in (None, "none", ssl.CERT_NONE):
        yield Finding("broker", f"{seen.broker.address}: ssl_cert_reqs is CERT_NONE, as this app connects")


@check("B08")
def full(seen: Observed) -> Iterator[Result]:
    memory = seen.broker.info("memory")
    used, most = int(memory["used_memory"]), int(memory.get("maxmemory", 0))
    if most and used > FULL * most and memory.get("maxmemory_policy") == "noeviction":
        yield Finding("broker", f"{used:,} of {most:,} bytes are used")


@check("D01")
def grace(seen: Observed) -> Iterator[Result]:
    if seen.grace is None:
        yield NotChecked("platform", "a process cannot see how long its platform waits; say it: --grace SECONDS")
        return
    for worker in seen.workers:
        longer = [f"{run.task} has run for {run.age:.0f} s" for run in worker.running if run.age > seen.grace]
        longer += [way for way, limit in time_limits(worker, worker.tasks) if limit > seen.grace]
        if longer:
            yield Finding(worker.name, f"grace {seen.grace:g} s; {some(longer)}")


@check("D04")
def descriptors(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool not in ("threads", "gevent"):
            continue
        if worker.process is None:
            yield NotChecked(worker.name, f"its limits are not known: {ELSEWHERE}")
        elif 0 <= worker.process.descriptors < 2 * worker.slots:
            yield Finding(worker.name, f"ulimit -n {worker.process.descriptors} for {worker.slots} slots")


@check("D05")
def no_events(seen: Observed) -> Iterator[Result]:
    exchange = seen.app.conf.event_exchange
    bound = seen.broker.ask("smembers", f"{seen.broker.prefix}_kombu.binding.{exchange}")
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
def one_name(seen: Observed) -> Iterator[Result]:
    for name, answers in seen.names.items():
        if answers > 1:
            yield Finding(name, f"{answers} workers answered by this name")


@check("D07")
def mute(seen: Observed) -> Iterator[Result]:
    if seen.mute is None:
        yield NotChecked("this host", UNKNOWN)
    for process in seen.mute or ():
        yield Finding(process.name or f"pid {process.pid}", f"pid {process.pid}, started with -A {process.app}")
