"""What a run found: plain values and JSON.

Times of a run are seconds since its load began, spans are seconds, sizes are bytes. ``schema`` changes when a reader of
the old shape would misread the new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some spans."""

    count: int
    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Of those that are known; None: none is."""
        row = sorted(value for value in values if value is not None)
        if not row:
            return None
        p95 = row[min(len(row) - 1, -(-95 * len(row) // 100) - 1)]  # nearest rank
        return cls(len(row), round(row[(len(row) - 1) // 2], 2), round(p95, 2), round(row[-1], 2))


@dataclass(frozen=True, slots=True)
class Books:
    """Every submitted job is in exactly one of done, failed, cancelled, lost."""

    submitted: int
    done: int
    failed: int
    cancelled: int
    lost: int  # no end within the time allowed after the load
    doubled: int  # jobs with more than one successful end
    wrong_files: int  # done, but the file is not there, or not the bytes that it must have
    changed_files: int  # another inode, size or time than when the job was first seen to be done
    strange_files: int  # a final name although no record says done
    temp_files: int
    not_allowed: tuple[str, ...] = ()  # leftovers in Redis that must not be there
    leftovers: dict[str, int] = field(default_factory=dict)  # in Redis, in entries
    poisoned: int = 0  # jobs that kill their process and ended as they must: failed, kind poison
    escaped: int = 0  # jobs that kill their process and ended otherwise
    malformed: int = 0  # messages that were put on the queues
    examples: dict[str, list[str]] = field(default_factory=dict)  # ids, a few of each that is not zero

    @property
    def innocent_failed(self) -> int:
        return self.failed - self.poisoned

    @property
    def wrong(self) -> dict[str, int]:
        """What keeps the books from balancing."""
        dead = self.leftovers.get("dead-letters", 0)
        found = {
            "unaccounted": self.submitted - self.done - self.failed - self.cancelled - self.lost,
            "innocent failed": self.innocent_failed,
            "done twice": self.doubled,
            "left in Redis": len(self.not_allowed),
            # A malformed message that a worker had in its hand when it was killed, or while Redis refused, is nowhere.
            "dead letters": 0 if 0.7 * self.malformed <= dead <= self.malformed else max(1, dead - self.malformed),
        }
        names = ("lost", "wrong_files", "changed_files", "strange_files", "temp_files", "escaped")
        found |= {name.replace("_", " "): getattr(self, name) for name in names}
        return {what: count for what, count in found.items() if count}


@dataclass(frozen=True, slots=True)
class Work:
    """What the faults cost in work done again. Honest, not forbidden."""

    attempts: int  # begun, as far as the subject's own notes say
    attempts_lost: int  # whose holder died
    handed_back: int  # by a worker that was told to stop
    fetched_again: int  # jobs whose last byte the origin sent more than once: an upper bound, see docs/chaos.md
    failed_kinds: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault that was carried out."""

    kind: str
    pool: str | None
    members: str
    at: float  # since the load began
    jobs: int = 0  # that it interrupted, as far as notes say
    back: float | None = None  # until the last of them was on its queue again
    again: float | None = None  # until the last of them was running again
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kind of fault in one pool."""

    kind: str
    pool: str
    faults: int
    interrupted: int  # jobs
    never_again: int  # of them: did not run again
    back: Spread | None  # fault → the job is on its queue again
    again: Spread | None  # fault → the job is running again


@dataclass(frozen=True, slots=True)
class Feeding:
    """The producer's side."""

    batches: int
    killed: int  # in the middle of a submission
    runs_again: int  # of the same command, after a kill or an error
    doubled: int = 0  # jobs done twice that are in a batch whose command was run again


@dataclass(frozen=True, slots=True)
class Report:
    subject: str
    about: str
    command: str
    seed: int
    started: str
    load_seconds: float  # from the first fault's pause to the last job's end
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    faults: dict[str, int]  # carried out, by kind
    kills: int  # of them, those that sent a SIGKILL to a process that existed
    spared: int  # not carried out: no ready victim
    books: Books
    work: Work
    feeding: Feeding
    recovery: tuple[Recovery, ...]
    overall: dict[str, Spread | None]  # back, again: of all interrupted jobs, and by case; see ``findings.overall``
    redis_gap: dict[str, Spread | None]  # Redis killed → it answers again (away); by pool: → the next job begins
    unasked_exits: dict[str, int]  # processes that ended without a fault, by name and code
    unhealthy: tuple[str, ...]  # at the end
    struck: tuple[Struck, ...]
    complete: bool  # False: a deadline cut it off
    schema: Literal["downpour.chaos/1"] = "downpour.chaos/1"

    @property
    def good(self) -> bool:
        return self.complete and not self.books.wrong and not self.unhealthy


_REPORT = TypeAdapter(Report)


def to_json(report: Report) -> str:
    return _REPORT.dump_json(report, indent=1).decode() + "\n"


def from_json(text: str | bytes) -> Report:
    """
    Raises:
        pydantic.ValidationError: this is not a report of this schema.
    """
    return _REPORT.validate_json(text)
