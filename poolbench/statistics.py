"""Statistics of an experiment: a row per deployment, and each pair of deployments compared.

Only measurements that count are used; a row says how many do not, and why. A figure is a median over measurements with
the interval of that median (see ``Estimate``), unless it says otherwise.

Two deployments are compared round by round, so that the machine's drift from round to round cancels in their ratio:
one ratio for each pair, used wherever the two are spoken of. The verdict follows from the interval of the median ratio
(``judge``); of fewer than three rounds it follows from what was seen, widened by ``_WIDENED``. Of twenty comparisons of
equals, one is called a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations
from statistics import fmean, median, stdev

from poolbench.experiment import Deployment, Experiment, Measurement

CONFIDENCE = 0.95
LEAST = 3  # values; with fewer there is no interval
MARGIN = 0.03  # share of jobs per second below which a difference is none
TIE = 0.15  # share within which two are equally fast, if it is certain
_WIDENED = {1: 4.0, 2: 2.0}  # by number of ratios: the true one lies within what was seen, divided and multiplied by it
_STUDENT = {3: 4.3027, 4: 3.1824, 5: 2.7764}  # by number of values: the 97.5 % quantile with one degree of freedom less


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median of a few values, one per measurement or per pair of them."""

    median: float
    low: float  # the smallest value
    high: float  # the largest
    n: int
    interval: tuple[float, float] | None  # of the median; None: too few values

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; without one the range."""
        return self.interval or (self.low, self.high)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of a ratio: between which the true one lies, however few rounds there are."""
        return self.interval or (self.low / _WIDENED[self.n], self.high * _WIDENED[self.n])


def estimate(values: Sequence[float]) -> Estimate | None:
    """None if there are no values."""
    if not values:
        return None
    return Estimate(median(values), min(values), max(values), len(values), _interval(sorted(values)))


def _interval(ordered: Sequence[float]) -> tuple[float, float] | None:
    n = len(ordered)
    if n < LEAST:
        return None
    if n in _STUDENT:
        low, high = _student(ordered)
        return min(low, ordered[0]), max(high, ordered[-1])
    fewer, rank = 0, 1
    for k in range(1, n // 2 + 1):
        fewer += math.comb(n, k - 1)  # ways to have fewer than k of n on one side
        if 1 - 2 * fewer / 2**n < CONFIDENCE:
            break
        rank = k
    return ordered[rank - 1], ordered[n - rank]


def _student(values: Sequence[float]) -> tuple[float, float]:
    positive = values[0] > 0
    scaled = [math.log(value) for value in values] if positive else list(values)
    middle, half = fmean(scaled), _STUDENT[len(values)] * stdev(scaled) / math.sqrt(len(values))
    return (math.exp(middle - half), math.exp(middle + half)) if positive else (middle - half, middle + half)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that at least this share of the sorted values does not exceed."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


# -- values


METHOD = (
    f"medians over the rounds that count; {CONFIDENCE:.0%} intervals: order statistics from 6 rounds on, Student's on"
    f" logarithms and at least the range below, none below {LEAST}; ratios are of measurements of the same round"
)


class Verdict(StrEnum):
    """What a comparison says of its first deployment."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUAL = "equally fast"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    """A deployment's figures; None: not known."""

    deployment: Deployment
    jobs: int  # the most that it had in a measurement
    partial: bool  # these are not all jobs of the scenario: the baseline may run a part of them
    measurements: int  # that count
    excluded: tuple[str, ...]  # why others do not: "round 2: ..."; the warm-up is not listed
    wall: Estimate | None  # seconds until the last job's end
    jobs_per_second: Estimate | None
    speedup: Estimate | None  # over the serial baseline, by rounds
    p50: float | None  # seconds from the submission to a job's end, over all jobs of all measurements that count
    p95: float | None
    p99: float | None  # the worst, of fewer than 100 jobs
    cpu_per_job: Estimate | None  # seconds
    cores_used: Estimate | None  # seconds of CPU per second
    idle: float | None  # bytes, before the submission: proportional set sizes of all processes, the median
    peak: float | None  # bytes, at the most
    late: float | None  # seconds: the p99 of the scheduling latency, median over measurements
    worst: float | None  # seconds: its worst value
    executors: str | None  # of the last measurement that counts

    @property
    def name(self) -> str:
        return self.deployment.name

    @property
    def rate(self) -> float:
        """Jobs per second; 0: not known."""
        return self.jobs_per_second.median if self.jobs_per_second else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two deployments, round by round."""

    a: str
    b: str
    ratio: Estimate | None  # jobs per second of a, over those of b; None: no round in which both count
    verdict: Verdict  # of a


@dataclass(frozen=True, slots=True)
class Ends:
    """Seconds between which every schedule of the jobs lies."""

    sum: float
    longest: float


@dataclass(frozen=True, slots=True)
class Summary:
    rows: tuple[DeploymentRow, ...]  # in the order of the experiment's deployments
    comparisons: dict[tuple[str, str], Comparison]  # each pair in both orders; the serial baseline is in none
    ends: Ends | None  # as the jobs were paced, or else ran on the baseline, or on the first deployment
    rounds: int  # without the warm-up
    excluded: int  # measurements

    def row(self, deployment: str) -> DeploymentRow:
        return next(row for row in self.rows if row.name == deployment)

    def compare(self, a: str, b: str) -> Comparison:
        return self.comparisons[a, b]

    @property
    def rivals(self) -> list[DeploymentRow]:
        """The deployments of which a rate is known, without the baseline."""
        return [row for row in self.rows if row.jobs_per_second and not row.deployment.serial]

    @property
    def whole(self) -> list[DeploymentRow]:
        """The deployments that ran all jobs."""
        return [row for row in self.rows if row.wall and not row.partial]


def summarise(experiment: Experiment) -> Summary:
    serial = next((each.name for each in experiment.deployments if each.serial), None)
    rows = tuple(_row(experiment, each, serial) for each in experiment.deployments)
    pairs = permutations([each.name for each in experiment.deployments if not each.serial], 2)
    return Summary(
        rows=rows,
        comparisons={(a, b): _compare(experiment, a, b) for a, b in pairs},
        ends=_ends(experiment),
        rounds=len({each.round for each in experiment.measurements if each.round > 0}),
        excluded=sum(len(row.excluded) for row in rows),
    )


def _ends(experiment: Experiment) -> Ends | None:
    """A part of the jobs stands for all."""
    if paced := experiment.scenario.nominal:
        return Ends(sum(paced), max(paced))
    in_order = sorted(experiment.deployments, key=lambda each: not each.serial)
    spans = (of.spans.ran for each in in_order for of in experiment.of(each.name) if of.spans.ran)
    return next((Ends(sum(ran) * experiment.scenario.jobs / len(ran), max(ran)) for ran in spans), None)


# -- a deployment


def _row(experiment: Experiment, deployment: Deployment, serial: str | None) -> DeploymentRow:
    every = list(experiment.of(deployment.name, counted=False))
    counted = sorted((each for each in every if each.counts), key=lambda each: each.round)
    jobs = max((each.checks.jobs for each in every if each.counts), default=0)
    used = [(each.usage, each) for each in counted if each.usage]
    scheduling = [usage.scheduling for usage, _ in used if usage.scheduling]
    return DeploymentRow(
        deployment=deployment,
        jobs=jobs,
        partial=0 < jobs < experiment.scenario.jobs,
        measurements=len(counted),
        excluded=tuple(
            f"round {each.round}: {'; '.join(each.excluded) or 'not every job is done'}"
            for each in every
            if each.round > 0 and not each.counts
        ),
        wall=estimate([each.wall for each in counted if each.wall is not None]),
        jobs_per_second=estimate([rate for each in counted if (rate := _rate(each)) is not None]),
        speedup=estimate(_ratios(experiment, deployment.name, serial)) if serial and not deployment.serial else None,
        p50=_latency(counted, 0.5),
        p95=_latency(counted, 0.95),
        p99=_latency(counted, 0.99),
        cpu_per_job=estimate([usage.cpu / each.checks.done for usage, each in used if each.checks.done]),
        cores_used=estimate([usage.cpu / each.wall for usage, each in used if each.wall]),
        idle=median(usage.pss_idle for usage, _ in used) if used else None,
        peak=median(usage.pss_peak for usage, _ in used) if used else None,
        late=median(each.p99 for each in scheduling) if scheduling else None,
        worst=max((each.worst for each in scheduling), default=None),
        executors=counted[-1].checks.executors if counted else None,
    )


def _rate(measurement: Measurement) -> float | None:
    done, wall = measurement.checks.done, measurement.wall
    return done / wall if wall and done else None


def _latency(measurements: Sequence[Measurement], share: float) -> float | None:
    """Of the seconds from the submission to each job's end that which this share of them does not exceed."""
    spans = [each.spans for each in measurements]
    ordered = sorted(sum(job) for of in spans for job in zip(of.queued, of.waited, of.ran, strict=True))
    return percentile(ordered, share) if ordered else None


# -- two deployments


def _ratios(experiment: Experiment, a: str, b: str) -> list[float]:
    """Jobs per second of a over those of b, of each round in which both count."""
    ours, theirs = ({each.round: rate for each in experiment.of(name) if (rate := _rate(each))} for name in (a, b))
    return [rate / theirs[number] for number, rate in ours.items() if number in theirs]


def _compare(experiment: Experiment, a: str, b: str) -> Comparison:
    ratio = estimate(_ratios(experiment, a, b))
    return Comparison(a, b, ratio, judge(ratio))


def judge(ratio: Estimate | None) -> Verdict:
    """Of a ratio of rates: what its bounds leave no doubt about."""
    if ratio is None:
        return Verdict.CANNOT_TELL
    low, high = ratio.bounds
    if low > 1 and ratio.median >= 1 + MARGIN:
        return Verdict.FASTER
    if high < 1 and ratio.median <= 1 / (1 + MARGIN):
        return Verdict.SLOWER
    return Verdict.EQUAL if low >= 1 / (1 + TIE) and high <= 1 + TIE else Verdict.CANNOT_TELL
