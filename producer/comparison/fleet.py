"""The stack that is already up, as the contestants' home: the pools with live workers are the contestants.

Its workers are measured from outside where they run on this machine; in a container of another's they cannot be.
``private`` is the other home: a stack of our own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ledger.control import Control, LiveWorker
from ledger.jobs import Executor, Pool
from ledger.ledger import Ledger
from ledger.settings import Settings
from producer.comparison import procfs
from producer.comparison.contestants import Spec, contestants
from producer.comparison.experiment import Contestant
from producer.comparison.notes import SHARED, UNSEEN


@dataclass(frozen=True, slots=True)
class Deployed:
    """A contestant's workers, ready to take jobs.

    Args:
        roots: their main processes, if they run on this machine.
        others: main processes of the rest of the stack, if all of it is ours.
        belongs: whether who ran an attempt is one of them; given the processes that were seen of them.
        fresh: started for this turn: nothing has run there yet.
        ended: says of each of them that is not alive any more how it ended; nothing where we cannot know.
    """

    roots: tuple[int, ...]
    belongs: Callable[[Executor, frozenset[int]], bool]
    others: tuple[int, ...] | None = None
    lateness: Path | None = None
    fresh: bool = False
    ended: Callable[[], list[str]] = list


class Fleet(Protocol):
    """Where contestants live."""

    settings: Settings
    contestants: tuple[Contestant, ...]

    def deployed(self, contestant: Contestant) -> AbstractContextManager[Deployed]:
        """The contestant's workers for a turn."""

    def notes(self) -> list[str]:
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
        self._control = Control(ledger)
        workers = self._control.workers()
        if specs is None:
            alive = {worker.pool for worker in workers}
            specs = [Spec(pool) for pool in Pool if pool in alive or not alive]
        found = contestants(specs, serial=serial)
        self.contestants = tuple(_with_slots(each, workers) for each in found)

    @contextmanager
    def deployed(self, contestant: Contestant) -> Iterator[Deployed]:
        workers = [worker for worker in self._control.workers() if worker.pool is contestant.pool]
        roots = {root for worker in workers if (root := _root(worker))}
        seen_all = len(roots) == len(workers)
        yield Deployed(
            roots=tuple(sorted(roots)) if seen_all else (),
            belongs=lambda who, _seen: pool_of(who.worker) == contestant.pool,
        )

    def notes(self) -> list[str]:
        found = [f"{SHARED}: its workers were not started for this"]
        workers = [
            worker for worker in self._control.workers() if worker.pool in {each.pool for each in self.contestants}
        ]
        if any(_root(worker) is None for worker in workers):
            found.append(f"workers run elsewhere (another machine or container): {UNSEEN}")
        return found

    def discard(self, batch: str) -> None:
        """They stay: whose folder it is we do not know."""


def pool_of(worker: str) -> str:
    """Workers are named POOL@HOST, as compose and the Procfile do, or POOL-NUMBER@HOST."""
    return worker.partition("@")[0].partition("-")[0]


def _with_slots(contestant: Contestant, workers: Sequence[LiveWorker]) -> Contestant:
    """Of prefork the ledger knows them: a process each."""
    slots = sum(len(worker.pids) for worker in workers if worker.pool is Pool.PREFORK)
    if contestant.serial or contestant.pool is not Pool.PREFORK or not slots:
        return contestant
    return Contestant(contestant.name, contestant.pool, slots)


def _root(worker: LiveWorker) -> int | None:
    """The worker's main process, if it is one of this machine: the one it names, or the parent of its children."""
    if worker.name.partition("@")[2] != socket.gethostname() or not worker.pids:
        return None
    pid = worker.pids[0]
    if worker.pool is Pool.PREFORK:
        found = procfs.process(pid)
        pid = found.parent if found else 0
    try:
        return pid if b"worker.app" in (procfs.PROC / str(pid) / "cmdline").read_bytes() else None
    except OSError:
        return None
