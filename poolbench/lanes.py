"""Lanes: the attempts of a measurement, one lane per executor that ran them. Pure; drawings are made of this.

A *group* is what its executors share: the worker whose processes they are, the process whose threads, the thread whose
greenlets. A lane is one executor, as the ledger has it. Where executors live for one job only (a greenlet each,
recycled processes), a lane each would be thousands: they are *packed*, each attempt on the first lane that is free, and
the lane is called a slot. Attempts on one lane never overlap; should clocks make it look so, the later one gets a lane
of its own that says so. Ids are of a host: where several served a measurement, lanes and groups name theirs.
"""

from __future__ import annotations

import heapq
import math
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from poolbench.experiment import Deployment, Experiment, MeasuredExecutor, MeasuredJob, Measurement
from poolbench.figures import counted, seconds, tick_seconds

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

    @property
    def waited(self) -> float:
        return self.started - self.queued


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
    found: dict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.started, span.finished)):
        found[_shared(span.executor)].append(span)
    several = len({span.executor.host for span in spans if span.executor}) > 1
    groups = tuple(_group(label, of, several=several) for label, of in found.items())
    return LaneChart(groups, max((span.finished for span in spans), default=0.0), _peak(spans))


def _peak(spans: Iterable[Span]) -> int:
    """The most that ran at once; one that ends as another begins made room for it."""
    moments = sorted(moment for span in spans for moment in ((span.started, 1), (span.finished, -1)))
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


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
    by_executor: dict[MeasuredExecutor, list[Span]] = defaultdict(list)
    for span in spans:
        if span.executor:
            by_executor[span.executor].append(span)
    if not by_executor:
        return LaneGroup(label, counted(len(spans), "attempt"), True, tuple(_packed(spans, "lost")))
    first, count = next(iter(by_executor)), len(by_executor)
    packed = count > max(_FEW, _REUSED * _peak(spans))
    # By their first jobs: pools that started two jobs a millisecond apart look alike.
    order = sorted(by_executor.items(), key=lambda each: (each[1][0].place, each[0].number))
    lanes = list(_packed(spans, "slot")) if packed else [lane for who, of in order for lane in _own(who, of)]
    executors = counted(count, first.kind) + (f" on {len(lanes):,} slots" if packed else "")
    if several:
        executors, lanes = f"{executors} @{first.host}", [Lane(f"{of.label} @{first.host}", of.spans) for of in lanes]
    return LaneGroup(label, executors, packed, tuple(lanes))


def _own(who: MeasuredExecutor, spans: Sequence[Span]) -> Iterator[Lane]:
    """The executor's lane, and another one for what cannot have been at the same time."""
    for n, lane in enumerate(_first_fit(spans)):
        yield Lane(name_of(who) + (", overlapping" if n else ""), tuple(lane))


def _packed(spans: Sequence[Span], word: str) -> Iterator[Lane]:
    for n, lane in enumerate(_first_fit(spans), 1):
        yield Lane(f"{word} {n}", tuple(lane))


def _first_fit(spans: Sequence[Span]) -> list[list[Span]]:
    """Each span, in the order of their starts, on the first lane that is free by then."""
    lanes: list[list[Span]] = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for span in spans:
        while busy and busy[0][0] <= span.started:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            lanes.append([])
            heapq.heappush(free, len(lanes) - 1)
        lane = heapq.heappop(free)
        lanes[lane].append(span)
        heapq.heappush(busy, (span.finished, lane))
    return lanes


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
_DRAWN = "┄┣━┫╳█┴─"
(WAIT, FIRST, RUN, LAST, FAILED, ONLY, TICK, RULE), PLAIN = tuple(_DRAWN), str.maketrans(_DRAWN, ".[=]x#+-")


def render(experiment: Experiment, *, width: int = 80) -> list[str]:
    """The lines of the timeline, none wider than ``width``; none at all if nothing ran."""
    found = shown(experiment)
    labels = [lane.label for each in found for lane in each.chart.lanes]
    if not labels:
        return []
    label_width = min(max(map(len, labels)), _LABEL_MOST, width // 2)
    scale = _TextScale(width - _MARGIN - label_width - 1, max(each.chart.end for each in found))
    lines = []
    for each in found:
        left = MOST_LANES
        for group in each.chart.groups:
            lines += textwrap.wrap(f"{each.name}: {group.label}: {group.executors}", width)
            for lane in group.lanes[: max(left, 0)]:
                label = f"{'':{_MARGIN}}{_fit(lane.label, label_width):{label_width}}"
                lines.append(f"{label} {scale.lane(lane)}".rstrip())
            left -= len(group.lanes)
        lines += [f"{'':{_MARGIN}}and {-left:,} more"] if left < 0 else []
        lines += [] if each.chart.groups else [f"{each.name}: nothing ran"]
    indent = " " * (_MARGIN + label_width + 1)
    lines += [(indent + line).rstrip() for line in scale.axis()]
    column = tick_seconds(float(f"{scale.end / scale.columns:.2g}"))
    legend = f"{FIRST}{RUN}{LAST} runs  {RUN}{FAILED} failed  {WAIT * 3} waits in the queue  one column is {column}"
    return lines + textwrap.wrap(legend, width)


@dataclass(frozen=True, slots=True)
class _TextScale:
    columns: int
    end: float  # seconds at the right edge

    def at(self, seconds: float) -> int:
        return min(round(seconds / self.end * self.columns), self.columns) if self.end else 0

    def lane(self, lane: Lane) -> str:
        cells = [" "] * self.columns
        for span in lane.spans:
            first, stop = self.at(span.queued), self.at(span.started)
            cells[first:stop] = WAIT * (stop - first)
        # After all waits: a job that waited for this very lane does not hide what ran there.
        for span in lane.spans:
            first = min(self.at(span.started), self.columns - 1)
            bar = self.bar(span, max(self.at(span.finished) - first, 1))
            cells[first : first + len(bar)] = bar
        return "".join(cells)

    def bar(self, span: Span, length: int) -> str:
        if length == 1:
            return FAILED if span.failed else ONLY
        inner = RUN * (length - 2)
        if len(inner) >= _NAME_LEAST + 3:
            inner = f"{RUN} {_fit(span.job.filename, len(inner) - 3)} ".ljust(len(inner), RUN)
        return FIRST + inner + (FAILED if span.failed else LAST)

    def axis(self) -> Iterator[str]:
        """A rule with ticks, and the seconds under them."""
        rule, numbers = [RULE] * self.columns, [" "] * self.columns
        for tick in ticks(self.end, max(self.columns // 8, 1)):
            text, column = tick_seconds(tick), self.at(tick)
            if column < self.columns:
                rule[column] = TICK
            if column + len(text) <= self.columns:
                numbers[column : column + len(text)] = text
        yield "".join(rule)
        yield "".join(numbers)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."


def ticks(end: float, most: int) -> list[float]:
    """Round values from 0, so many at the most."""
    if not end:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(end / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if end / (power * factor) <= most)
    return [n * step for n in range(math.floor(end / step + 1e-9) + 1)]
