"""A stack of our own for an experiment: its own Valkey, origin, sweep and folder, and one contestant at a time.

For each turn the contestant's workers are started anew, warmed up with a few tiny jobs, measured, and stopped. Why not
all at once: two contestants of one pool share its queue, so one would take the other's jobs; and workers that stand by,
even drained, send heartbeats, renew leases and share memory with the one under test, which would look smaller than it
is. Why not one worker for all its turns: so every turn begins alike, and a leak of the first burdens no later one.
The price is a few seconds per turn, which no figure contains: the clock begins after the warm-up.

Needs what ``requirements/local.txt`` installs; nothing of it is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ledger.jobs import Executor
from ledger.settings import Settings
from producer.comparison.contestants import Spec, contestants, node_names, words
from producer.comparison.experiment import Contestant
from producer.comparison.fleet import Deployed
from producer.errors import ProducerError

if TYPE_CHECKING:
    from stack.run import Stack
    from stack.supervisor import Command

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
        self.contestants = contestants(specs, serial=serial)
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
            downloads=self._stack.downloads,
            origin_url=self._stack.origin_url,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @contextmanager
    def deployed(self, contestant: Contestant) -> Iterator[Deployed]:
        """
        Raises:
            LocalStackError: a worker does not start.
        """
        notes = self._stack.plan.private / "lateness"
        shutil.rmtree(notes, ignore_errors=True)  # process ids come again
        notes.mkdir(mode=0o700)
        commands = list(self._commands(contestant, {"DOWNPOUR_LATENESS": str(notes)}))
        names = [command.name for command in commands]
        with self._told():
            self._stack.check()
            self._stack.launch(*commands)

        def belongs(who: Executor, seen: frozenset[int]) -> bool:
            return who.pid in seen

        try:
            yield Deployed(
                roots=tuple(self._stack.processes[name].pid for name in names),
                belongs=belongs,
                others=tuple(process.pid for each, process in self._stack.processes.items() if each not in names),
                lateness=notes,
                fresh=True,
                ended=lambda: list(self._ended(names)),
            )
        finally:
            self._stack.stop(*names)
            self._stack.forget(*names)

    def _ended(self, names: Sequence[str]) -> Iterator[str]:
        from stack.supervisor import describe_exit  # noqa: PLC0415

        for name in names:
            if (code := self._stack.processes[name].returncode) is not None:
                yield f"{name} ended in the middle of it: {describe_exit(code)}"

    def _commands(self, contestant: Contestant, more: Mapping[str, str]) -> Iterator[Command]:
        """The Procfile's worker, once for each of the contestant's, under its own name and with its options."""
        plan, pool = self._stack.plan, contestant.pool
        line = plan.line(f"worker-{pool}")
        more = {**more, f"{pool.upper()}_CONCURRENCY": str(contestant.slots_each)}
        for node in node_names(pool, contestant.setup.workers):
            own = line.replace(f"-n {pool}@%h", f"-n {node}@%h").replace(" -E", words(contestant.setup))
            if f"-n {node}@%h" not in own or words(contestant.setup) not in own:
                raise ValueError(f"expected -n {pool}@%h and -E in the Procfile's line, got {line!r}")
            command = plan.command(f"worker-{node}", line=own)
            yield replace(command, env={**command.env, **more})

    def notes(self) -> list[str]:
        return [
            "a stack of its own: for each turn the contestant's workers are started anew, alone, and warmed up; the"
            " start is not counted"
        ]

    def discard(self, batch: str) -> None:
        shutil.rmtree(self._stack.downloads / batch, ignore_errors=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise LocalStackError(str(error)) from error


def _stack(settings: Settings, say: Callable[[str], None]) -> Stack:
    try:
        from stack import ports  # noqa: PLC0415
        from stack.run import Stack  # noqa: PLC0415
    except ImportError as error:
        raise LocalStackError(
            f"workers of our own (--pools POOL:SLOTS) need the package {error.name}, which is not installed here: "
            "install requirements/local.txt, or compare the running stack with --pools prefork,threads,gevent"
        ) from error
    origin = ports.choose()
    allowed_ports = settings.allow_ports | {origin} if settings.allow_ports else frozenset()  # empty: every port
    allowed = {
        "DOWNPOUR_ALLOW_HOSTS": ",".join(sorted(settings.allow_hosts)),
        "DOWNPOUR_ALLOW_NETWORKS": ",".join(sorted(settings.allow_networks | {"127.0.0.0/8"})),
        "DOWNPOUR_ALLOW_PORTS": ",".join(map(str, sorted(allowed_ports))),
    }
    return Stack({}, settings=allowed, insist={"origin": origin}, say=say)


def _stack_error() -> type[Exception]:
    from stack.errors import StackError  # noqa: PLC0415

    return StackError


def _allow_many_files() -> None:
    """What we start inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
