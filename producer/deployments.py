"""The deployments under test: workers of the running stack as they are, or workers of a stack of our own.

The running stack's workers are measured from outside where they run on this machine; in a container of another's they
cannot be.

A stack of our own for an experiment: its own Valkey, origin, sweep and folder, and one deployment at a time.

For each turn the deployment's workers are started anew, warmed up with a few tiny jobs, measured, and stopped. Why not
all at once: two deployments of one pool share its queue, so one would take the other's jobs; and workers that stand by,
even drained, send heartbeats, renew leases and share memory with the one under test, which would look smaller than it
is. Why not one worker for all its turns: so every turn begins alike, and a leak of the first burdens no later one.
The price is a few seconds per turn, which no figure contains: the clock begins after the warm-up.

Needs what ``requirements/local.txt`` installs; nothing of it is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import psutil

from ledger.jobs import Pool
from ledger.ledger import Ledger
from ledger.settings import Settings
from ledger.switches import LiveWorker, Switches
from poolbench import deployment, experiment
from poolbench.deployment import Spec, node_names, words
from poolbench.experiment import PLAIN, Deployment, Executor, Note, Setup
from poolbench.workload import Workers
from producer.errors import ProducerError

if TYPE_CHECKING:
    from stack.processes import Command
    from stack.stack import Stack

_LIKE_PROCFILE = "-l INFO{} --without-gossip --without-mingle"
APP = "worker.app"


def start(pool: experiment.Pool, concurrency: int | None, setup: Setup) -> str:
    """For a shell: starts workers like these."""
    return deployment.command(APP, Pool(pool).queue, pool, concurrency, setup)


def deployments(specs: Sequence[Spec], *, serial: bool) -> tuple[Deployment, ...]:
    """In the order given; the baseline last, on the first one's pool."""
    return deployment.deployments(specs, start, serial=serial)


class Fleet(Protocol):
    """Where deployments live."""

    settings: Settings
    deployments: tuple[Deployment, ...]

    def deployed(self, deployment: Deployment) -> AbstractContextManager[Workers]:
        """The deployment's workers for a turn."""

    def notes(self) -> list[Note]:
        """What a reader must know."""

    def discard(self, batch: str) -> None:
        """The batch's files are not needed any more."""


class Shared:
    """The running stack."""

    def __init__(self, settings: Settings, ledger: Ledger, specs: Sequence[Spec] | None, *, serial: bool) -> None:
        """
        Args:
            specs: None: the pools with live workers, or all three if there are none: their absence is noticed later.
        """
        self.settings = settings
        self._control = Switches(ledger)
        workers = self._control.workers()
        if specs is None:
            alive = {worker.pool for worker in workers}
            specs = [Spec(pool) for pool in experiment.Pool if Pool(pool) in alive or not alive]
        found = deployments(specs, serial=serial)
        self.deployments = tuple(_with_concurrency(each, workers) for each in found)

    @contextmanager
    def deployed(self, deployment: Deployment) -> Iterator[Workers]:
        workers = [worker for worker in self._control.workers() if worker.pool is Pool(deployment.pool)]
        roots = {root for worker in workers if (root := _root(worker))}
        seen_all = len(roots) == len(workers)
        yield Workers(
            roots=tuple(sorted(roots)) if seen_all else (),
            belongs=lambda who, _seen: pool_of(who.worker) == deployment.pool,
        )

    def notes(self) -> list[Note]:
        shared = "the stack was running already, and may have been shared: its workers were not started for this"
        unseen = "workers run elsewhere (another machine or container): their CPU and memory are not measured"
        pools = {Pool(each.pool) for each in self.deployments}
        elsewhere = any(_root(worker) is None for worker in self._control.workers() if worker.pool in pools)
        return [Note(text, caveat=True) for text in (shared, *([unseen] if elsewhere else []))]

    def discard(self, batch: str) -> None:
        """They stay: whose folder it is we do not know."""


def pool_of(worker: str) -> str:
    """Workers are named POOL@HOST, as compose and the Procfile do, or POOL-NUMBER@HOST."""
    return worker.partition("@")[0].partition("-")[0]


def _with_concurrency(deployment: Deployment, workers: Sequence[LiveWorker]) -> Deployment:
    """Of prefork the ledger knows them: a process each."""
    concurrency = sum(len(worker.pids) for worker in workers if worker.pool is Pool.PREFORK)
    if deployment.serial or deployment.pool is not experiment.Pool.PREFORK or not concurrency:
        return deployment
    return replace(deployment, concurrency=concurrency, command=start(deployment.pool, concurrency, PLAIN))


def _root(worker: LiveWorker) -> int | None:
    """The worker's main process, if it is one of this machine: the one it names, or the parent of its children."""
    if worker.name.partition("@")[2] != socket.gethostname() or not worker.pids:
        return None
    pid = worker.pids[0]
    if worker.pool is Pool.PREFORK:
        with contextlib.suppress(psutil.Error):
            pid = psutil.Process(pid).ppid()
    with contextlib.suppress(psutil.Error):
        return pid if any("worker.app" in word for word in psutil.Process(pid).cmdline()) else None
    return None


_OPEN_FILES = 16_384  # a greenlet in the middle of a download has two


class LocalStackError(ProducerError):
    """No stack of our own can be started here."""


class Private:
    """A context: the stack is up inside of it."""

    def __init__(
        self, settings: Settings, specs: Sequence[Spec], *, serial: bool, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """
        Args:
            settings: what a person has set: who may be downloaded from holds for the workers, too.

        Raises:
            LocalStackError: it needs packages that are not installed.
        """
        self.deployments = deployments(specs, serial=serial)
        self._stack = _stack(settings, say)
        self._errors = _stack_error()

    def __enter__(self) -> Self:
        _allow_many_files()
        with self._told():
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @contextmanager
    def deployed(self, deployment: Deployment) -> Iterator[Workers]:
        """
        Raises:
            LocalStackError: a worker does not start.
        """
        notes = self._stack.plan.private / "lateness"
        shutil.rmtree(notes, ignore_errors=True)  # process ids come again
        notes.mkdir(mode=0o700)
        commands = list(self._commands(deployment, {"DOWNPOUR_LATENESS": str(notes)}))
        names = [command.name for command in commands]
        with self._told():
            self._stack.check()
            self._stack.launch(*commands)

        def belongs(who: Executor, seen: frozenset[int]) -> bool:
            return who.pid in seen

        try:
            yield Workers(
                roots=tuple(self._stack.processes[name].pid for name in names),
                belongs=belongs,
                others=tuple(process.pid for each, process in self._stack.processes.items() if each not in names),
                probes=notes,
                fresh=True,
                ended=lambda: list(self._ended(names)),
            )
        finally:
            self._stack.stop(*names)
            self._stack.forget(*names)

    def _ended(self, names: Sequence[str]) -> Iterator[str]:
        from stack.processes import describe_exit  # noqa: PLC0415

        for name in names:
            if (code := self._stack.processes[name].returncode) is not None:
                yield f"{name} ended in the middle of it: {describe_exit(code)}"

    def _commands(self, deployment: Deployment, more: Mapping[str, str]) -> Iterator[Command]:
        """The Procfile's worker, once for each of the deployment's, under its own name and with its options."""
        plan = self._stack.plan
        for node in node_names(deployment.pool, deployment.setup.workers):
            line = worker_line(deployment, node)
            command = plan.command(f"worker-{node}", line=line)
            yield replace(command, env={**command.env, **more})

    def notes(self) -> list[Note]:
        text = (
            "a stack of its own: for each turn the deployment's workers are started anew, alone, and warmed up; the"
            " start is not counted"
        )
        return [Note(text)]

    def discard(self, batch: str) -> None:
        shutil.rmtree(self._stack.plan.downloads / batch, ignore_errors=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise LocalStackError(str(error)) from error


def worker_line(deployment: Deployment, node: str) -> str:
    """The Procfile's command of a worker, with its own name, concurrency and options."""
    pool = deployment.pool
    options = _LIKE_PROCFILE.format(words(deployment.setup))
    queue = Pool(pool).queue
    return f"celery -A {APP} worker -P {pool} -Q {queue} -n {node}@%h -c {deployment.concurrency_each} {options}"


def _stack(settings: Settings, say: Callable[[str], None]) -> Stack:
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
    return Stack({}, settings=allowed, insist={"origin": origin}, say=say)


def _stack_error() -> type[Exception]:
    from stack.stack import StackError  # noqa: PLC0415

    return StackError


def _allow_many_files() -> None:
    """What we start inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
