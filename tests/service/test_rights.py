"""Each role may do with Redis what it does: with the very users that a deployment has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError

from deploy import keys
from ledger.dead_letters import DeadLetters
from ledger.flower_events import TakenOver, tell_flower
from ledger.jobs import Attempt, FailureKind, Job, JobState, Pool, Ref, Result
from ledger.leases import Identity, Leases, Renewed
from ledger.ledger import Ledger
from ledger.records import Keys
from ledger.redis_client import connect
from ledger.settings import Settings
from ledger.sweep import Sweep
from ledger.switches import Switches
from poolbench.workers import Arrivals
from producer.client import Client
from producer.control import _remove
from tests.valkey_process import HOST, ValkeyProcess
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Settings]]:
    """Settings by role, for a server that lets in nobody else."""
    folder = tmp_path_factory.mktemp("keys")
    keys.make_keys(folder)
    users = (folder / "redis/users.acl").read_text().splitlines()
    with ValkeyProcess(appendonly=True) as valkey:
        with valkey.client() as redis:  # as the default user, who must stay until the end of the test
            for line in users:
                _, name, *rights = line.split()
                if name != "default":
                    redis.execute_command("ACL", "SETUSER", name, *rights)
        yield {
            role: Settings(
                redis_url=f"redis://{role}@{HOST}:{valkey.port}/0",
                redis_password_file=folder / role / "password",
                per_host=1,
                lease=60,
                downloads=Path("nowhere"),
            )
            for role in keys.ROLES
        }


def test_every_role_may_do_its_work_and_the_seal_is_on_the_disk(roles: dict[str, Settings]) -> None:
    client = Client(roles["producer"])
    assert list(client.submit("b", [Job(f"http://a/{n}", str(n)) for n in range(4)], [Pool.THREADS], 1, 60.0)) == [4]
    assert client.ledger.seal("b", 4, durable=5.0)
    redis = connect(roles["worker"])
    ledger, leases = Ledger(redis, "dp:"), Leases(redis, "dp:", 60)
    incarnation = leases.register(Identity("threads@here", Pool.THREADS, 7))
    assert leases.renew(incarnation) == Renewed(0, frozenset())
    assert leases.touch(Pool.THREADS, ["b.0"], "threads@here")
    claims = [ledger.claim(Ref("b", n, n), Pool.THREADS, incarnation)[0] for n in range(3)]
    attempt = Attempt(None, 1.0, 2.0, kind=FailureKind.RESET)
    assert ledger.progress(claims[0], 1, 2)
    assert ledger.note_attempt(claims[0], attempt)
    assert ledger.close(claims[0], JobState.DONE, attempt, result=Result(1, "ab" * 32))
    assert ledger.close(claims[1], JobState.WAITING, attempt, due_in=0.0)
    switches = Switches(client.ledger)
    assert switches.pause(Pool.GEVENT)
    assert switches.drain("threads@here")
    assert [worker.running for worker in switches.workers()] == [1]
    assert switches.undrain("threads@here")
    mine = Switches(ledger)
    for name in ("threads@here", "threads@gone"):
        ledger.note_fault(name, "no room", 7)
    mine.forget_faults_of_the_gone(mine.faults())
    assert [worker.unwell.need for worker in switches.workers() if worker.unwell] == [7]
    mine.note_well("threads@here")
    assert not mine.faults()
    assert switches.resume(Pool.GEVENT)
    assert leases.touch(Pool.THREADS, ["b.0"], "threads@here")
    assert client.cancel([Ref("b", 0, 3)]) == (2, 1)
    leases.end(incarnation)
    sweep = Sweep(roles["sweep"].model_copy(update={"lease": 0.001}))
    sweep.round()
    sweep.round()
    assert client.batch("b").finished
    cleaner = Sweep(roles["sweep"].model_copy(update={"keep_batches": 0.001}))
    wait_for(lambda: cleaner.round().removed, what="the batch to be removed")
    list(client.submit("again", [Job("http://a/", "a")], [Pool.THREADS]))
    assert _remove(client, [client.batch("again")], 0.0, force=True) == (["again"], {}, 1)


def test_a_worker_alone_takes_messages_off_a_queue(roles: dict[str, Settings]) -> None:
    client = Client(roles["producer"])
    list(client.submit("taken", [Job(f"http://a/{n}", str(n)) for n in range(3)], [Pool.GEVENT], 1, 60.0))
    redis = connect(roles["worker"])
    leases = Leases(redis, "dp:", 60)
    incarnation = leases.register(Identity("gevent@here", Pool.GEVENT, 7))
    ledger = Ledger(redis, "dp:")
    (leader,) = ledger.claim(Ref("taken", 2, 2), Pool.GEVENT, incarnation)
    assert [claim.record.id for claim in ledger.take(leader, Pool.GEVENT, 2)] == ["taken.0", "taken.1"]
    leases.end(incarnation)
    for role in ("producer", "sweep"):
        with connect(roles[role]) as other, pytest.raises(NoPermissionError):
            other.rpop("dp:downloads.gevent")


def test_a_worker_keeps_dead_letters_and_the_producer_reads_and_drops_them(roles: dict[str, Settings]) -> None:
    DeadLetters(connect(roles["worker"]), "dp:").keep(Pool.THREADS, b"hello", "no JSON")
    letters = DeadLetters(connect(roles["producer"]), "dp:")
    assert [letter.element for letter in letters.read(Pool.THREADS)] == ["hello"]
    assert (letters.counts()[Pool.THREADS], letters.drop(Pool.THREADS)) == (1, 1)
    for role, command in (("worker", "ltrim"), ("producer", "lrange")):
        with connect(roles[role]) as redis, pytest.raises(NoPermissionError):
            redis.execute_command(command, "dp:downloads.threads", 0, -1)


QUEUE, JOB = "dp:downloads.threads", "dp:job:b.0"
EVENTS, CONTROL = "dp:/0.celeryev/task.multi", "dp:/0.celery.pidbox"
# What no role but an administrator is for.
NOBODYS: list[tuple[str | int, ...]] = [
    ("get", "somebody-elses"), ("set", "somebody-elses", 1), ("keys", "*"), ("scan", 0), ("flushall",), ("flushdb",),
    ("config", "get", "*"), ("acl", "list"), ("client", "list"), ("client", "kill", "type", "normal"), ("monitor",),
    ("eval", "return 1", 0), ("function", "list"), ("slowlog", "get"), ("shutdown",), ("replicaof", "no", "one"),
    ("publish", "elsewhere", "x"), ("psubscribe", "*"), ("restore", JOB, 0, "x"), ("rename", JOB, "dp:x"),
    ("migrate", HOST, 1, JOB, 0, 1), ("lrange", QUEUE, 0, -1), ("ltrim", QUEUE, 1, 0), ("swapdb", 0, 1),
]  # fmt: skip
FORBIDDEN: dict[str, list[tuple[str | int, ...]]] = {
    "worker": [("lrange", "dp:dead-letters:threads", 0, -1), ("waitaof", 1, 0, 0)],
    "producer": [("publish", EVENTS, "x"), ("publish", CONTROL, "x"), ("rpop", QUEUE), ("brpop", QUEUE, 1)],
    "sweep": [
        ("publish", CONTROL, "x"), ("publish", "dp:/0.celeryev/worker.offline", "x"), ("publish", "dp:anything", "x"),
        ("rpop", QUEUE), ("brpop", QUEUE, 1), ("subscribe", EVENTS),
    ],
    "flower": [
        ("lpush", QUEUE, "x"), ("rpush", QUEUE, "x"), ("rpop", QUEUE), ("brpop", QUEUE, 1), ("del", QUEUE),
        ("lpush", "dp:uuid.reply.celery.pidbox", "x"), ("hset", "dp:leases", "x", 1), ("hset", JOB, "s", "d"),
        ("hgetall", JOB), ("hdel", JOB, "s"), ("del", JOB), ("smembers", "dp:paused"), ("sadd", "dp:paused", "threads"),
        ("srem", "dp:drained", "x"), ("zadd", "dp:sent:threads", 1, "x"), ("script", "load", "return 1"),
        ("evalsha", "0" * 40, 0), ("publish", EVENTS, "x"), ("publish", "dp:anything", "x"), ("info",),
        ("subscribe", CONTROL), ("hgetall", "dp:batch:b"), ("lrange", "dp:dead-letters:threads", 0, -1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("role", list(FORBIDDEN))
def test_each_role_is_refused_what_is_not_its_work(roles: dict[str, Settings], role: str) -> None:
    for command in NOBODYS + FORBIDDEN[role]:
        with connect(roles[role]) as redis, pytest.raises(NoPermissionError):
            print(command, redis.execute_command(*command))


OPEN = {"quit", "reset"}  # Redis refuses these to nobody


@pytest.mark.parametrize("role", list(FORBIDDEN))
def test_each_role_is_refused_every_command_that_is_not_listed_for_it(roles: dict[str, Settings], role: str) -> None:
    """With a dry run of each command that the server has, and of each subcommand."""
    listed = set(re.findall(r"\+([a-z|]+)", keys.ROLES[role]))
    with connect(roles["admin"]) as redis:
        known = {}
        for command in redis.command().values():
            for name, arity in [sub[:2] for sub in command["subcommands"]] or [(command["name"], command["arity"])]:
                known[str(name)] = int(arity)
        assert listed - set(known) == set()
        refused = {
            name: redis.execute_command("ACL", "DRYRUN", role, *name.split("|"), *["dp:nothing"] * needed(name, arity))
            for name, arity in known.items()
            if name not in listed
        }
    assert len(refused) > 200
    assert {name for name, said in refused.items() if "has no permissions to run" not in str(said)} == OPEN


def needed(name: str, arity: int) -> int:
    """Arguments that the command takes at the least."""
    return abs(arity) - len(name.split("|"))


def test_a_producer_that_compares_hears_what_a_worker_says(roles: dict[str, Settings]) -> None:
    event = {"type": "task-received", "uuid": "b.1", "timestamp": 5.0}
    text = json.dumps({"body": json.dumps([event]), "properties": {}})
    with Arrivals(connect(roles["producer"]), "dp:") as arrivals:
        connect(roles["worker"]).publish(EVENTS, text)
        wait_for(arrivals.moments, what="the arrival")

    assert set(arrivals.moments()) == {"b.1"}


def test_the_sweep_says_what_it_took_over_where_events_of_tasks_are_heard(roles: dict[str, Settings]) -> None:
    with Arrivals(connect(roles["producer"]), "dp:") as heard:
        tell_flower(connect(roles["sweep"]), Keys("dp:"), {"threads@here": [TakenOver("b.1", JobState.QUEUED)]}, set())
        wait_for(heard.ahead, what="the event")
