"""CONTRACT of the comparison: what an experiment measured, as plain values and JSON.

An experiment gives the same jobs to several *deployments* (a pool with a concurrency, perhaps with options), in
*rounds*. In each round every deployment has one *measurement*; the order rotates. Round 0 is the
warm-up and never counts. A measurement that was disturbed says why in ``excluded`` and does not count either.

Moments are seconds since the epoch by the ledger's clock (Redis' TIME), spans are seconds, sizes are bytes.
``SCHEMA`` changes when a reader of the old shape would misread the new one.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from pydantic import TypeAdapter

SCHEMA: Literal["poolbench.experiment/2"] = "poolbench.experiment/2"


class PoolKind(StrEnum):
    """Celery's models of execution, of those that are compared."""

    PREFORK = "prefork"
    THREADS = "threads"
    GEVENT = "gevent"


class MeasuredState(StrEnum):
    """Of a job, as it was found."""

    QUEUED = "queued"
    WAITING = "waiting"  # for its next attempt
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (MeasuredState.DONE, MeasuredState.FAILED, MeasuredState.CANCELLED)


@dataclass(frozen=True, slots=True)
class MeasuredExecutor:
    """Who ran an attempt."""

    worker: str  # Celery node name, "threads@host"
    pid: int
    thread: int  # the kernel's thread id: one for all greenlets of a gevent worker
    greenlet: int | None  # gevent's identifier; None in the other pools

    @property
    def kind(self) -> str:
        if self.greenlet is not None:
            return "greenlet"
        return "thread" if self.thread != self.pid else "process"

    @property
    def number(self) -> int:
        """Its own id; of a process' only thread the process'."""
        return self.thread if self.greenlet is None else self.greenlet

    @property
    def host(self) -> str:
        """Process and thread ids are of a host: another one, or another container, may have the same."""
        return self.worker.partition("@")[2]


@dataclass(frozen=True, slots=True)
class MeasuredAttempt:
    """One try at a job, closed."""

    executor: MeasuredExecutor | None  # None: the holder vanished
    started: float
    finished: float
    first_byte: float | None = None
    kind: str | None = None  # of its failure; None: it succeeded, or it was cancelled or handed back
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """How a deployment's workers are set up, beyond pool and concurrency; by default as ``worker.app`` has it."""

    workers: int = 1  # each with the same concurrency
    prefetch: int | None = None  # messages that a worker takes ahead per job at once (Celery's multiplier)
    events: bool = True  # whether an event is sent for each job, e.g. for Flower

    def __str__(self) -> str:
        """``+workers=2+prefetch=4+events=off``; empty if nothing is special."""
        workers = f"+workers={self.workers}" if self.workers > 1 else ""
        prefetch = "" if self.prefetch is None else f"+prefetch={self.prefetch}"
        return workers + prefetch + ("" if self.events else "+events=off")

    @property
    def options(self) -> int:
        """How many differ."""
        return str(self).count("+")


PLAIN = Setup()


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment under test."""

    name: str  # unique: "threads:100", "threads:100+prefetch=4"; "threads" as the running stack has it; "serial"
    pool: PoolKind
    concurrency: int | None  # over all processes of all its workers; None: not known
    serial: bool = False  # the baseline: one job at a time, the next one submitted when the last is over
    command: str | None = None  # how workers like its are started; None: not known
    setup: Setup = PLAIN
    running: bool = False  # its workers were running already, and live on from measurement to measurement

    @property
    def kind(self) -> str:
        """``threads``, ``threads+prefetch=4``: deployments of one kind differ in their concurrency alone."""
        return f"{self.pool}{self.setup}"

    @property
    def look(self) -> str:
        """The name of its colour and its mark."""
        return "serial" if self.serial else self.pool.value

    @property
    def processes(self) -> int | None:
        """In which its jobs run, one for each worker; None: prefork has one for each job at once."""
        return None if self.pool is PoolKind.PREFORK else self.setup.workers

    @property
    def concurrency_each(self) -> int | None:
        """Of one of its workers."""
        return self.concurrency and self.concurrency // self.setup.workers


@dataclass(frozen=True, slots=True)
class MeasuredJob:
    """A job's record as the experiment found it, and what was planned for it."""

    id: str
    filename: str
    state: MeasuredState
    queued: float
    attempts: tuple[MeasuredAttempt, ...]
    nominal: float | None = None  # seconds for which the origin was asked to pace it; None: not paced by us
    received: float | None = None  # by a worker's main process, by its clock set right; None: its event was not seen
    right: bool = True  # its bytes have the sha256 that was expected, or none was
    step: float | None = None  # seconds of what was done with the file after it had arrived, e.g. the links of a page


@dataclass(frozen=True, slots=True)
class Spans:
    """Seconds of every job of a measurement, by its number, in columns. Empty if not every job is done."""

    queued: tuple[float, ...] = ()  # since the submission
    waited: tuple[float, ...] = ()  # in the queue, until it was claimed
    ran: tuple[float, ...] = ()  # from its claim to its end


@dataclass(frozen=True, slots=True)
class SchedulingLatency:
    """How late a thread is that wants the interpreter at fixed moments: what a GIL, or a hub, makes others wait."""

    p99: float
    worst: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What all processes of the deployment's workers used, from the submission to the last end."""

    cpu: float  # seconds, user and system
    pss_idle: int  # proportional set size just before the submission
    pss_peak: int
    processes: int  # at the most
    scheduling: SchedulingLatency | None = None  # None: not known


@dataclass(frozen=True, slots=True)
class Checks:
    """Whether each job ran exactly once, where it should, and brought the right bytes; from the records alone."""

    jobs: int
    done: int
    once: int  # done by exactly one attempt
    here: int  # on a worker of the deployment and nowhere else
    right: int  # with the sha256 that was expected, or none was
    executors: str  # "4 processes", "8 threads of 1 process": counted, not assumed
    faults: tuple[str, ...] = ()  # for people, at most a few

    @property
    def passed(self) -> bool:
        return self.jobs == self.done == self.once == self.here == self.right


@dataclass(frozen=True, slots=True)
class Measurement:
    """One deployment's jobs in one round."""

    deployment: str  # its name
    round: int  # 0: the warm-up
    batch: str
    submitted: float  # just before the submission
    wall: float | None  # until the last job's end; None: not every job is done
    spans: Spans
    checks: Checks
    usage: Usage | None = None
    excluded: tuple[str, ...] = ()  # why it does not count
    jobs: tuple[MeasuredJob, ...] = ()  # for the timeline; only of one per deployment when there are many jobs

    @property
    def counts(self) -> bool:
        return self.round > 0 and not self.excluded and self.wall is not None


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the jobs are."""

    name: str  # "slow"; "manifest"
    title: str  # a sentence for people
    jobs: int
    seed: int | None
    nominal: tuple[float, ...] = ()  # seconds per job, where the origin paces them; empty: it does not
    bytes: int | None = None  # of all files together; None: not known before
    demonstration: bool = False  # shows the models on a few jobs alike for all; says nothing about which is best
    tasks: tuple[str, ...] = ()  # names of the Celery tasks that were called; empty: the jobs are downloads


@dataclass(frozen=True, slots=True)
class Cores:
    """What this machine really gives: processes burn CPU for a moment, and their own clocks are compared with ours."""

    nominal: int
    effective: float  # median of the probes
    probes: tuple[float, ...]  # one before each round, and one at the end


@dataclass(frozen=True, slots=True)
class RunCommand:
    """The command of an experiment, so that it can be run again with other options."""

    program: tuple[str, ...]  # and its arguments that are no long options
    options: tuple[tuple[str, str | None], ...] = ()  # ("--jobs", "160"), ("--no-serial", None)

    def __str__(self) -> str:
        words = (word for option in self.options for word in option if word is not None)
        return shlex.join([*self.program, *words])

    def having(self, **options: str | int | None) -> RunCommand:
        """With these options instead of its own, after the others; None: its own stays."""
        new = {f"--{name}": str(value) for name, value in options.items() if value}
        return replace(self, options=(*(each for each in self.options if each[0] not in new), *new.items()))


@dataclass(frozen=True, slots=True)
class Note:
    """What a reader must know."""

    text: str
    caveat: bool = False  # it bears on a deployment's figures, or on how much was measured; else it is a condition


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Jobs sent at moments that do not depend on what has ended, as users send them. Latency: from that moment on."""

    deployment: str  # its name
    rate: float  # jobs per second
    jobs: int
    ended: int  # within the time that was waited; for the others latency is what they had waited by then
    backlog: int  # due, and not begun, when the last one was due
    p50: float  # seconds, as all below
    p95: float
    p99: float
    late: float  # p99 of how late we sent a job; it is part of the latency

    @property
    def keeps_up(self) -> bool:
        return self.ended == self.jobs and self.backlog <= max(2.0, BEHIND * self.jobs)


@dataclass(frozen=True, slots=True)
class Reach:
    """What tasks tried to connect to, beside the private broker."""

    task: str  # "" if no task was running in that thread
    address: str
    allowed: bool
    count: int


BEHIND = 0.1  # of the jobs: with a larger backlog a deployment falls behind


@dataclass(frozen=True, slots=True)
class Experiment:
    scenario: Scenario
    deployments: tuple[Deployment, ...]
    measurements: tuple[Measurement, ...]
    started: float
    finished: float
    request: RunCommand  # that makes it again, with its seed
    versions: dict[str, str]
    machine: dict[str, str | int | float]
    cores: Cores | None = None
    notes: tuple[str, ...] = ()  # what a reader must know: a stack that was shared, hosts whose clocks differ
    caveats: tuple[str, ...] = ()  # those of the notes that bear on a deployment's figures, or on how much was measured
    open_loop: tuple[OpenLoop, ...] = ()  # by deployment, each by rate
    reaches: tuple[Reach, ...] = ()  # the most frequent first
    schema: Literal["poolbench.experiment/2"] = field(default=SCHEMA)

    def of(self, deployment: str, *, counted: bool = True) -> Iterator[Measurement]:
        """Its measurements, in the order of the rounds."""
        return (each for each in self.measurements if each.deployment == deployment and (each.counts or not counted))

    @property
    def command(self) -> str:
        return str(self.request)

    def shown(self, deployment: str) -> Measurement | None:
        """The one whose jobs are kept for the timeline: one that counts, or else an excluded one, or the warm-up."""
        kept = (each for each in self.of(deployment, counted=False) if each.jobs)
        return max(kept, key=lambda each: (each.counts, each.round > 0), default=None)


_EXPERIMENT = TypeAdapter(Experiment)


def to_json(experiment: Experiment) -> str:
    text = _EXPERIMENT.dump_json(experiment, indent=1, exclude_defaults=True).decode()
    return f'{{\n "schema": "{SCHEMA}",{text[1:]}\n'


def from_json(text: str | bytes) -> Experiment:
    """
    Raises:
        pydantic.ValidationError: this is not an experiment of this schema.
    """
    return _EXPERIMENT.validate_json(text)
