"""The workload of a project's own tasks: its worker command on a private broker, and what its probes noted.

Each measurement has workers of its own, started anew and warmed up with some of the calls. The jobs go to a queue of
ours, which no other worker consumes. What they send themselves goes where the project routes it, in the private
broker, and stays there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import socket
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kombu import Queue

from poolbench.deployment import node_names
from poolbench.experiment import Deployment, MeasuredJob, MeasuredState, Note, Reach, Scenario
from poolbench.figures import counted, printable
from poolbench.runfiles import PoolbenchError
from poolbench.tasks.live import BROKER_ERRORS, EPOCH, Live, PrivateBroker, now, tail
from poolbench.tasks.private import Place, point, strangers
from poolbench.tasks.project import Call, ProjectError
from poolbench.workload import Display, Ran, Workers

QUEUE = "poolbench"
PROBE = "poolbench.tasks.probe"
LOOK_EVERY = 0.05  # seconds
_WARM_MOST = 200  # jobs
_FEW = 10  # notes of one kind
_PACKAGES = ("celery", "kombu", "billiard", "redis", "gevent", "django", "flask")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\b\d+\b")


class PrivacyError(PoolbenchError):
    """An address would be used that is not the private one, or the protection that was asked for is not to be had."""


@dataclass(slots=True)
class OwnTasks:
    """The workload; its app is pointed to the private broker.

    Raises:
        PrivacyError: the app would still use another address.
    """

    app: Any
    name: str  # of the app, as after ``celery -A``
    broker: PrivateBroker
    folder: Path  # for what the workers write
    calls: Sequence[Call]
    deployments: tuple[Deployment, ...]
    allowed: Sequence[Place]  # what tasks may reach, beside loopback
    ports: Sequence[int] | None  # that are carried into the network namespace; None: there is none, only the fence
    retries: int  # of a job, at the most
    reached: Counter[tuple[str, str, bool]]  # how often, by task, address and whether it was let through
    limit: float  # seconds for a measurement
    failures: tuple[type[Exception], ...] = (PoolbenchError, *BROKER_ERRORS)
    scenario: Scenario = field(init=False)
    _planned: list[Call] = field(init=False)
    _results: str = field(init=False)  # the address of the result store; empty for a project that has none
    _live: Live = field(init=False)
    # By error and reason without numbers: the reason as it was first given, and jobs by deployment.
    _errors: dict[tuple[str, str], tuple[str, Counter[str]]] = field(default_factory=dict)
    _ran: Counter[str] = field(default_factory=Counter)  # jobs by deployment
    _sends: Counter[tuple[str, str]] = field(default_factory=Counter)  # by task that sent, and that was sent

    def __post_init__(self) -> None:
        self.plan(len(self.calls))
        stored = self.app.conf.result_backend not in (None, "", "disabled", "disabled://")
        self._results = f"{self.broker.url}/1" if stored else ""
        point(self.app, self.broker.url + "/0", self._results)
        self._refuse(strangers(self.app, self.broker.url + "/0", self._results))

    def plan(self, jobs: int) -> None:
        """So many jobs in each measurement."""
        self._planned = self.repeated(jobs)
        names = list(dict.fromkeys(call.task for call in self.calls))
        title = f"{counted(len(self.calls), 'call')} of {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
        self.scenario = Scenario("tasks", title, jobs, None, tasks=tuple(names))

    def repeated(self, jobs: int) -> list[Call]:
        """The calls, again from the first one if there are not enough."""
        return [self.calls[n % len(self.calls)] for n in range(jobs)]

    def _refuse(self, found: Sequence[str]) -> None:
        if found:
            raise PrivacyError(
                f"refused before the first task: {'; '.join(dict.fromkeys(found))}, expected only the private broker"
                f" {self.broker.url}. The project sets this address again after poolbench did: make it follow"
                " CELERY_BROKER_URL, or set it in the configuration only"
            )

    # -- the workers

    @contextmanager
    def deployed(self, deployment: Deployment, batch: str, *, warm: bool = True) -> Iterator[Workers]:  # noqa: ARG002
        """
        Raises:
            WorkerError: a worker does not start.
            PrivacyError: it would use other addresses than the private ones.
        """
        self.broker.redis.flushall()
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        nodes = node_names(deployment.pool, deployment.setup.workers)
        commands = [self._argv(deployment, node) for node in nodes]
        names = {f"{node}@{socket.gethostname()}" for node in nodes}
        self._live = live = Live(folder)
        try:
            live.start(self.broker, commands, self._environment(folder))
            self._refuse(live.strangers)
            if warm:
                most = min(deployment.concurrency or 1, _WARM_MOST, max(2, len(self._planned) // 4))
                self.send_and_wait(self._planned[:most])
            yield Workers(
                roots=tuple(each.pid for each in live.processes),
                belongs=lambda who, _seen: who.worker in names,
                others=(self.broker.pid,),
                probes=folder,
                fresh=True,
                ended=live.ended,
            )
        finally:
            live.stop()
            self.reached.update((each["by"], each["to"], each["ok"]) for each in live.notes["reaches"])
            self._sends.update((each["by"], each["task"]) for each in live.notes["sends"])

    def _argv(self, deployment: Deployment, node: str) -> list[str]:
        """The project's own worker, with our queue and our probe.

        The queue is not named where the project forbids those that it did not declare; the probe chooses it then.
        """
        ahead = deployment.setup.prefetch
        return [
            sys.executable, "-m", "poolbench.tasks.fenced", "-A", self.name, "worker", "-P", deployment.pool.value,
            "-c", str(deployment.concurrency_each), "-n", f"{node}@%h", "-I", PROBE, "-l", "WARNING",
            *(["-Q", QUEUE] if self.app.conf.task_create_missing_queues else []),
            *([] if ahead is None else ["--prefetch-multiplier", str(ahead)]),
            "--without-gossip", "--without-mingle",
        ]  # fmt: skip

    def _environment(self, folder: Path) -> dict[str, str]:
        settings = {
            "folder": str(folder),
            "epoch": EPOCH,
            "server": f"127.0.0.1:{self.broker.port}",
            "broker": self.broker.url + "/0",
            "results": self._results,
            "allowed": self.allowed,
            "retries": self.retries,
            "queue": QUEUE,
        }
        return dict(os.environ, POOLBENCH_PROBE=json.dumps(settings), PYTHONDONTWRITEBYTECODE="1")

    # -- the jobs

    def share(self, deployment: Deployment, *, warm_up: bool = False) -> Sequence[str]:  # noqa: ARG002
        return [f"{call.short}-{number}" for number, call in enumerate(self._planned)]

    @contextmanager
    def arrivals(self) -> Iterator[Callable[[], Mapping[str, float]]]:
        received = self._live.notes["received"]
        yield lambda: {each["id"]: each["at"] for each in received}

    def run(
        self,
        deployment: Deployment,
        batch: str,
        workers: Workers,  # noqa: ARG002
        display: Display,
        *,
        warm_up: bool = False,  # noqa: ARG002
    ) -> Ran:
        ran, _ = self.send_and_wait(self._planned, batch=batch, display=display)
        self._ran[deployment.name] += len(ran.jobs)
        for last in (job.attempts[-1] for job in ran.jobs if job.attempts):
            if last.kind:
                reason = last.reason or ""
                _, by = self._errors.setdefault((last.kind, _ID.sub("N", reason)), (reason, Counter()))
                by[deployment.name] += 1
        return ran

    def send_and_wait(
        self,
        calls: Sequence[Call],
        moments: Sequence[float] | None = None,
        *,
        batch: str = "",
        display: Display | None = None,
        limit: float | None = None,
        enough: float = math.inf,
    ) -> tuple[Ran, list[float]]:
        """Send the calls to the workers that are deployed, and wait for the last end.

        Args:
            moments: when each is to be sent, in seconds from now, whatever has ended by then; None: all at once.
            limit: seconds for all of it; default: that of a measurement.
            enough: seconds after which the rest is not waited for, if a job has ended.

        Returns:
            The jobs, queued when they were to be sent; by how many seconds later each was sent.

        Raises:
            PrivacyError: a process of the workers would use another address than the private ones.
            ProjectError: sending fails.
        """
        begun, jobs, late = now(), list[MeasuredJob](), list[float]()
        with self.app.producer_pool.acquire() as producer:
            for number, call in enumerate(calls):
                due = begun + moments[number] if moments else now()
                time.sleep(max(0.0, due - now()))
                late.append(now() - due)
                jobs.append(MeasuredJob(str(uuid.uuid4()), f"{call.short}-{number}", MeasuredState.QUEUED, due, ()))
                self._publish(jobs[-1].id, call, producer)
        note = self._wait([job.id for job in jobs], begun, display, limit or self.limit, enough)
        return Ran(batch, begun, tuple(map(self._live.measured, jobs)), note), late

    def _publish(self, job: str, call: Call, producer: Any) -> None:
        how = {"queue": Queue(QUEUE, routing_key=QUEUE), "producer": producer}
        try:
            self.app.tasks[call.task].apply_async(call.args, call.kwargs, task_id=job, **how)
        except Exception as error:
            raise ProjectError(f"{call} cannot be sent: {type(error).__name__}: {error}") from error

    def _wait(self, left: list[str], begun: float, display: Display | None, limit: float, enough: float) -> str | None:
        """Why these jobs did not all end."""
        jobs, live = len(left), self._live
        while True:
            live.look()
            self._refuse(live.strangers)
            left = [job for job in left if not live.over(job)]
            took = now() - begun
            if display:
                display.progress(took, jobs - len(left), jobs, ())
            if not left or (took > enough and len(left) < jobs):
                return None
            if ended := live.ended():
                return f"{ended[0]}: {tail(live.log, 4)}"
            if took > limit:
                return f"{counted(len(left), 'job')} had not ended after {took:.0f} s (--limit)"
            time.sleep(LOOK_EVERY)

    def disturbances(self, ran: Ran, workers: Workers) -> list[str]:  # noqa: ARG002
        return workers.ended()

    def discard(self, batch: str) -> None:
        """With the workers."""

    # -- what a reader must know

    def now(self) -> float:
        return now()

    def versions(self) -> dict[str, str]:
        found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
        for package in _PACKAGES:
            with contextlib.suppress(PackageNotFoundError):
                found[package] = version(package)
        return found

    def notes(self) -> list[Note]:
        text = (
            "a private broker and result store; for each measurement the project's own worker command is started anew,"
            " and warmed up with some of the calls; the start is not counted"
        )
        retries = f"a job may be retried {self.retries} times" if self.retries else "no job is retried"
        return [Note(text), Note(self.protection), Note(f"a measurement may take {self.limit:g} s, and {retries}")]

    @property
    def protection(self) -> str:
        """What keeps tasks from the network."""
        allowed = ["loopback", *(host if port is None else f"{host}:{port}" for host, port in self.allowed)]
        fence = f"a fence in Python lets tasks reach {', '.join(allowed)}"
        if self.ports is None:
            return f"{fence}; there is no network namespace, so C libraries (libpq, pycurl, grpc) may reach everything"
        ports = ", ".join(map(str, self.ports[:8])) + (", ..." if len(self.ports) > 8 else "")
        return (
            f"{fence}, and a network namespace has nothing but loopback; ports of this machine's loopback that are"
            f" carried into it: {ports or 'none'}"
        )

    @property
    def reaches(self) -> tuple[Reach, ...]:
        return tuple(Reach(*what, count) for what, count in self.reached.most_common())

    def afterthoughts(self) -> list[Note]:
        return list(self._afterthoughts())

    def _afterthoughts(self) -> Iterator[Note]:
        for (error, _), (reason, by) in list(self._errors.items())[:_FEW]:
            where = ", ".join(f"{name} ({count} of {self._ran[name]} jobs)" for name, count in by.items())
            only = ", nowhere else" if len(by) < len(self._ran) else ""
            yield Note(f"{error} in {where}{only}: {printable(reason)[:200]}", caveat=True)
        if not self.reached:
            yield Note("no task tried to reach anything but the private broker")
        for each in self.reaches[: 2 * _FEW]:
            what = f"{'reached' if each.allowed else 'was refused'} {each.address} ({counted(each.count, 'time')})"
            yield Note(f"{each.task or 'code outside of a task'} {what}", caveat=not each.allowed)
        for (sender, task), count in self._sends.most_common(_FEW):
            yield Note(
                f"{sender} sent {task} ({counted(count, 'time')}): it stayed in the private broker and was not run"
            )
