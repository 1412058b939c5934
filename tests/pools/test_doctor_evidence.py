"""That what ``poolbench doctor`` warns of is so: the evidence of its checks that takes a project of its own.

``again`` in the table of checks names these tests, rows of the matrix, or tests in tests/service/test_doctor.py.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from celery.events import EventReceiver

from poolbench.doctor.worker_process import _quota
from tests.doctor.clinic import Clinic
from tests.valkey_process import HOST, ValkeyProcess
from tests.waiting import stays, wait_for

LATE = {"task_acks_late": True}
SHORT = {"visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup/cgroup.controllers")


def ended(clinic: Clinic, name: str, count: int, seconds: float = 60) -> None:
    wait_for(lambda: clinic.noted("end").count(name) >= count, seconds=seconds, what=f"{count} of {name} to end")


def idle(clinic: Clinic) -> bool:
    answers = clinic.inspect(1).active()  # None: a busy machine's worker was not in time
    return answers is not None and not any(answers.values())


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_slots_as_cores_make_tasks_wait_for_each_other(tmp_path: Path, valkey: ValkeyProcess, pool: str) -> None:
    took = {}
    for slots in (2, 20):
        with Clinic(tmp_path / str(slots), valkey.url) as clinic:
            clinic.admit(clinic.launch(pool, "-P", pool, "-c", str(slots)))
            clinic.send("note", "warm-up")
            ended(clinic, "warm-up", 1)
            began = time.monotonic()
            for _ in range(40):
                clinic.send("note", "wait", 0.5)
            ended(clinic, "wait", 40)
            took[slots] = time.monotonic() - began
    assert took[2] > 3 * took[20], took


@pytest.mark.parametrize("limit", ["--soft-time-limit", "--time-limit"])
def test_solo_ignores_limits(tmp_path: Path, valkey: ValkeyProcess, limit: str) -> None:
    with Clinic(tmp_path, valkey.url) as clinic:
        clinic.admit(clinic.launch("solo", "-P", "solo", limit, "1"))
        clinic.send("note", "long", 3)
        ended(clinic, "long", 1)


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A cgroup with a quota, which the test's worker is started in."""
    group = V1 / f"doctor-{os.getpid()}"
    group.mkdir()
    (group / "cpu.cfs_quota_us").write_text("50000")
    (group / "cpu.cfs_period_us").write_text("100000")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), what="the group to be empty")
    group.rmdir()


@pytest.mark.skipif(not os.access(V1, os.W_OK), reason="needs a cgroup of version 1 that it may divide")
def test_a_quota_of_a_cgroup_is_seen_and_not_by_celery(
    half_a_core: Path, tmp_path: Path, valkey: ValkeyProcess
) -> None:
    with Clinic(tmp_path, valkey.url) as clinic:
        into = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(half_a_core / "cgroup.procs")]
        worker = clinic.launch("limited", "-P", "prefork", before=into)
        clinic.admit(worker)
        (stats,) = clinic.inspect(1).stats().values()
        report = clinic.report("--only", "P06")
        assert len(stats["pool"]["processes"]) == os.cpu_count()
        assert "it may use 0.5 of" in report.found("P06")
    assert _quota(os.getpid()) > 0.5


@pytest.mark.parametrize(
    ("cancel", "pool", "ends"),
    [
        *((False, "prefork", 2), (False, "threads", 2), (False, "gevent", 2)),
        *((True, "prefork", 1), (True, "threads", 2), (True, "gevent", 1)),
    ],
)
def test_a_lost_connection_runs_late_acked_tasks_twice(tmp_path: Path, pool: str, cancel: bool, ends: int) -> None:
    """Or, where the first run can be cancelled, anew."""
    conf = {**LATE, "worker_cancel_long_running_tasks_on_connection_loss": cancel}
    with ValkeyProcess() as valkey, Clinic(tmp_path, valkey.url, **conf) as clinic, valkey.client() as redis:
        clinic.launch("worker", "-P", pool, "-c", "2").wait_until_ready()
        clinic.send("note", "task", 5)
        wait_for(lambda: clinic.noted("start"), what="the task to begin")
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_for(lambda: len(clinic.noted("start")) == 2, what="the task to begin again")
        ended(clinic, "task", ends)
        stays(lambda: len(clinic.noted("end")) == ends, seconds=2, what=f"{ends} runs to the end")


def test_an_eta_beyond_the_visibility_timeout_runs_more_than_once(tmp_path: Path, valkey: ValkeyProcess) -> None:
    with Clinic(tmp_path, valkey.url, broker_transport_options=SHORT) as clinic:
        clinic.admit(*(clinic.launch(name, "-P", "prefork", "-c", "1") for name in ("first", "second")))
        clinic.send("note", "later", countdown=8)
        ended(clinic, "later", 2)


def test_too_few_connections_leave_acknowledgements_undone(tmp_path: Path, valkey: ValkeyProcess) -> None:
    left = {}
    for most in (10, 200):
        options = {"max_connections": most}
        with (
            Clinic(tmp_path / str(most), valkey.url, broker_transport_options=options, **LATE) as clinic,
            valkey.client() as redis,
        ):
            redis.flushall()
            clinic.admit(clinic.launch("gevent", "-P", "gevent", "-c", "100"))
            for _ in range(300):
                clinic.send("note", "together", 2)
            ended(clinic, "together", 300)
            wait_for(partial(idle, clinic), what="nothing to run")
            left[most] = redis.hlen("unacked")
    assert left[10] > 0 == left[200], left


def test_messages_are_taken_by_one_while_another_is_idle(tmp_path: Path, valkey: ValkeyProcess) -> None:
    with Clinic(tmp_path, valkey.url, worker_prefetch_multiplier=50) as clinic:
        clinic.admit(clinic.launch("first", "-P", "threads", "-c", "1"))
        clinic.send("note", "long", 600)
        for _ in range(20):
            clinic.send("note", "short")
        wait_for(lambda: len(next(iter(clinic.inspect(1).reserved().values()))) == 20, what="all to be taken")
        clinic.launch("second", "-P", "threads", "-c", "1").wait_until_ready()
        stays(lambda: "short" not in clinic.noted("start"), seconds=5, what="the idle worker to get none")


def test_a_full_memory_drops_a_queue_without_an_error(tmp_path: Path) -> None:
    server = {"maxmemory": "16mb", "maxmemory-policy": "allkeys-lru"}
    with ValkeyProcess(options=server) as valkey, Clinic(tmp_path, valkey.url) as clinic, valkey.client() as redis:
        for _ in range(2000):
            clinic.send("note", "x" * 1000)
        assert redis.llen("celery") == 2000

        def dropped() -> bool:
            for number in range(100):
                redis.set(f"{time.monotonic()}-{number}", "x" * 10_000)
            return not redis.exists("celery")

        wait_for(dropped, what="the queue to be gone")


@pytest.mark.parametrize("kept", [False, True])
def test_a_restart_keeps_what_is_in_the_file(tmp_path: Path, kept: bool) -> None:
    with ValkeyProcess(appendonly=kept) as valkey, Clinic(tmp_path, valkey.url) as clinic:
        for _ in range(10):
            clinic.send("note", "x")
        valkey.restart()
        with valkey.client() as redis:
            assert redis.llen("celery") == (10 if kept else 0)


def test_a_subscriber_that_does_not_read_is_cut_off() -> None:
    with ValkeyProcess() as valkey, valkey.client() as redis, socket.create_connection((HOST, valkey.port)) as deaf:
        deaf.sendall(b"SUBSCRIBE deaf\r\n")
        wait_for(lambda: redis.publish("deaf", "x"), what="the subscription")
        sizes: list[int] = []

        def cut_off() -> bool:
            for _ in range(100):
                redis.publish("deaf", "x" * 2**13)
            subscribers = redis.client_list(_type="pubsub")
            sizes.extend(int(client["omem"]) for client in subscribers)
            return not subscribers

        wait_for(cut_off, seconds=60, what="the subscriber to be closed")
        assert 2**22 < max(sizes) < 2**26


def test_few_descriptors_break_tasks(tmp_path: Path, valkey: ValkeyProcess) -> None:
    with Clinic(tmp_path, valkey.url) as clinic:
        clinic.admit(clinic.launch("gevent", "-P", "gevent", "-c", "100", before=["prlimit", "--nofile=128"]))
        for _ in range(100):
            clinic.send("two_sockets", 5)
        log = tmp_path / "gevent.log"
        wait_for(lambda: "Too many open files" in log.read_text(), what="a task without descriptors")


def test_events_of_tasks_are_sent_with_the_option_only(tmp_path: Path, valkey: ValkeyProcess) -> None:
    heard: list[str] = []
    with Clinic(tmp_path, valkey.url) as clinic, clinic.app.connection() as connection:
        silent = clinic.launch("silent", "-P", "threads", "-c", "8", "-Q", "silent")
        loud = clinic.launch("loud", "-P", "threads", "-c", "8", "-Q", "loud", "-E")
        clinic.admit(silent, loud)
        handlers = {"task-succeeded": lambda event: heard.append(event["hostname"])}
        with EventReceiver(connection, handlers, app=clinic.app).consumer_context() as (receiving, _, _):

            def listen() -> int:
                with suppress(TimeoutError):
                    receiving.drain_events(timeout=0.2)
                return len(heard)

            listen()  # the first time subscribes
            for queue in ("silent", "loud"):
                for _ in range(5):
                    clinic.send("note", queue, queue=queue)
                ended(clinic, queue, 5)
            wait_for(lambda: listen() >= 5, what="the events")
            stays(lambda: listen() == 5, seconds=1, what="no more")
    assert {name.partition("@")[0] for name in heard} == {"loud"}
