"""Lanes: the attempts of a measurement, one lane per executor that ran them. Pure; drawings are made of this.

A *group* is what its executors share: the worker whose processes they are, the process whose threads, the thread whose
greenlets. A lane is one executor, as the ledger has it. Where executors live for one job only (a greenlet each,
recycled processes), a lane each would be thousands: they are *packed*, each attempt on the first lane that is free, and
the lane is called a slot. Attempts on one lane never overlap; should clocks make it look so, the later one gets a lane
of its own that says so. Ids are of a host: where several served a measurement, lanes and groups name theirs.
"""

from __future__ import annotations

import heapq
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from poolbench.experiment import Deployment, Experiment, MeasuredExecutor, MeasuredJob, Measurement
from poolbench.figures import counted, seconds

_FEW = 16  # executors that all have a lane, however short they lived
_REUSED = 2  # as many executors per slot as still have a lane each


@dataclass(frozen=True, slots=True)
class Span:
    """An attempt; seconds since the submission."""

    place: int  # of its job in the measurement's
    job: MeasuredJob
    executor: MeasuredExecutor | None  # None: the holder vanished
    queued: float  # or when the attempt before it ended
    received: float | None  # by a worker's main process; of a first attempt
    started: float
    first_byte: float | None
    finished: float
    step: float  # of its last seconds, those of the step
    failed: str | None


@dataclass(frozen=True, slots=True)
class Lane:
    label: str  # "pid 123", "thread 124", "greenlet 3", "slot 1"; "pid 123 @host" if there are several
    spans: tuple[Span, ...]  # by their start


@dataclass(frozen=True, slots=True)
class LaneGroup:
    label: str  # "threads@host, pid 99"
    executors: str  # "4 processes", "8 threads @host", "1,000 greenlets on 100 slots"
    packed: bool
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class LaneChart:
    """The lanes of a measurement."""

    groups: tuple[LaneGroup, ...]
    end: float  # seconds: the last end
    peak: int  # attempts at once, at the most

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return tuple(lane for group in self.groups for lane in group.lanes)

    @property
    def spans(self) -> Iterator[Span]:
        return (span for lane in self.lanes for span in lane.spans)


@dataclass(frozen=True, slots=True)
class Shown:
    """A deployment's measurement whose jobs were kept."""

    deployment: Deployment
    measurement: Measurement
    chart: LaneChart

    @property
    def name(self) -> str:
        return self.deployment.name


def shown(experiment: Experiment) -> list[Shown]:
    found = ((each, experiment.shown(each.name)) for each in experiment.deployments)
    return [Shown(each, measurement, chart(measurement)) for each, measurement in found if measurement]


def chart(measurement: Measurement) -> LaneChart:
    jobs = enumerate(measurement.jobs)
    spans = [span for place, job in jobs for span in _spans(place, job, measurement.submitted)]
    spans.sort(key=lambda span: (span.started, span.finished))
    found: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        found[_shared(span.executor)].append(span)
    several = len({span.executor.host for span in spans if span.executor}) > 1
    groups = tuple(_group(label, of, several=several) for label, of in found.items())
    return LaneChart(groups, max((span.finished for span in spans), default=0.0), len(_side_by_side(spans)))


def _spans(place: int, job: MeasuredJob, zero: float) -> Iterator[Span]:
    queued = job.queued
    for number, attempt in enumerate(job.attempts):
        started = max(attempt.started - zero, 0.0)
        finished = max(attempt.finished - zero, started)
        last = number == len(job.attempts) - 1
        first_byte = None if attempt.first_byte is None else min(max(attempt.first_byte - zero, started), finished)
        yield Span(
            place=place,
            job=job,
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


def name_of(who: MeasuredExecutor) -> str:
    """Within its group: ``pid 123``, ``thread 124``, ``greenlet 3``."""
    return f"{who.kind.replace('process', 'pid')} {who.number}"


def _shared(who: MeasuredExecutor | None) -> str:
    """The names of what executors share."""
    if who is None:
        return "holder vanished"
    names = {"process": (), "thread": (f"pid {who.pid}",), "greenlet": (f"pid {who.pid}", f"thread {who.thread}")}
    return ", ".join((who.worker, *names[who.kind]))


def _group(label: str, spans: Sequence[Span], *, several: bool) -> LaneGroup:
    by_executor: dict[MeasuredExecutor | None, list[Span]] = defaultdict(list)
    for span in spans:
        by_executor[span.executor].append(span)
    first, count, rows = spans[0].executor, len(by_executor), _side_by_side(spans)
    if first is None:
        return LaneGroup(label, counted(len(spans), "attempt"), True, _packed("lost", rows))
    packed = count > max(_FEW, _REUSED * len(rows))
    if packed:
        lanes, executors = _packed("slot", rows), f"{counted(count, first.kind)} on {len(rows):,} slots"
    else:
        lanes, executors = tuple(_own(by_executor)), counted(count, first.kind)
    if several:
        executors = f"{executors} @{first.host}"
        lanes = tuple(Lane(f"{of.label} @{first.host}", of.spans) for of in lanes)
    return LaneGroup(label, executors, packed, lanes)


def _own(by_executor: Mapping[MeasuredExecutor | None, Sequence[Span]]) -> Iterator[Lane]:
    """A lane for each executor, by their first jobs: pools that started two jobs a millisecond apart look alike.

    Another one for what cannot have been at the same time.
    """
    known = [(who, of) for who, of in by_executor.items() if who]
    for who, of in sorted(known, key=lambda each: (each[1][0].place, each[0].number)):
        for n, row in enumerate(_side_by_side(of)):
            yield Lane(name_of(who) + (", overlapping" if n else ""), tuple(row))


def _packed(word: str, rows: Sequence[Sequence[Span]]) -> tuple[Lane, ...]:
    return tuple(Lane(f"{word} {n}", tuple(row)) for n, row in enumerate(rows, 1))


def _side_by_side(spans: Sequence[Span]) -> list[list[Span]]:
    """Each span, in the order of their starts, on the first row that is free by then: as many as ran at once."""
    rows: list[list[Span]] = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for span in spans:
        while busy and busy[0][0] <= span.started:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            rows.append([])
            heapq.heappush(free, len(rows) - 1)
        row = heapq.heappop(free)
        rows[row].append(span)
        heapq.heappush(busy, (span.finished, row))
    return rows


# -- as text


def in_words(of: Shown) -> str:
    """The lanes, for a reader who does not see them."""
    count, found = sum(1 for _ in of.chart.spans), of.measurement
    if not count:
        return "nothing ran"
    kind = "" if found.counts else "a measurement that does not count: " if found.round else "only the warm-up: "
    executors = ", ".join(group.executors for group in of.chart.groups)
    return (
        f"{kind}{counted(count, 'attempt')} on {executors}; at most {of.chart.peak:,} at once; the last ended after"
        f" {seconds(of.chart.end)}"
    )


MOST_LANES = 16  # of one deployment; the rest is counted
_MARGIN = 2
_LABEL_MOST = 34  # "thread 4194304 @host" has room
_NAME_LEAST = 8  # columns; a bar with less room carries no name

# One character each: a wait; a run's begin, middle, end; one that failed, one in a single column; the axis.
_DRAWN = "┄┣━┫╳█─"
(WAIT, FIRST, RUN, LAST, FAILED, ONLY, AXIS), PLAIN = tuple(_DRAWN), str.maketrans(_DRAWN, ".[=]x#-")
_LEGEND = f"{FIRST}{RUN}{LAST} runs  {RUN}{FAILED} failed  {WAIT * 3} waits in the queue"


def render(experiment: Experiment, *, width: int = 80) -> list[str]:
    """The lines of the timeline, none wider than ``width``; none at all if nothing ran."""
    found = shown(experiment)
    labels = [lane.label for each in found for lane in each.chart.lanes]
    if not labels:
        return []
    label_width = min(max(map(len, labels)), _LABEL_MOST, width // 2)
    columns, end = width - _MARGIN - label_width - 1, max(each.chart.end for each in found)
    lines = []
    for each in found:
        left = MOST_LANES
        for group in each.chart.groups:
            lines += textwrap.wrap(f"{each.name}: {group.label}: {group.executors}", width)
            for lane in group.lanes[: max(left, 0)]:
                label = f"{'':{_MARGIN}}{_fit(lane.label, label_width):{label_width}}"
                lines.append(f"{label} {_drawn(lane, columns, end)}".rstrip())
            left -= len(group.lanes)
        lines += [f"{'':{_MARGIN}}and {-left:,} more"] if left < 0 else []
        lines += [] if each.chart.groups else [f"{each.name}: nothing ran"]
    ends = f" {seconds(end)}"
    axis = f"{'':{_MARGIN + label_width + 1}}0 s {AXIS * (columns - len('0 s ') - len(ends))}{ends}"
    return [*lines, axis, *textwrap.wrap(_LEGEND, width)]


def _drawn(lane: Lane, columns: int, end: float) -> str:
    """Args: end: seconds at the right edge."""

    def at(moment: float) -> int:
        return min(round(moment / end * columns), columns) if end else 0

    cells = [" "] * columns
    for span in lane.spans:
        first, stop = at(span.queued), at(span.started)
        cells[first:stop] = WAIT * (stop - first)
    # After all waits: a job that waited for this very lane does not hide what ran there.
    for span in lane.spans:
        first = min(at(span.started), columns - 1)
        bar = _bar(span, max(at(span.finished) - first, 1))
        cells[first : first + len(bar)] = bar
    return "".join(cells)


def _bar(span: Span, length: int) -> str:
    if length == 1:
        return FAILED if span.failed else ONLY
    inner = RUN * (length - 2)
    if len(inner) >= _NAME_LEAST + 3:
        inner = f"{RUN} {_fit(span.job.filename, len(inner) - 3)} ".ljust(len(inner), RUN)
    return FIRST + inner + (FAILED if span.failed else LAST)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."
