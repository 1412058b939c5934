"""Who ran when: a turn's attempts on lanes, one lane per executor that ran them. Pure; drawings are made of this.

A *group* is what its executors share: the worker whose processes they are, the process whose threads, the thread whose
greenlets. A lane is one executor, as the ledger has it. Where executors live for one job only (a greenlet each,
recycled processes), a lane each would be thousands: they are *packed*, each attempt on the first lane that is free, and
the lane is called a slot. Attempts on one lane never overlap; should clocks make it look so, the later one gets a lane
of its own that says so. Ids are of a host: where several served a turn, lanes and groups name theirs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ledger.jobs import Executor, FailureKind
from producer.comparison.experiment import Contestant, Experiment, MeasuredJob, Turn

_FEW = 16  # executors that all have a lane, however short they lived
_REUSED = 2  # as many executors per slot as still have a lane each


@dataclass(frozen=True, slots=True)
class Strip:
    """An attempt; seconds since the turn's submission."""

    job: int  # its place in the turn's jobs
    executor: Executor | None  # None: the holder vanished
    queued: float  # or when the attempt before it ended
    received: float | None  # by a worker's main process; of a first attempt
    started: float
    first_byte: float | None
    finished: float
    step: float  # of its last seconds, those of the step
    failed: FailureKind | None

    @property
    def waited(self) -> float:
        return self.started - self.queued


@dataclass(frozen=True, slots=True)
class Lane:
    label: str  # "pid 123", "thread 124", "greenlet 3", "slot 1"; "pid 123 @host" if there are several
    pid: int | None  # None: of several processes, or not known
    strips: tuple[Strip, ...]  # by their start


@dataclass(frozen=True, slots=True)
class Group:
    label: str  # "threads@host, pid 99"
    executors: str  # "4 processes", "8 threads @host", "1,000 greenlets on 100 slots"
    packed: bool
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """The lanes of a turn."""

    groups: tuple[Group, ...]
    end: float  # seconds: the last end
    peak: int  # attempts at once, at the most

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return tuple(lane for group in self.groups for lane in group.lanes)

    @property
    def strips(self) -> Iterator[Strip]:
        return (strip for lane in self.lanes for strip in lane.strips)


@dataclass(frozen=True, slots=True)
class Shown:
    """A contestant's turn whose jobs were kept."""

    contestant: Contestant
    turn: Turn
    chart: Chart


def shown(experiment: Experiment) -> list[Shown]:
    turns = ((each, experiment.shown(each.name)) for each in experiment.contestants)
    return [Shown(each, turn, chart(turn)) for each, turn in turns if turn]


def chart(turn: Turn) -> Chart:
    strips = [strip for place, job in enumerate(turn.jobs) for strip in _strips(place, job, turn.submitted)]
    found: dict[tuple[str, ...], list[Strip]] = {}
    for strip in sorted(strips, key=lambda strip: (strip.started, strip.finished)):
        found.setdefault(_shared(strip.executor), []).append(strip)
    several = len({strip.executor.host for strip in strips if strip.executor}) > 1
    groups = tuple(_group(of, several=several) for of in found.values())
    return Chart(groups, max((strip.finished for strip in strips), default=0.0), peak(strips))


def peak(strips: Iterable[Strip]) -> int:
    """How many ran at once, at the most; one that ends as another begins made room for it."""
    moments = sorted(moment for strip in strips for moment in ((strip.started, 1), (strip.finished, -1)))
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def _strips(place: int, job: MeasuredJob, zero: float) -> Iterator[Strip]:
    queued = job.queued
    for number, attempt in enumerate(job.attempts):
        started = max(attempt.started - zero, 0.0)
        finished = max(attempt.finished - zero, started)
        last = number == len(job.attempts) - 1
        first_byte = None if attempt.first_byte is None else min(max(attempt.first_byte - zero, started), finished)
        yield Strip(
            job=place,
            executor=attempt.executor,
            queued=min(max(queued - zero, 0.0), started),
            received=None if number or job.received is None else max(job.received - zero, 0.0),
            started=started,
            first_byte=first_byte,
            finished=finished,
            step=min(job.step or 0.0, finished - started) if last else 0.0,
            failed=attempt.kind,
        )
        queued = attempt.finished


def _kind(who: Executor) -> str:
    if who.greenlet is not None:
        return "greenlet"
    return "thread" if who.thread != who.pid else "process"


def name_of(who: Executor) -> str:
    """Within its group: ``pid 123``, ``thread 124``, ``greenlet 3``."""
    return f"{_kind(who).replace('process', 'pid')} {_number(who)}"


def _number(who: Executor) -> int:
    if who.greenlet is not None:
        return who.greenlet
    return who.thread  # of a process' only thread: its pid


def _shared(who: Executor | None) -> tuple[str, ...]:
    """The name of the group; its first word is the kind of its executors."""
    if who is None:
        return ("lost",)
    kind = _kind(who)
    names = {"process": (), "thread": (f"pid {who.pid}",), "greenlet": (f"pid {who.pid}", f"thread {who.thread}")}
    return kind, who.worker, *names[kind]


def _group(strips: Sequence[Strip], *, several: bool) -> Group:
    first = strips[0].executor
    if first is None:
        lanes = tuple(_packed(strips, "lost"))
        return Group("holder vanished", f"{len(strips)} attempts whose holder vanished", True, lanes)
    kind, *names = _shared(first)
    by_executor: dict[Executor, list[Strip]] = {}
    for strip in strips:
        if strip.executor:
            by_executor.setdefault(strip.executor, []).append(strip)
    count = len(by_executor)
    packed = count > max(_FEW, _REUSED * peak(strips))
    if packed:
        lanes = tuple(_packed(strips, "slot"))
    else:
        # By their first jobs: pools that started two jobs a millisecond apart look alike.
        order = sorted(by_executor.items(), key=lambda each: (each[1][0].job, _number(each[0])))
        lanes = tuple(lane for who, of in order for lane in _own(who, of))
    plural = {"process": "processes"}.get(kind, f"{kind}s") if count != 1 else kind
    said = f"{count:,} {plural}" + (f" on {len(lanes):,} slots" if packed else "")
    if several:
        said = f"{said} @{first.host}"
        lanes = tuple(replace(lane, label=f"{lane.label} @{first.host}") for lane in lanes)
    return Group(", ".join(names), said, packed, lanes)


def _own(who: Executor, strips: Sequence[Strip]) -> Iterator[Lane]:
    """The executor's lane, and another one for what cannot have been at the same time."""
    for n, lane in enumerate(_first_fit(strips)):
        yield Lane(name_of(who) + (", overlapping" if n else ""), who.pid, tuple(lane))


def _packed(strips: Sequence[Strip], word: str) -> Iterator[Lane]:
    for n, lane in enumerate(_first_fit(strips), 1):
        pids = {strip.executor.pid if strip.executor else None for strip in lane}
        yield Lane(f"{word} {n}", pids.pop() if len(pids) == 1 else None, tuple(lane))


def _first_fit(strips: Sequence[Strip]) -> list[list[Strip]]:
    """Each strip, in the order of their starts, on the first lane that is free by then."""
    lanes: list[list[Strip]] = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for strip in strips:
        while busy and busy[0][0] <= strip.started:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            lanes.append([])
            heapq.heappush(free, len(lanes) - 1)
        lane = heapq.heappop(free)
        lanes[lane].append(strip)
        heapq.heappush(busy, (strip.finished, lane))
    return lanes
