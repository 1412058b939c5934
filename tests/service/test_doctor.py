"""``poolbench doctor``: each check finds its sickness in a sick project and nothing in a healthy one, for real."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from celery.events import EventReceiver
from kombu.exceptions import OperationalError
from redis import Redis

from poolbench.doctor.diagnosis import CHECKS, diagnose
from poolbench.doctor.looks import NotChecked, Result
from poolbench.doctor.observed import Observation
from tests.authority import make_authority
from tests.celery_workers import PROJECT
from tests.doctor.clinic import Clinic, Report
from tests.relay import TlsRelay
from tests.valkey_process import HOST, ValkeyProcess
from tests.waiting import wait_for

CORES = os.cpu_count() or 1
REFUSED = ("-info", "-client|list", "-zrange", "-psubscribe")
LATE = {"task_acks_late": True}
PROMPT = {"visibility_timeout": 300, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
HEALTHY_SERVER = {"maxmemory": "1gb", "maxmemory-policy": "noeviction"}
SICK_SERVER = {"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}


@contextmanager
def listened(clinic: Clinic) -> Iterator[None]:
    """Somebody receives all events, as Flower does."""
    with clinic.app.connection() as connection:
        receiver = EventReceiver(connection, handlers={}, app=clinic.app)
        with receiver.consumer_context():
            yield


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    assert call()
    return time.monotonic() - began


def fill(redis: Redis, messages: int) -> None:
    """Publish messages of 8 KiB, about as long as a group of events."""
    with redis.pipeline(transaction=False) as pipeline:
        for _ in range(messages):
            pipeline.publish("deaf", "x" * 2**13)
        pipeline.execute()


class Ward(ExitStack):
    """The projects, and what the doctor said of each."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.sick = self.enter_context(ValkeyProcess(options=SICK_SERVER))
        self.healthy = self.enter_context(ValkeyProcess(appendonly=True, options={**HEALTHY_SERVER}))
        self.small = self.enter_context(ValkeyProcess(options={"maxmemory": "16mb"}))
        self.clinics: dict[str, Clinic] = {}
        self.reports: dict[str, Report] = {}

    def visit(self, name: str) -> None:
        self.clinics[name] = clinic = getattr(self, name)()
        self.reports[name] = clinic.report(*OPTIONS.get(name, ()))
        if name in DISCHARGED:
            clinic.close()  # what its workers left at the broker stays

    def clinic(self, name: str, server: ValkeyProcess, database: int = 0, **conf: Any) -> Clinic:
        return self.clinic_at(name, server.url.replace("/0", f"/{database}"), **conf)

    def clinic_at(self, name: str, url: str, **conf: Any) -> Clinic:
        return self.enter_context(Clinic(self._folder / name, url, **conf))

    # -- projects; each returns when its workers are up and what makes it sick has happened

    def threads(self) -> Clinic:
        clinic = self.clinic("threads", self.sick, sick=True, result_backend=self.sick.url, result_expires=None)
        limits = ["-P", "threads", "-c", "2", "--soft-time-limit", "5", "--time-limit=9", "--max-tasks-per-child", "5"]
        scaled = ["-P", "threads", "--autoscale", "2,1", "-Q", "idle"]
        clinic.admit(
            clinic.launch("limits", *limits),
            clinic.launch("scaled", *scaled),
            clinic.launch("scaled", *scaled, file="twin"),
        )
        self.enter_context(listened(clinic))
        for _ in range(3):
            clinic.send("unserved", queue="nobody")
        clinic.send("backoff")
        for _ in range(1500):
            clinic.send("sleep", 0.1)
        return clinic

    def gevent(self) -> Clinic:
        clinic = self.clinic("gevent", self.sick, 1, **LATE)
        few = ["prlimit", "--nofile=128"]
        worker = clinic.launch("green", "-P", "gevent", "-c", "100", before=few)
        clinic.admit(worker)
        clinic.send("block", 600)
        self.slowest_ping = max(seconds(lambda: clinic.ping(1)) for _ in range(30))
        return clinic

    def unpatched(self) -> Clinic:
        clinic = self.clinic("unpatched", self.sick, 2)
        clinic.launch("spelt", "-Pgevent", "-c100").wait_until_ready()
        for _ in range(5):
            clinic.send("patched")
        return clinic

    def prefork(self) -> Clinic:
        conf = {
            **LATE,
            "task_reject_on_worker_lost": True,
            "worker_cancel_long_running_tasks_on_connection_loss": True,
            "worker_prefetch_multiplier": 50,
            "task_time_limit": 900,
            "broker_transport_options": {"visibility_timeout": 30},
        }
        clinic = self.clinic("prefork", self.sick, 3, **conf)
        clinic.admit(clinic.launch("children", "-P", "prefork", before=["taskset", "-c", "0"]))
        for _ in range(CORES):
            clinic.send("sleep", 600)
        clinic.send("note", "short")
        clinic.send("note", "far", countdown=3600)
        wait_for(lambda: self._all_long(clinic), seconds=30, what="every slot to be held for long")
        return clinic

    @staticmethod
    def _all_long(clinic: Clinic) -> bool:
        running = (clinic.inspect(1).active() or {}).values()
        ages = [time.time() - (task["time_start"] or time.time()) for tasks in running for task in tasks]
        return len(ages) == CORES and min(ages) > 5

    def late(self) -> Clinic:
        """A worker that is there, one that was killed, and the defaults of late acknowledgement."""
        clinic = self.clinic("late", self.sick, 4, **LATE)
        stays, killed = (
            clinic.launch(name, "-P", "threads", "-c", str(4 * CORES), "-Q", name) for name in ("stays", "killed")
        )
        clinic.admit(stays, killed)
        clinic.send("note", "lost", 60, queue="killed")
        wait_for(lambda: clinic.noted("start"), what="the task to begin")
        killed.kill()
        died = time.monotonic()
        wait_for(lambda: time.monotonic() - died > 5, what="its messages to be missed")
        return clinic

    def stalled(self) -> Clinic:
        """Somebody has subscribed and does not read."""
        clinic = self.clinic("stalled", self.sick, 5)
        clinic.admit(clinic.launch("solo", "-P", "solo"))
        deaf = self.enter_context(socket.create_connection((HOST, self.sick.port)))
        deaf.sendall(b"SUBSCRIBE deaf\r\n")
        with self.sick.client() as redis:
            wait_for(lambda: redis.publish("deaf", "x"), what="the subscription")
            fill(redis, messages=2000)
        return clinic

    def verified(self) -> Clinic:
        return self._tls("verified", "?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={folder}/ca.pem")

    def unverified(self) -> Clinic:
        return self._tls("unverified", "")

    def _tls(self, name: str, words: str) -> Clinic:
        folder = self._folder / f"{name}-authority"
        folder.mkdir()
        relay = self.enter_context(TlsRelay(self.sick.port, make_authority(folder)))
        words = words.format(folder=folder)
        clinic = self.clinic_at(name, f"rediss://:secret@{HOST}:{relay.port}/{7 if words else 6}{words}")
        clinic.admit(clinic.launch("solo", "-P", "solo"))
        return clinic

    def full(self) -> Clinic:
        clinic = self.clinic("full", self.small)
        clinic.admit(clinic.launch("solo", "-P", "solo"))
        with self.small.client() as redis:
            number = 0
            while redis.info("memory")["used_memory"] < 0.95 * 16 * 2**20:
                redis.set(f"ballast-{number}", "x" * 2**17)
                number += 1
        return clinic

    def fleet(self) -> Clinic:
        """Healthy: each pool, late acknowledgement, everything set as the mends say."""
        options = {**PROMPT, "max_connections": 60}
        conf: dict[str, Any] = {
            **LATE,
            "broker_transport_options": options,
            "result_backend": self.healthy.url,
            "result_expires": 3600,
        }
        clinic = self.clinic("fleet", self.healthy, **conf)
        clinic.admit(
            clinic.launch("processes", "-P", "prefork", "-c", str(CORES), "--time-limit", "90", "-E"),
            clinic.launch("threads", "-P", "threads", "-c", str(4 * CORES), "-E"),
            clinic.launch("greenlets", "-P", "gevent", "-c", str(4 * CORES), "-E"),
        )
        self.enter_context(listened(clinic))
        clinic.send("note", "soon", countdown=200)
        clinic.send("note", "with a result")
        for _ in range(1000):
            clinic.send("sleep", 0.3, ignore_result=True)
        return clinic

    def early(self) -> Clinic:
        """Healthy, but for R03: early acknowledgement."""
        clinic = self.clinic("early", self.healthy, 1)
        clinic.admit(
            clinic.launch("processes", "-P", "prefork", "-c", "1"),
            clinic.launch("greenlets", "--pool=gevent", "-c", str(4 * CORES), "-Q", "green"),
        )
        return clinic


OPTIONS = {"prefork": ("--grace", "10"), "fleet": ("--grace", "100")}
TOGETHER = "prefork late gevent threads unpatched stalled full verified unverified early"
DISCHARGED = ("gevent", "stalled", "verified", "fleet")  # once the doctor was there


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """Each project visited, once its workers are up."""
    with Ward(tmp_path_factory.mktemp("ward")) as found, ThreadPoolExecutor(12) as threads:
        list(threads.map(found.visit, TOGETHER.split()))
        found.visit("fleet")  # alone: a busy machine is no sickness of a project
        yield found


# Code: the sick project, the worker, task, queue or broker, and what is said of it; then the healthy one.
CASES = {
    "P01": ("threads", r"limits@.*--soft-time-limit 5; the pool is threads", "fleet"),
    "P02": ("threads", r"limits@.*--time-limit 9; the pool is threads", "fleet"),
    "P03": ("threads", r"limits@.*--max-tasks-per-child 5; the pool is threads", "fleet"),
    "P04": ("threads", r"limits@.*threads with 2 slots on \d+ cores", "fleet"),
    "P05": ("unpatched", r"spelt@.*the option is not spelt -P gevent", "fleet"),
    "P06": ("prefork", r"children@.*\d+ slots; it may use 1 of \d+ cores", "fleet"),
    "P07": ("threads", r"scaled@.*--autoscale 2,1 on threads", "fleet"),
    "P08": ("gevent", r"green@.*it used \d+% of a core", "fleet"),
    "P09": ("threads", r"project.coroutine: async def, on threads", "fleet"),
    "P10": ("gevent", r"green@.*[3-8] of 8 pings were answered later than 0.25 s", "fleet"),
    "R01": ("gevent", r"all workers: 1 gevent, no other pool; acks_late: project.block", "fleet"),
    "R02": ("prefork", r"children@.*visibility timeout 30 s; .*task_time_limit = 900", "fleet"),
    "R03": ("threads", r"limits@.*10 of 10 tasks are acknowledged early", "fleet"),
    "R04": ("prefork", r"children@.*reject_on_worker_lost and acks_late: project.block", "fleet"),
    "R05": ("prefork", r"children@.*Celery 5.7.0, prefork, acks_late", "early"),
    "R06": ("late", r"stays@.*threads, the setting is off; acks_late: project.block", "prefork"),
    "R07": ("prefork", r"children@.*visibility timeout 30 s; project.note is due in 3\d{3} s", "fleet"),
    "R08": ("threads", r"project.backoff: retry_backoff = 1, no autoretry_for; default_retry_delay = 180", "fleet"),
    "R09": ("late", r"stays@.*after up to 3700 s: visibility timeout 3600 s", "fleet"),
    "Q01": ("threads", r"nobody: 3 messages wait; tasks: project.unserved", "fleet"),
    "Q02": ("prefork", r"children@.*takes up to \d+ messages for \d+ slots; 1 wait in it", "fleet"),
    "Q03": (
        "prefork",
        r"celery: project.sleep on all \d+ slots for at least \d+ s; behind them: 1 project.note",
        "fleet",
    ),
    "B01": ("threads", r"broker: maxmemory-policy allkeys-lru, maxmemory 1,073,741,824 bytes", "fleet"),
    "B02": ("threads", r"broker: appendonly no; 0 replicas", "fleet"),
    "B03": ("threads", r"limits@.*result_expires = None, results in Redis", "fleet"),
    "B04": ("late", r"broker: 1 of the oldest unacknowledged messages, the oldest for \d+ s", "fleet"),
    "B05": ("stalled", r"broker: [\d,]{9,} bytes wait for the subscriber", "fleet"),
    "B06": ("gevent", r"green@.*max_connections 10 for 100 greenlets, acks_late", "fleet"),
    "B07": ("unverified", r"broker: rediss://127.0.0.1:\d+/6: ssl_cert_reqs is CERT_NONE", "verified"),
    "B08": ("full", r"broker: 1\d,\d{3},\d{3} of 16,777,216 bytes are used", "fleet"),
    "D01": ("prefork", r"children@.*grace 10 s; .*task_time_limit = 900", "fleet"),
    "D04": ("gevent", r"green@.*ulimit -n 128 for 100 slots", "fleet"),
    "D05": ("threads", r"limits@.*\d+ tasks began while it was looked at, and no event was heard", "fleet"),
    "D06": ("threads", r"scaled@.*2 workers answered by this name", "fleet"),
    "D07": ("unpatched", r"spelt@.*pid \d+, started with -A tests.celery_project", "fleet"),
}


def test_each_check_has_a_sick_and_a_healthy_project() -> None:
    assert sorted(CASES) == sorted(CHECKS)


@pytest.mark.parametrize("code", CASES)
def test_the_sick_project_is_found(ward: Ward, code: str) -> None:
    project, words, _ = CASES[code]
    report = ward.reports[project]
    assert report.code == 1
    assert re.search(words, report.found(code)), (
        report.found(code) or report.data["not_checked"].get(code) or report.data
    )


@pytest.mark.parametrize("code", CASES)
def test_nothing_is_found_in_the_healthy_project(ward: Ward, code: str) -> None:
    """Found nothing, and saw every place: a check that could not be made does not pass."""
    report = ward.reports[CASES[code][2]]
    assert report.passed(code), report.found(code) or report.data["not_checked"].get(code) or report.data


# -- that the sicknesses are real, as far as these projects show it; the rest is in tests/pools/test_doctor_evidence.py


def test_prefork_counts_the_cores_of_the_host(ward: Ward) -> None:
    (stats,) = ward.clinics["prefork"].inspect(1).stats().values()
    assert len(stats["pool"]["processes"]) == CORES
    assert {len(os.sched_getaffinity(pid)) for pid in stats["pool"]["processes"]} == {1}


def test_a_blocked_hub_answers_as_late_as_the_call_is_long(ward: Ward) -> None:
    assert 0.25 < ward.slowest_ping < 3


def test_the_back_off_waits_for_the_default_delay(ward: Ward) -> None:
    scheduled = ward.clinics["threads"].inspect(3).scheduled()
    (due,) = [each["eta"] for tasks in scheduled.values() for each in tasks]
    assert 60 < datetime.fromisoformat(due).timestamp() - time.time() <= 180


def test_what_nobody_consumes_waits(ward: Ward) -> None:
    with ward.clinics["threads"].app.connection() as connection:
        assert connection.default_channel.queue_declare("nobody", passive=True).message_count == 3


def test_long_before_short(ward: Ward) -> None:
    """The short task was sent long ago, and began only if the long ones are over."""
    clinic = ward.clinics["prefork"]
    (running,) = clinic.inspect(1).active().values()
    assert [task["name"] for task in running] == ["project.sleep"] * CORES
    assert clinic.noted("start") == []


def test_results_stay_without_an_expiry(ward: Ward) -> None:
    for server, least, most in ((ward.sick, -1, -1), (ward.healthy, 1, 3600)):
        with server.client() as redis:
            times = {int(redis.ttl(key)) for key in redis.scan_iter("celery-task-meta-*")}
        assert times
        assert {least <= seconds <= most for seconds in times} == {True}, times


def test_a_message_in_nobodys_hands(ward: Ward) -> None:
    clinic = ward.clinics["late"]
    (hands,) = clinic.inspect(1).reserved().values()
    with clinic.app.connection() as connection:
        unacked = connection.default_channel.client.hlen("unacked")
    assert (clinic.noted("start"), clinic.noted("end"), hands, unacked) == (["lost"], [], [], 1)


def test_a_certificate_that_nobody_vouches_for(ward: Ward, tmp_path: Path) -> None:
    """The worker is up without verification; with it, the same server is refused."""
    clinic = ward.clinics["unverified"]
    assert clinic.ping(1)
    with Clinic(tmp_path, clinic.environment["PROJECT_BROKER"] + "?ssl_cert_reqs=CERT_REQUIRED") as strict:
        done = strict.ask()
    assert (done.returncode, "certificate verify failed" in done.stderr) == (2, True), done.stderr
    assert "secret" not in done.stderr


def test_a_full_redis_refuses_messages(ward: Ward) -> None:
    clinic = ward.clinics["full"]

    def refused() -> bool:
        try:
            for _ in range(20):
                clinic.send("note", "x" * 2**17, queue="later", retry=False)
        except OperationalError as error:
            return "maxmemory" in str(error)
        return False

    wait_for(refused, what="a refusal")


def test_of_two_workers_with_one_name_one_is_seen(ward: Ward) -> None:
    stats = ward.clinics["threads"].inspect(3).stats()
    assert sorted(name.partition("@")[0] for name in stats) == ["limits", "scaled"]


def test_the_spelling_decides_and_such_a_worker_answers_nobody(ward: Ward) -> None:
    clinic, healthy = ward.clinics["unpatched"], ward.clinics["early"]
    log = (clinic.folder / "spelt.log").read_text()
    assert log.count("project.patched") - log.count("  . project.patched") == 5  # received, long ago
    assert not clinic.file.exists()
    assert clinic.app.control.ping(timeout=2) == []
    healthy.send("patched", queue="green")
    wait_for(lambda: healthy.noted("True"), what="the task to say that it is patched")
    assert len(healthy.ping(2)) == 2


# -- what else the command promises


def test_the_words_for_people_fit_and_hold_no_secret(ward: Ward) -> None:
    done = ward.clinics["unverified"].ask()
    assert done.returncode == 1, done.stderr
    for code in ("B07", "R03", "B02"):
        assert f"\n{code}  {CHECKS[code].title}\n     - " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "secret" not in done.stdout + json.dumps(ward.reports["unverified"].data)
    assert done.stdout.index("ERROR: ") < done.stdout.index("WARNING: ") < done.stdout.index("\nNot checked\n")


def test_only_and_skip_choose_and_nothing_found_is_code_zero(ward: Ward) -> None:
    only = ward.clinics["early"].report("--only", "p01,R03,B01", "--skip", "R03")
    assert (only.code, only.data["passed"], only.data["findings"]) == (0, ["P01", "B01"], [])


def test_what_the_doctor_reads_stays_as_it_is(ward: Ward) -> None:
    clinic = ward.clinics["early"]
    clinic.send("note", "waits", queue="later")
    with clinic.app.connection() as connection:
        redis = connection.default_channel.client

        def all_keys() -> dict[bytes, bytes]:
            """But for where kombu notes the queues of answers."""
            return {key: redis.dump(key) for key in redis.scan_iter() if not key.startswith(b"_kombu.binding")}

        before = all_keys()
        clinic.report()
        assert b"later" in before
        assert all_keys() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="another host on this machine needs root")
def test_of_a_worker_elsewhere_it_says_what_it_cannot_know(ward: Ward, tmp_path: Path) -> None:
    unshare = ["unshare", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c"]
    with Clinic(tmp_path, ward.healthy.url.replace("/0", "/2")) as clinic:
        before = [*unshare, 'hostname elsewhere && exec "$@"', "sh"]
        clinic.admit(clinic.launch("far", "-P", "threads", "-c", "2", "--soft-time-limit", "5", before=before))
        report = clinic.report()
    unseen = report.data["not_checked"]
    assert {"P01", "P02", "P03", "P04", "D04"} <= set(unseen)
    assert unseen["P01"][0]["where"] == "far@elsewhere"
    assert "its command line is not known" in unseen["P01"][0]["why"]


def test_of_another_broker_it_says_what_is_for_redis_only(tmp_path: Path) -> None:
    for name in ("messages", "control"):
        (tmp_path / name).mkdir()
    options = {
        "data_folder_in": f"{tmp_path}/messages",
        "data_folder_out": f"{tmp_path}/messages",
        "control_folder": f"{tmp_path}/control",
        "polling_interval": 0.1,
    }
    with Clinic(tmp_path, "filesystem://", broker_transport_options=options) as clinic:
        clinic.admit(clinic.launch("files", "-P", "threads", "-c", "2", "--soft-time-limit", "5"))
        report = clinic.report("--timeout", "8")  # files are looked at now and then
    assert re.search("--soft-time-limit 5", report.found("P01"))
    assert report.data["not_checked"]["B01"] == [
        {"where": "broker", "why": "it is filesystem; this check is for Redis and Valkey"}
    ]
    assert {code for code, check in CHECKS.items() if check.redis} <= set(report.data["not_checked"])
    assert {"D07", "P05"} <= set(report.data["not_checked"])


def test_a_check_that_the_broker_does_not_allow_is_not_passed(ward: Ward, tmp_path: Path) -> None:
    with ward.healthy.client() as redis:
        redis.execute_command("ACL", "SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", *REFUSED)
    url = ward.clinics["early"].environment["PROJECT_BROKER"].replace("redis://", "redis://poor:secret@")
    with Clinic(tmp_path, url) as clinic, listened(clinic):
        report = clinic.report()
    unseen = {code: places[0]["why"] for code, places in report.data["not_checked"].items()}
    for code in ("B01", "B02", "B05", "B08"):
        assert re.match("it refused (INFO|CLIENT LIST): ", unseen[code])
    assert unseen["B04"] == "it refused to show which messages are unacknowledged"
    assert unseen["D05"] == "it refused to let the doctor listen to events"
    assert unseen["D07"] == unseen["P05"]
    assert "secret" not in json.dumps(report.data)


# -- nobody to ask: code 2, and one sentence


def test_no_worker_answers(ward: Ward, tmp_path: Path) -> None:
    with Clinic(tmp_path, ward.healthy.url.replace("/0", "/9")) as clinic:
        done = clinic.ask("--timeout", "0.5")
    assert done.returncode == 2
    assert re.search(r"no worker answered within 0.5 s at redis://127.0.0.1:\d+/9: is one up", done.stderr)


def test_the_broker_is_away_or_frozen(tmp_path: Path) -> None:
    with ValkeyProcess() as valkey, Clinic(tmp_path, valkey.url.replace("//", "//:secret@")) as clinic:
        valkey.freeze()
        frozen = clinic.ask("--timeout", "0.5")
        valkey.kill()
        away = clinic.ask("--timeout", "0.5")
    for done in (frozen, away):
        assert done.returncode == 2
        assert re.search(r"the broker does not answer at redis://127.0.0.1:\d+/0: \w+: ", done.stderr), done.stderr
        assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("no.such.project", "expected a Celery app for -A no.such.project"),
        ("tests.waiting", "got AttributeError"),
        (
            "tests.waiting:wait_for",
            "got TypeError: tests.waiting:wait_for is of <class 'function'>; name it: module:app",
        ),
    ],
)
def test_the_app_cannot_be_imported(tmp_path: Path, app: str, words: str) -> None:
    with Clinic(tmp_path, "redis://127.0.0.1:1/0") as clinic:
        done = clinic.ask(app=app)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_code_that_does_not_exist(tmp_path: Path) -> None:
    with Clinic(tmp_path, "redis://127.0.0.1:1/0") as clinic:
        done = clinic.ask("--only", "P01,X99")
    assert (done.returncode, "got X99" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-A", PROJECT], "the broker does not answer at redis://127.0.0.1:1/0"),
        ([], "expected the project's app: -A shop.celery"),
    ],
)
def test_as_a_command_of_celery_it_has_the_app_already(tmp_path: Path, words: list[str], said: str) -> None:
    program = "from celery.bin.celery import celery; from poolbench.tasks.plugin import plugin as p;"
    celery = [sys.executable, "-c", f"{program} celery.add_command(p); celery()", *words]
    with Clinic(tmp_path, "redis://127.0.0.1:1/0") as clinic:
        done = clinic.call(*celery, "poolbench", "doctor", "--timeout", "0.2")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_check_that_fails_takes_no_other_away() -> None:
    def fails(_seen: Observation) -> Iterator[Result]:
        raise ValueError("odd")

    def passes(_seen: Observation) -> Iterator[Result]:
        yield from ()

    odd = replace(CHECKS["P01"], look=fails)
    fine = replace(CHECKS["P02"], look=passes)
    diagnosis = diagnose(cast(Observation, None), [odd, fine])
    assert diagnosis.passed == ["P02"]
    assert diagnosis.not_checked == {"P01": [NotChecked("doctor", "the check itself failed: ValueError: odd")]}
