"""The system under test: the same jobs, faults and supervision for each. It starts, submits and reads its own notes."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from chaos.fleet import Member
from chaos.mix import Planned
from chaos.schedule import KILLS, Kind
from ledger.jobs import Pool
from ledger.redis_client import connect
from ledger.settings import Settings
from producer.fleet import worker_line
from stack.plan import CONCURRENCY, ROOT
from stack.processes import Command
from stack.stack import Stack


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault as it happened. Epoch seconds; this machine's clock is Redis' clock too."""

    kind: Kind
    pool: Pool | None
    at: float
    members: tuple[str, ...]
    pids: frozenset[int]  # of every process that it hit
    note: str | None = None  # why it was less than planned

    @property
    def killed(self) -> bool:
        """Whether it sent a SIGKILL to a process that existed."""
        kills = self.kind in KILLS | {Kind.POISON}
        return kills and self.note is None and (bool(self.pids) or self.kind in (Kind.REDIS, Kind.PRODUCER))


@dataclass(frozen=True, slots=True)
class Interruption:
    """A job that was running in a process when a blow hit that process, and what became of it."""

    job: str
    pool: Pool
    blow: int  # its place in the list of blows
    back: float | None  # seconds from the blow until it was on its queue again; None: not known or never
    again: float | None  # ... until it was running again


@dataclass(frozen=True, slots=True)
class Ended:
    """What the subject's own notes say of a job."""

    state: str | None  # done, failed, cancelled; None: no end
    successes: int = 0
    starts: tuple[float, ...] = ()  # of its attempts, epoch
    lost: int = 0  # attempts
    handed_back: int = 0
    kind: str | None = None  # of the failure


class Subject(ABC):
    """What asks Redis raises ``redis.RedisError`` while Redis is away.

    Args:
        stack: runs Redis and nothing else.
        each: workers per pool.
    """

    name: str
    about: str
    prefix: str  # of the queues' keys
    role: str  # as whom it submits
    app: str  # that its workers run
    variables: Mapping[str, str] = {}  # for its workers only
    tidies_within: float = 0.0  # seconds after which what killed workers left on the disk is gone
    spared: Set[Kind] = frozenset()

    def __init__(self, stack: Stack, each: int) -> None:
        self.stack = stack
        self.each = each
        env = stack.plan.downpour("admin")  # a connection of our own, for looking only
        password = Path(env["DOWNPOUR_REDIS_PASSWORD_FILE"])
        settings = Settings(redis_url=env["DOWNPOUR_REDIS_URL"], redis_password_file=password)
        self.redis = connect(settings, connections=4)

    def queued(self, pool: Pool) -> int:
        """Messages on the pool's queue."""
        return int(self.redis.llen(f"{self.prefix}{pool.queue}"))

    def python(self, name: str, *words: str | Path) -> Command:
        """A Python command of this subject's producer."""
        env = self.stack.plan.env(self.role)
        argv = [str(Path(env["PATH"].partition(os.pathsep)[0]) / "python"), *map(str, words)]
        return Command(name, argv, env, ROOT, self.stack.plan.log(name))

    def members(self) -> list[Member]:
        """Everything that is supervised: workers, and what else runs beside them."""
        made = []
        for pool in Pool:
            for node in (f"{pool}-{number}" for number in range(1, self.each + 1)):
                line = worker_line(node, pool, CONCURRENCY[pool], app=self.app)
                command = self.stack.plan.command(f"worker-{node}", line=line)
                own = dataclasses.replace(command, env={**command.env, **self.variables})
                made.append(Member(self.stack, own, pool))
        return made

    @abstractmethod
    def submission(self, batch: str, pool: Pool, manifest: Path) -> Command:
        """The command that submits a manifest."""

    @abstractmethod
    def begun(self, batch: str) -> bool:
        """Whether some, but not all, of a batch is submitted."""

    @abstractmethod
    def note(self) -> None:
        """Called twice a second while the load lasts, to remember what Redis forgets."""

    @abstractmethod
    def finished(self, batches: Mapping[str, Sequence[Planned]]) -> set[str]:
        """Names of the batches whose every job has its end."""

    @abstractmethod
    def awaited(self, batches: Mapping[str, Sequence[Planned]]) -> int:
        """How many of these have no end although one may still come."""

    @abstractmethod
    def ended(self, batches: Mapping[str, Sequence[Planned]]) -> dict[str, Ended]:
        """Its own notes, by job."""

    @abstractmethod
    def interruptions(self, blows: Sequence[Blow]) -> list[Interruption]:
        """After ``ended``."""

    def holder(self, job: str) -> int | None:  # noqa: ARG002
        """The process that runs a job."""
        return None

    def dead_letters(self) -> int:
        return 0

    @abstractmethod
    def leftovers(self) -> tuple[dict[str, int], tuple[str, ...]]:
        """What is left in Redis, in entries; and the names of those that must not be."""
