"""What the statistics of an experiment say, as values: a row per contestant, and each pair compared.

Every figure is a median over the turns that count, with the interval of that median (``intervals``), unless it says
otherwise. Seconds and bytes. How they are found: ``statistics``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from producer.comparison.experiment import Contestant, Lateness
from producer.comparison.intervals import CONFIDENCE, LEAST, Estimate

METHOD = (
    f"Medians over the rounds that count; intervals of the median at {CONFIDENCE:.0%}: order statistics from 6 rounds"
    f" on, Student's on logarithms and at least the range below, none below {LEAST}. Ratios are of turns of the same"
    " round."
)


class Verdict(StrEnum):
    """What a comparison says of its first contestant."""

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
    """Seconds per job, means over all jobs of all turns that count; see above."""

    submit: float
    wait: float
    run: float
    step: float
    overhead: float | None  # None: the number of slots is not known


@dataclass(frozen=True, slots=True)
class Memory:
    """Proportional set sizes in bytes, medians over turns."""

    idle: float  # before the submission
    peak: float
    per_slot: float | None  # (peak - idle) / slots: what work adds; processes are in idle. None: not known
    growth: Estimate | None  # from the end of one turn to the end of its next; None: fewer than two turns
    stays: float  # at the end of a turn, more than before it

    @property
    def grows(self) -> bool:
        """Whether it is sure that memory grows from round to round."""
        return bool(self.growth and self.growth.interval and self.growth.interval[0] > 0)


@dataclass(frozen=True, slots=True)
class Row:
    """A contestant's turns; what is None could not be had."""

    contestant: Contestant
    turns: int  # that count
    excluded: tuple[str, ...]  # why others do not: "round 2: ..."; the warm-up is not listed
    wall: Estimate | None  # seconds until the last job's end
    jobs_per_second: Estimate | None
    speedup: Estimate | None  # over the serial yardstick, by rounds
    ideal: (
        float | None
    )  # seconds: no schedule of the paced jobs on so many slots is shorter than max(longest, sum / slots)
    share_of_ideal: Estimate | None  # ideal / wall
    split: Split | None
    latency: Tail | None  # from the turn's submission to the job's end
    run: Tail | None  # from the claim to the end, the step included
    cpu_per_job: Estimate | None  # seconds
    cores_used: Estimate | None  # seconds of CPU per second
    memory: Memory | None
    switches_per_job: Estimate | None  # voluntary and involuntary
    lateness: Lateness | None  # p50 and p99: medians over turns; worst: of all
    executors: str | None  # of the last turn that counts

    @property
    def name(self) -> str:
        return self.contestant.name


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two contestants, round by round."""

    a: str
    b: str
    ratio: Estimate | None  # jobs per second of a, over those of b; None: no round in which both count, or other jobs
    verdict: Verdict  # of a

    @property
    def reversed(self) -> Comparison:
        return Comparison(self.b, self.a, _inverse(self.ratio), self.verdict.reversed)


@dataclass(frozen=True, slots=True)
class Summary:
    rows: tuple[Row, ...]  # in the order of the experiment's contestants
    comparisons: tuple[Comparison, ...]  # each pair once; the serial yardstick is in none
    rounds: int  # without the warm-up
    excluded: int  # turns
    method: str = METHOD

    def row(self, contestant: str) -> Row:
        return next(row for row in self.rows if row.name == contestant)

    def compare(self, a: str, b: str) -> Comparison:
        for found in self.comparisons:
            if (found.a, found.b) == (a, b):
                return found
            if (found.a, found.b) == (b, a):
                return found.reversed
        raise KeyError(f"expected two contestants that are compared, got {a!r} and {b!r}")


def _inverse(ratio: Estimate | None) -> Estimate | None:
    if ratio is None:
        return None
    interval = (1 / ratio.interval[1], 1 / ratio.interval[0]) if ratio.interval else None
    return Estimate(1 / ratio.median, 1 / ratio.high, 1 / ratio.low, ratio.n, interval, ratio.confidence)
