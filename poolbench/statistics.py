"""What an experiment's turns amount to: a row per deployment, and each pair of deployments compared.

Only turns that count are used, and each row says how many did not, and why. Every figure is a median over turns with
the interval of that median (see ``Estimate``), unless it says otherwise.

Where the time goes, per job, in two sums that a reader can add up (``Split``):

    submit + wait + run + step       = latency: from the turn's submission to the job's end, on average
    run + step + overhead            = concurrency * wall / jobs: what a job costs of the slots' time

``submit`` until the job was in its queue, ``wait`` in the queue until it was claimed, ``run`` from the claim to the end
without the step, ``step`` what was done with the file. ``overhead`` is the slots' time in which none of our jobs ran:
messages, claims, records between two jobs, and slots that stood idle at the beginning and the end. (Of a deployment
with a concurrency above the number of jobs, only as many slots as jobs are counted.)

Two deployments are compared round by round: the machine's drift from round to round is in both turns of a round and
cancels in their ratio. The verdict follows from the interval of the median ratio; where it includes 1 the verdict is
that we cannot tell, and with fewer than three rounds always, and of deployments whose jobs were paced differently (the
tutorial's). Each comparison is right in 95 of 100 experiments on its
own: of twenty comparisons of equals, one is called a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise
from statistics import fmean, median, stdev

from poolbench.experiment import Deployment, Experiment, Measurement, SchedulingLatency, Usage

CONFIDENCE = 0.95
LEAST = 3  # values; with fewer there is no interval
_STUDENT = {3: 4.3027, 4: 3.1824, 5: 2.7764}  # by number of values: the 97.5 % quantile with one degree of freedom less


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median of a few values, one per turn or per pair of turns."""

    median: float
    low: float  # the smallest value
    high: float  # the largest
    n: int
    interval: tuple[float, float] | None  # of the median; None: too few values
    confidence: float  # of the interval; 0 without one

    @property
    def spread(self) -> float:
        """Half of the interval's width as a share of the median; without an interval that of the range."""
        low, high = self.interval or (self.low, self.high)
        return (high - low) / 2 / abs(self.median) if self.median else 0.0


def estimate(values: Sequence[float]) -> Estimate | None:
    """None if there are no values."""
    if not values:
        return None
    interval, confidence = _interval(sorted(values))
    return Estimate(median(values), min(values), max(values), len(values), interval, confidence)


def _interval(ordered: Sequence[float]) -> tuple[tuple[float, float] | None, float]:
    n = len(ordered)
    if n < LEAST:
        return None, 0.0
    if n in _STUDENT:
        low, high = _student(ordered)
        return (min(low, ordered[0]), max(high, ordered[-1])), CONFIDENCE
    k, confidence = _rank(n)
    return (ordered[k - 1], ordered[n - k]), confidence


def _student(values: Sequence[float]) -> tuple[float, float]:
    positive = values[0] > 0
    scaled = [math.log(value) for value in values] if positive else list(values)
    middle = fmean(scaled)
    half = _STUDENT[len(values)] * stdev(scaled) / math.sqrt(len(values))
    return (math.exp(middle - half), math.exp(middle + half)) if positive else (middle - half, middle + half)


def _rank(n: int) -> tuple[int, float]:
    """The largest k whose order statistics are sure enough, and how sure they are."""
    fewer, best = 0, (1, 1 - 2 * 0.5**n)
    for k in range(1, n // 2 + 1):
        fewer += math.comb(n, k - 1)  # ways to have fewer than k of n on one side
        sure = 1 - 2 * fewer / 2**n
        if sure < CONFIDENCE:
            break
        best = (k, sure)
    return best


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that at least this share of the sorted values does not exceed."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


# -- what is said, as values


METHOD = (
    f"Medians over the rounds that count; intervals of the median at {CONFIDENCE:.0%}: order statistics from 6 rounds"
    f" on, Student's on logarithms and at least the range below, none below {LEAST}. Ratios are of turns of the same"
    " round."
)


class Verdict(StrEnum):
    """What a comparison says of its first deployment."""

    FASTER = "faster"
    SLOWER = "slower"
    CANNOT_TELL = "cannot tell"

    @property
    def reversed(self) -> Verdict:
        return {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}.get(self, self)


@dataclass(frozen=True, slots=True)
class Tail:
    """Seconds, over all jobs of all turns that count; nearest rank."""

    p50: float
    p95: float
    p99: float
    worst: float
    jobs: int  # with fewer than 100, p99 is the worst


@dataclass(frozen=True, slots=True)
class Split:
    """Seconds per job, means over all jobs of all turns that count; see the top."""

    submit: float
    wait: float
    run: float
    step: float
    overhead: float | None  # None: the concurrency is not known


@dataclass(frozen=True, slots=True)
class Memory:
    """Proportional set sizes in bytes, medians over turns."""

    idle: float  # before the submission
    peak: float
    per_slot: float | None  # (peak - idle) / concurrency: what work adds; processes are in idle. None: not known
    growth: Estimate | None  # from the end of one turn to the end of its next; None: fewer than two turns
    stays: float  # at the end of a turn, more than before it

    @property
    def grows(self) -> bool:
        """Whether it is sure that memory grows from round to round."""
        return bool(self.growth and self.growth.interval and self.growth.interval[0] > 0)


@dataclass(frozen=True, slots=True)
class Row:
    """A deployment's turns; what is None could not be had."""

    deployment: Deployment
    measurements: int  # that count
    excluded: tuple[str, ...]  # why others do not: "round 2: ..."; the warm-up is not listed
    wall: Estimate | None  # seconds until the last job's end
    jobs_per_second: Estimate | None
    speedup: Estimate | None  # over the serial baseline, by rounds
    ideal: (
        float | None
    )  # seconds: no schedule of the paced jobs at this concurrency is shorter than max(longest, sum / concurrency)
    share_of_ideal: Estimate | None  # ideal / wall
    split: Split | None
    latency: Tail | None  # from the turn's submission to the job's end
    run: Tail | None  # from the claim to the end, the step included
    cpu_per_job: Estimate | None  # seconds
    cores_used: Estimate | None  # seconds of CPU per second
    memory: Memory | None
    switches_per_job: Estimate | None  # voluntary and involuntary
    scheduling: SchedulingLatency | None  # p50 and p99: medians over turns; worst: of all
    executors: str | None  # of the last turn that counts

    @property
    def name(self) -> str:
        return self.deployment.name


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two deployments, round by round."""

    a: str
    b: str
    ratio: Estimate | None  # jobs per second of a, over those of b; None: no round in which both count, or other jobs
    verdict: Verdict  # of a

    @property
    def reversed(self) -> Comparison:
        return Comparison(self.b, self.a, _inverse(self.ratio), self.verdict.reversed)


@dataclass(frozen=True, slots=True)
class Summary:
    rows: tuple[Row, ...]  # in the order of the experiment's deployments
    comparisons: tuple[Comparison, ...]  # each pair once; the serial baseline is in none
    rounds: int  # without the warm-up
    excluded: int  # turns
    method: str = METHOD

    def row(self, deployment: str) -> Row:
        return next(row for row in self.rows if row.name == deployment)

    def compare(self, a: str, b: str) -> Comparison:
        for found in self.comparisons:
            if (found.a, found.b) == (a, b):
                return found
            if (found.a, found.b) == (b, a):
                return found.reversed
        raise KeyError(f"expected two deployments that are compared, got {a!r} and {b!r}")


def _inverse(ratio: Estimate | None) -> Estimate | None:
    if ratio is None:
        return None
    interval = (1 / ratio.interval[1], 1 / ratio.interval[0]) if ratio.interval else None
    return Estimate(1 / ratio.median, 1 / ratio.high, 1 / ratio.low, ratio.n, interval, ratio.confidence)


def summarise(experiment: Experiment) -> Summary:
    serial = next((each.name for each in experiment.deployments if each.serial), None)
    rows = tuple(_row(experiment, each, serial) for each in experiment.deployments)
    rivals = [each for each in experiment.deployments if not each.serial]
    return Summary(
        rows=rows,
        comparisons=tuple(_compare(experiment, a, b) for a, b in combinations(rivals, 2)),
        rounds=len({measurement.round for measurement in experiment.measurements if measurement.round > 0}),
        excluded=sum(len(row.excluded) for row in rows),
    )


# -- a deployment


def _row(experiment: Experiment, deployment: Deployment, serial: str | None) -> Row:
    measurements = sorted(experiment.of(deployment.name), key=lambda measurement: measurement.round)
    concurrency = concurrency_of(deployment)
    ideal = lower_bound(paced(experiment, deployment), concurrency)
    walls = [measurement.wall for measurement in measurements if measurement.wall]
    used = [(measurement.usage, measurement) for measurement in measurements if measurement.usage]
    speedup = None
    if serial and not deployment.serial:
        speedup = estimate(_ratios(experiment, deployment.name, serial))
    return Row(
        deployment=deployment,
        measurements=len(measurements),
        excluded=tuple(_exclusions(experiment.of(deployment.name, counted=False))),
        wall=estimate([measurement.wall for measurement in measurements if measurement.wall is not None]),
        jobs_per_second=estimate([rate for measurement in measurements if (rate := _rate(measurement)) is not None]),
        speedup=speedup,
        ideal=ideal,
        share_of_ideal=estimate([ideal / wall for wall in walls]) if ideal else None,
        split=_split(measurements, concurrency),
        latency=_tail(latencies_of(measurement) for measurement in measurements),
        run=_tail(measurement.spans.ran for measurement in measurements),
        cpu_per_job=estimate(
            [usage.cpu / measurement.checks.done for usage, measurement in used if measurement.checks.done]
        ),
        cores_used=estimate([usage.cpu / measurement.wall for usage, measurement in used if measurement.wall]),
        memory=_memory([usage for usage, _ in used], deployment.concurrency),
        switches_per_job=estimate(
            [_switches(usage) / measurement.checks.done for usage, measurement in used if measurement.checks.done]
        ),
        scheduling=_scheduling([usage.scheduling for usage, _ in used if usage.scheduling]),
        executors=measurements[-1].checks.executors if measurements else None,
    )


def _exclusions(measurements: Iterable[Measurement]) -> Iterable[str]:
    for measurement in measurements:
        if measurement.round > 0 and not measurement.counts:
            yield f"round {measurement.round}: {'; '.join(measurement.excluded) or 'not every job is done'}"


def _rate(measurement: Measurement) -> float | None:
    return measurement.checks.done / measurement.wall if measurement.wall and measurement.checks.done else None


def _switches(usage: Usage) -> int:
    return usage.voluntary_switches + usage.involuntary_switches


def concurrency_of(deployment: Deployment) -> int | None:
    """Jobs at once; one at a time there is one, whatever the worker could."""
    return 1 if deployment.serial else deployment.concurrency


def paced(experiment: Experiment, deployment: Deployment) -> tuple[float, ...]:
    """Seconds for which the origin paced each of its jobs; empty: it did not, or we do not know which jobs it had.

    The jobs that are kept know best: in the tutorial each pool has its own files, and the baseline may run a part.
    """
    shown = experiment.shown(deployment.name)
    if shown and shown.round and len(shown.jobs) == shown.checks.jobs:  # a warm-up may run fewer
        seconds = [job.nominal for job in shown.jobs if job.nominal is not None]
        return tuple(sorted(seconds)) if len(seconds) == len(shown.jobs) else ()
    whole = all(measurement.checks.jobs == experiment.scenario.jobs for measurement in experiment.of(deployment.name))
    return tuple(sorted(experiment.scenario.nominal)) if whole else ()


def lower_bound(seconds: Sequence[float], concurrency: int | None) -> float | None:
    """Seconds that no schedule of paced jobs at this concurrency can beat; None if either is not known."""
    return max(*seconds, sum(seconds) / concurrency) if seconds and concurrency else None


def latencies_of(measurement: Measurement) -> tuple[float, ...]:
    """Seconds from the turn's submission to each job's end."""
    spans = measurement.spans
    return tuple(sum(parts) for parts in zip(spans.queued, spans.waited, spans.ran, strict=True))


def _tail(columns: Iterable[Sequence[float]]) -> Tail | None:
    ordered = sorted(value for column in columns for value in column)
    if not ordered:
        return None
    p50, p95, p99 = (percentile(ordered, share) for share in (0.5, 0.95, 0.99))
    return Tail(p50, p95, p99, ordered[-1], len(ordered))


def _split(measurements: Sequence[Measurement], concurrency: int | None) -> Split | None:
    told = [measurement for measurement in measurements if measurement.spans.ran and measurement.wall is not None]
    jobs = sum(len(measurement.spans.ran) for measurement in told)
    if not jobs:
        return None

    def mean(of: Callable[[Measurement], Sequence[float]]) -> float:
        return sum(sum(of(measurement)) for measurement in told) / jobs

    ran, step = mean(lambda measurement: measurement.spans.ran), mean(lambda measurement: measurement.spans.step)
    overhead = None
    if concurrency:
        offered = sum(min(concurrency, len(measurement.spans.ran)) * (measurement.wall or 0.0) for measurement in told)
        overhead = offered / jobs - ran
    return Split(
        mean(lambda measurement: measurement.spans.queued),
        mean(lambda measurement: measurement.spans.waited),
        ran - step,
        step,
        overhead,
    )


def _memory(usages: Sequence[Usage], concurrency: int | None) -> Memory | None:
    if not usages:
        return None
    added = median(usage.pss_peak - usage.pss_idle for usage in usages)
    return Memory(
        idle=median(usage.pss_idle for usage in usages),
        peak=median(usage.pss_peak for usage in usages),
        per_slot=added / concurrency if concurrency else None,
        growth=estimate([after.pss_end - before.pss_end for before, after in pairwise(usages)]),
        stays=median(usage.pss_end - usage.pss_idle for usage in usages),
    )


def _scheduling(seen: Sequence[SchedulingLatency]) -> SchedulingLatency | None:
    if not seen:
        return None
    return SchedulingLatency(
        p50=median(each.p50 for each in seen),
        p99=median(each.p99 for each in seen),
        worst=max(each.worst for each in seen),
        samples=sum(each.samples for each in seen),
    )


# -- two deployments


def _ratios(experiment: Experiment, a: str, b: str) -> list[float]:
    """Jobs per second of a over those of b, of each round in which both turns count."""
    theirs = {measurement.round: rate for measurement in experiment.of(b) if (rate := _rate(measurement))}
    ours = {measurement.round: rate for measurement in experiment.of(a) if (rate := _rate(measurement))}
    return [rate / theirs[number] for number, rate in ours.items() if number in theirs]


def _compare(experiment: Experiment, a: Deployment, b: Deployment) -> Comparison:
    alike = paced(experiment, a) == paced(experiment, b)
    ratio = estimate(_ratios(experiment, a.name, b.name)) if alike else None
    return Comparison(a.name, b.name, ratio, judge(ratio))


def judge(ratio: Estimate | None) -> Verdict:
    """Of a ratio of rates: faster or slower only if the interval leaves 1 out."""
    if ratio is None or ratio.interval is None or ratio.interval[0] <= 1 <= ratio.interval[1]:
        return Verdict.CANNOT_TELL
    return Verdict.FASTER if ratio.interval[0] > 1 else Verdict.SLOWER
