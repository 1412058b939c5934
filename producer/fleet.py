"""The deployments under test: workers of the running stack as they are, or workers of a stack of our own.

The running stack's workers are measured from outside where they run on this machine; in a container of another's they
cannot be.

A stack of our own has its own Valkey, origin, sweep and folder, and one deployment at a time. For each turn the
deployment's workers are started anew, warmed up with a few tiny jobs, measured, and stopped. Why not all at once: two
deployments of one pool share its queue, so one would take the other's jobs; and workers that stand by, even drained,
send heartbeats, renew leases and share memory with the one under test, which would look smaller than it is. Why not one
worker for all its turns: so every turn begins alike, and a leak of the first burdens no later one. The price is a few
seconds per turn, which no figure contains: the clock begins after the warm-up.

A stack of our own needs what ``requirements/local.txt`` installs; nothing of it is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from ledger.jobs import Pool
from ledger.ledger import Ledger
from ledger.settings import Settings
from ledger.switches import LiveWorker, Switches
from poolbench import deployment, experiment
from poolbench.deployment import Spec, node_names, words
from poolbench.experiment import PLAIN, Deployment, Note, Setup
from poolbench.workload import Workers
from producer.errors import ProducerError

if TYPE_CHECKING:
    from stack.stack import Stack

APP = "worker.app"


def start(pool: experiment.PoolKind, concurrency: int | None, setup: Setup) -> str:
    """For a shell: starts workers like these."""
    return deployment.command(APP, Pool(pool).queue, pool, concurrency, setup)


def deployments(specs: Sequence[Spec], *, serial: bool) -> tuple[Deployment, ...]:
    """In the order given; the baseline last, on the first one's pool."""
    return deployment.deployments(specs, start, serial=serial)


class Shared:
    """The running stack."""

    def __init__(self, settings: Settings, ledger: Ledger, specs: Sequence[Spec] | None, *, serial: bool) -> None:
        """
        Args:
            specs: None: the pools with live workers, or all three if there are none: their absence is noticed later.
        """
        self.settings = settings
        self._alive = Switches(ledger).workers
        workers = self._alive()
        if specs is None:
            alive = {worker.pool for worker in workers}
            specs = [Spec(pool) for pool in experiment.PoolKind if Pool(pool) in alive or not alive]
        self.deployments = tuple(_with_concurrency(each, workers) for each in deployments(specs, serial=serial))

    @contextmanager
    def deployed(self, deployment: Deployment) -> Iterator[Workers]:
        """The workers of the deployment's pool."""
        roots = [_root(worker) for worker in self._alive() if worker.pool is Pool(deployment.pool)]
        yield Workers(
            roots=() if None in roots else tuple(sorted({root for root in roots if root})),
            belongs=lambda who, _seen: pool_of(who.worker) == deployment.pool,
        )

    def notes(self) -> list[Note]:
        shared = "the stack was running already, and may have been shared: its workers were not started for this"
        unseen = "workers run elsewhere (another machine or container): their CPU and memory are not measured"
        pools = {Pool(each.pool) for each in self.deployments}
        elsewhere = any(_root(worker) is None for worker in self._alive() if worker.pool in pools)
        return [Note(text, caveat=True) for text in (shared, *([unseen] if elsewhere else []))]

    def discard(self, batch: str) -> None:
        """Its files stay: the folder may be on another machine."""


def pool_of(worker: str) -> str:
    """Workers are named POOL@HOST, as compose and the Procfile do, or POOL-NUMBER@HOST."""
    return worker.partition("@")[0].partition("-")[0]


def _with_concurrency(deployment: Deployment, workers: Sequence[LiveWorker]) -> Deployment:
    """Of prefork the ledger knows them: a process each."""
    concurrency = sum(len(_living(worker)) for worker in workers if worker.pool is Pool.PREFORK)
    if deployment.serial or deployment.pool is not experiment.PoolKind.PREFORK or not concurrency:
        return deployment
    return replace(deployment, concurrency=concurrency, command=start(deployment.pool, concurrency, PLAIN))


def _living(worker: LiveWorker) -> tuple[int, ...]:
    """Its processes. Of those that were idle when they were killed the ledger knows for up to four leases."""
    here = worker.name.partition("@")[2] == socket.gethostname()
    return (here and tuple(filter(psutil.pid_exists, worker.pids))) or worker.pids  # other process ids: a container's


def _root(worker: LiveWorker) -> int | None:
    """The worker's main process, if it is one of this machine: the one it names, or the parent of its children."""
    if worker.name.partition("@")[2] != socket.gethostname() or not worker.pids:
        return None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(_living(worker)[0])
        if worker.pool is Pool.PREFORK:
            process = process.parent() or process
        return process.pid if any(APP in word for word in process.cmdline()) else None
    return None


class LocalStackError(ProducerError):
    """No stack of our own can be started here."""


class Private:
    """A context: the stack is up inside of it."""

    def __init__(self, settings: Settings, specs: Sequence[Spec], *, serial: bool) -> None:
        """
        Args:
            settings: what a person has set: who may be downloaded from holds for the workers, too.

        Raises:
            LocalStackError: it needs packages that are not installed.
        """
        self.deployments = deployments(specs, serial=serial)
        self._stack = _stack(settings)

    def __enter__(self) -> Self:
        with _stack_errors():
            self._stack.__enter__()
        variables = self._stack.plan.downpour("producer")
        self.settings = Settings(
            redis_url=variables["DOWNPOUR_REDIS_URL"],
            redis_password_file=Path(variables["DOWNPOUR_REDIS_PASSWORD_FILE"]),
            key_prefix="dp:",
            downloads=self._stack.plan.downloads,
            origin_url=self._stack.plan.origin_url,
        )
        return self

    def __exit__(self, *ended: Any) -> None:
        self._stack.__exit__(*ended)

    @contextmanager
    def deployed(self, deployment: Deployment) -> Iterator[Workers]:
        """The Procfile's worker, once for each of the deployment's, under its own name and with its options.

        Raises:
            LocalStackError: a worker does not start.
        """
        stack = self._stack
        probes = stack.plan.private / "lateness"
        shutil.rmtree(probes, ignore_errors=True)  # process ids come again
        probes.mkdir(mode=0o700)
        nodes = node_names(deployment.pool, deployment.setup.workers)
        how = Pool(deployment.pool), deployment.concurrency_each, words(deployment.setup)
        commands = [stack.plan.command(f"worker-{node}", line=worker_line(node, *how)) for node in nodes]
        names = [command.name for command in commands]
        with _stack_errors():
            stack.check()
            stack.launch(*(replace(each, env={**each.env, "DOWNPOUR_LATENESS": str(probes)}) for each in commands))
        try:
            yield Workers(
                roots=tuple(stack.processes[name].pid for name in names),
                belongs=lambda who, seen: who.pid in seen,
                others=tuple(process.pid for each, process in stack.processes.items() if each not in names),
                probes=probes,
                fresh=True,
                ended=lambda: list(_ended(stack, names)),
            )
        finally:
            stack.stop(*names)
            stack.forget(*names)

    def notes(self) -> list[Note]:
        text = (
            "a stack of its own: for each turn the deployment's workers are started anew, alone, and warmed up; the"
            " start is not counted"
        )
        return [Note(text)]

    def discard(self, batch: str) -> None:
        """The batch's files are not needed any more."""
        shutil.rmtree(self._stack.plan.downloads / batch, ignore_errors=True)


def worker_line(node: str, pool: Pool, concurrency: int | None, more: str = " -E", app: str = APP) -> str:
    """The Procfile's command of a worker, with its own name, concurrency and options."""
    return f"celery -A {app} worker -P {pool} -Q {pool.queue} -n {node}@%h -c {concurrency} -l INFO{more}"


def _stack(settings: Settings) -> Stack:
    try:
        from stack.plan import choose_port  # noqa: PLC0415
        from stack.stack import Stack  # noqa: PLC0415
    except ImportError as error:
        raise LocalStackError(
            f"workers of our own (--pools POOL:CONCURRENCY) need the package {error.name}, which is not installed"
            " here: install requirements/local.txt, or compare the running stack with --pools prefork,threads,gevent"
        ) from error
    origin = choose_port()
    allowed_ports = settings.allow_ports | {origin} if settings.allow_ports else frozenset()  # empty: every port
    allowed = {
        "DOWNPOUR_ALLOW_HOSTS": ",".join(sorted(settings.allow_hosts)),
        "DOWNPOUR_ALLOW_NETWORKS": ",".join(sorted(settings.allow_networks | {"127.0.0.0/8"})),
        "DOWNPOUR_ALLOW_PORTS": ",".join(map(str, sorted(allowed_ports))),
    }
    return Stack({}, settings=allowed, insist={"origin": origin})


@contextmanager
def _stack_errors() -> Iterator[None]:
    from stack.stack import StackError  # noqa: PLC0415

    try:
        yield
    except StackError as error:
        raise LocalStackError(str(error)) from error


def _ended(stack: Stack, names: Sequence[str]) -> Iterator[str]:
    from stack.processes import describe_exit  # noqa: PLC0415

    for name in names:
        if (code := stack.processes[name].returncode) is not None:
            yield f"{name} ended in the middle of it: {describe_exit(code)}"
