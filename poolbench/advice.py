"""Which pool, with what concurrency, for the work that was measured: one sentence, one command, and why.

The answer follows from the measurements alone (``choice`` says how), never from what the scenario calls itself. Where
the noise is larger than the difference, where too little was measured, or where nothing keeps the limits, there is
none: the sentence says what is known, and a command what to run next. A demonstration has a sentence about its totals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from typing import NamedTuple

from poolbench import figures
from poolbench.choice import ALIKE, REGRET, Choice, Curve, comparable, decide
from poolbench.deployment import Spec
from poolbench.experiment import Experiment, MeasuredState, Measurement
from poolbench.lanes import Shown, shown
from poolbench.statistics import LEAST, TIE, Comparison, DeploymentRow, Summary, Verdict, summarise

SEVERAL_CORES = 1.5  # effective ones; with fewer nothing is known about several
FULL = 0.8  # of the effective cores: the CPU is what limits
ONE_CORE = 0.85  # cores that a process of threads or greenlets uses: as good as one, for Python
ROUNDS = 5  # with fewer, an interval depends on how the noise is distributed
MOST_ROUNDS = 30  # more are not proposed
OFTEN = 0.2  # of the measurements excluded: the machine was not ours
OURS = 0.75  # of the machine's cores; with less, others are measured too
_NAMED = 3  # deployments in one clause; more are counted
_SHOWS = "a demonstration shows the models; run a scenario that measures them, or your own jobs"


class Confidence(StrEnum):
    HIGH = "high"  # nothing limits it
    MODERATE = "moderate"  # one or two things do
    LOW = "low"  # more do, or too few rounds for an interval
    NONE = "cannot tell"


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """What an answer has to keep."""

    memory: int | None = None  # bytes of PSS at the peak, all processes of the worker together
    p99: float | None = None  # seconds from the submission of all jobs to a job's end

    def kept_by(self, row: DeploymentRow) -> bool:
        """An unknown figure keeps no limit."""
        pairs = ((row.peak, self.memory), (row.p99, self.p99))
        return all(most is None or (value is not None and value <= most) for value, most in pairs)


@dataclass(frozen=True, slots=True)
class Advice:
    """For people and as JSON. Sentences have their figures in them."""

    scenario: str
    headline: str  # what the measurements say, in one sentence
    confidence: Confidence
    because: tuple[str, ...]  # what limits the confidence, or why there is no answer
    limits: AnswerLimits
    compared: tuple[str, ...] = ()  # the deployments it was chosen from
    answer: str | None = None  # the deployment's name; None: cannot tell
    command: str | None = None  # starts workers like it
    beside: tuple[Comparison, ...] = ()  # the answer, or what comes nearest to one, and each of the others
    tied: tuple[str, ...] = ()  # those as good as the answer in jobs per second ...
    criterion: str | None = None  # ... and what it was chosen by; None: nothing decides
    gives_up: tuple[str, ...] = ()  # what others do better
    next: tuple[str, ...] = ()  # commands that would make the answer surer
    reasoning: tuple[str, ...] = ()

    @property
    def lists(self) -> list[tuple[str, tuple[str, ...]]]:
        """What stands behind the answer, by its headings."""
        found = [
            ("What limits the confidence" if self.answer else "Why there is no answer", self.because),
            ("What it gives up", self.gives_up),
            ("What to measure next", self.next),
            ("How it was found", self.reasoning),
        ]
        return [(heading, lines) for heading, lines in found if lines]


def recommend(experiment: Experiment, limits: AnswerLimits | None = None) -> Advice:
    limits = limits or AnswerLimits()
    if experiment.scenario.demonstration:
        return Advice(experiment.scenario.name, verdict(shown(experiment)), Confidence.NONE, (_SHOWS,), limits)
    summary = summarise(experiment)
    able = comparable(summary)
    rows = [row for row in able if limits.kept_by(row)]
    only = f"only {able[0].name} has rounds that count, and there is nothing to compare it with" if able else ""
    why = "no deployment keeps the limits" if len(able) > 1 else only or "no round counts"
    none = Advice(
        scenario=experiment.scenario.name,
        headline=f"These measurements cannot tell which deployment is the fastest: {why}.",
        confidence=Confidence.NONE,
        because=(why,),
        limits=limits,
        compared=tuple(row.name for row in rows),
        next=() if len(able) > 1 else (str(experiment.request.having(repeat=ROUNDS)),),
        reasoning=tuple(_measured(experiment, summary, able, rows)),
    )
    choice = decide(summary, rows) if len(able) > 1 else None
    return _Explanation(experiment, summary, rows, choice).complete(none) if choice else none


def _measured(
    experiment: Experiment, summary: Summary, able: Sequence[DeploymentRow], rows: Sequence[DeploymentRow]
) -> Iterator[str]:
    """Args: able: those with enough rounds; rows: those of them that keep the limits."""
    yield (
        f"Measured: {experiment.scenario.title} ({figures.counted(experiment.scenario.jobs, 'job')});"
        f" {figures.counted(len(summary.rows), 'deployment')} in {figures.counted(summary.rounds, 'round')}."
    )
    few = [row for row in summary.rows if row not in able and not row.deployment.serial]
    if few:
        names = ", ".join(f"{row.name} ({row.measurements})" for row in few)
        yield f"Not compared, because fewer than {LEAST} of their rounds count: {names}."
    yield from (f"Note: {note}." for note in experiment.caveats)
    if beyond := [f"{row.name} ({_limited(row)})" for row in able if row not in rows]:
        yield f"Beyond the limits: {', '.join(beyond)}."


def _limited(row: DeploymentRow) -> str:
    peak = figures.size(row.peak) if row.peak is not None else "memory not known"
    return f"{peak}, " + (f"p99 {figures.seconds(row.p99)}" if row.p99 is not None else "p99 not known")


# -- with a choice


def headline(choice: Choice, found: Sequence[Comparison]) -> str:
    """One sentence about the pick beside the others: each with its ratio."""
    pick, clauses = choice.pick.name, list[str]()
    if not found:
        return f"Only {pick} keeps the limits."
    by: dict[Verdict, list[Comparison]] = {verdict: [] for verdict in Verdict}
    for of in sorted((of for of in found if of.ratio), key=figures.by_ratio):
        by[of.verdict].append(of)
    if sooner := [f"{figures.factor(figures.by_ratio(of))} times sooner than {of.b}" for of in by[Verdict.FASTER]]:
        clauses.append(f"{pick} finished the work {_listed(sooner)}")
    if alike := by[Verdict.EQUAL]:
        names = [*([] if sooner else [pick]), *(of.b for of in alike)]
        between = " and ".join(figures.between(of.ratio) for of in alike[:_NAMED])
        clauses.append(f"{_listed(names)} {'was' if len(names) == 1 else 'were'} equally fast, {between}")
        clauses += [f"{pick} has {choice.criterion}"] if choice.criterion else []
    clauses += [f"{of.b} was faster, {figures.against(of)}" for of in by[Verdict.SLOWER]]
    if unclear := by[Verdict.CANNOT_TELL]:
        few = min(of.ratio.n for of in unclear if of.ratio)
        rounds = f" from {figures.counted(few, 'round')}" if few < LEAST else ""
        whether = "whether it is" if clauses else f"Whether {pick} is"
        than = _listed([f"{of.b} ({figures.between(of.ratio)})" for of in unclear])
        clauses.append(f"{whether} faster than {than} cannot be told{rounds}")
    nothing = "These measurements cannot tell which deployment is the fastest: no round counts for two"
    return f"{'; '.join(clauses) or nothing}."


def _listed(parts: Sequence[str]) -> str:
    """``a, b and c``; of many the first ones."""
    left = len(parts) - _NAMED
    parts = [*parts[:_NAMED], f"{left} more"] if left > 0 else parts
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


@dataclass(frozen=True, slots=True)
class _Explanation:
    """The sentences about a choice."""

    experiment: Experiment
    summary: Summary
    rows: Sequence[DeploymentRow]  # that it was chosen from
    choice: Choice

    @property
    def pick(self) -> DeploymentRow:
        return self.choice.pick

    def complete(self, unsure: Advice) -> Advice:
        choice, caveats = self.choice, tuple(self.caveats())
        named = [*choice.others, *([choice.rival] if choice.rival and not choice.certain else [])]
        unsure = replace(
            unsure,
            headline=headline(choice, [self.beside(row) for row in dict.fromkeys(named)]),
            beside=tuple(self.beside(row) for row in self.rows if row is not self.pick),
            because=(self.too_noisy(), *caveats),
            next=tuple(self.next()),
            reasoning=(*unsure.reasoning, *self.reasoning()),
        )
        if not choice.certain:
            return unsure
        low = len(caveats) > 2 or self.pick.measurements < LEAST
        return replace(
            unsure,
            answer=self.pick.name,
            command=self.pick.deployment.command,
            confidence=Confidence.LOW if low else Confidence.MODERATE if caveats else Confidence.HIGH,
            because=caveats,
            tied=tuple(row.name for row in choice.tied if row is not self.pick),
            criterion=choice.criterion,
            gives_up=tuple(self.gives_up()),
        )

    def beside(self, row: DeploymentRow) -> Comparison:
        return self.summary.compare(self.pick.name, row.name)

    def reasoning(self) -> Iterator[str]:
        yield from (self.curve(curve) for curve in self.choice.curves if len(curve.rows) > 1)
        if len(self.choice.tied) > 1:
            yield self.tie()

    def curve(self, curve: Curve) -> str:
        points = ", ".join(f"{row.name} {figures.significant(row.rate)} jobs/s" for row in curve.rows)
        if curve.saturation is not curve.best:
            why = f"{curve.best.name} is not worth a higher concurrency"
        else:
            why = "nothing else is as fast" if curve.reached else "the most that was measured"
        return f"{curve.name}: {points}; the saturation point is {curve.saturation.deployment.concurrency_each}: {why}."

    def tie(self) -> str:
        tied = self.choice.tied
        rows = "; ".join(f"{row.name} {_limited(row)}, concurrency {row.deployment.concurrency}" for row in tied)
        options = ", then fewer options" if any(row.deployment.setup.options for row in tied) else ""
        decided = f"{self.pick.name} has {self.choice.criterion}" if self.choice.criterion else "Either will do"
        return (
            f"A tie of {len(tied)}, decided by less memory, then a shorter p99 of latency, then a lower"
            f" concurrency{options} (where they differ by more than {ALIKE:.0%}): {rows}. {decided}."
        )

    @property
    def busy(self) -> bool:
        """Whether CPU limits the pick: the cores that there are, or the one that each of its processes can use."""
        used, cores, of = self.pick.cores_used, self.experiment.cores, self.pick.deployment.processes
        most = [*([ONE_CORE * of] if of else []), *([FULL * cores.effective] if cores else [])]
        return used is not None and any(used.median >= limit for limit in most)

    # -- what limits the confidence, and what to measure next

    def too_noisy(self) -> str:
        rival = self.choice.rival.name if self.choice.rival else ""
        if math.isinf(self.choice.regret):
            return f"{self.pick.name} and {rival} cannot be compared: there is no round in which both count"
        return (
            f"{rival} may be {figures.times(1 + self.choice.regret)} as fast as {self.pick.name}; an answer is given"
            f" only if it is certain that nothing is more than {REGRET:.0%} faster"
        )

    def caveats(self) -> Iterator[str]:
        experiment, summary, choice, pick = self.experiment, self.summary, self.choice, self.pick
        if pick.measurements < LEAST:
            rounds = f"{figures.counted(pick.measurements, 'round')} {'count' if pick.measurements > 1 else 'counts'}"
            yield f"only {rounds}: only a difference of several times is certain"
        elif pick.measurements < ROUNDS:
            yield f"{pick.measurements} rounds count; below {ROUNDS} much depends on how the noise is distributed"
        total = sum(row.measurements for row in summary.rows) + summary.excluded
        if summary.excluded > OFTEN * total:
            yield f"{summary.excluded} of {total} measurements were excluded"
        if len({row.deployment.pool for row in self.rows}) == 1:
            yield f"no pool but {pick.deployment.pool} was compared"
        points = (curve.saturation for curve in choice.curves if curve.saturation is not pick)
        if unclear := [row.name for row in points if self.beside(row).verdict is Verdict.CANNOT_TELL]:
            yield f"whether {' or '.join(unclear)} is slower cannot be told"
        concurrency, each = pick.deployment.concurrency, pick.deployment.concurrency_each
        if not choice.curve.reached and concurrency is not None:
            if concurrency >= (jobs := experiment.scenario.jobs):
                yield f"there were no more jobs ({jobs}) than ran at once: the saturation point needs more jobs"
            elif not self.busy:
                name = choice.curve.name
                yield f"the saturation point of {name} was not reached: a concurrency above {each} was not measured"
        if choice.certain and choice.regret > TIE:
            yield f"another may be up to {choice.regret:.0%} faster"
        cores = experiment.cores
        if not cores or cores.effective < max(SEVERAL_CORES, OURS * cores.nominal):
            of = f"gave {cores.effective:.2g} of its {cores.nominal} cores" if cores else "was not probed for its cores"
            yield f"the machine {of}: for jobs that compute, another one may give another answer"

    def next(self) -> Iterator[str]:
        """Commands that would settle what is open."""
        choice, pick, again = self.choice, self.pick.deployment, self.experiment.request
        if math.isinf(choice.regret) and self.pick.measurements >= ROUNDS:
            return  # more of the same would bring nothing
        if not choice.certain or self.pick.measurements < ROUNDS or choice.regret > TIE:
            yield str(again.having(repeat=min(max(2 * self.pick.measurements, ROUNDS), MOST_ROUNDS)))
        if pick.concurrency and not choice.curve.reached and not self.busy:
            jobs = 4 * pick.concurrency if pick.concurrency >= self.experiment.scenario.jobs else None
            wider = [Spec(pick.pool, (pick.concurrency_each or 0) * times, pick.setup) for times in (2, 4)]
            names = [each.name for each in wider if each.possible]
            if names or jobs:
                pools = ",".join([self.pick.name, *names]) if names else None
                yield str(again.having(pools=pools, jobs=jobs))

    def gives_up(self) -> Iterator[str]:
        """What others do better."""
        pick = self.pick
        for what, values, words in (
            ("Memory at the peak", {row.name: row.peak for row in self.rows}, figures.size),
            ("Latency p99", {row.name: row.p99 for row in self.rows}, figures.seconds),
        ):
            known = {name: value for name, value in values.items() if value is not None}
            best, ours = min(known, key=lambda name: known[name], default=""), known.get(pick.name)
            if ours is not None and known[best] < ours * (1 - ALIKE):
                compared = figures.against(self.summary.compare(pick.name, best))
                yield f"{what}: {words(ours)}; {words(known[best])} with {best}, beside which it was {compared}."
        if of := pick.deployment.processes:
            most = pick.deployment.concurrency_each
            yield (
                f"Isolation: what kills {'the' if of == 1 else 'a'} process takes all jobs that run in it"
                f"{f', up to {most}' if most else ''}; a process of prefork runs one."
            )


# -- a demonstration: what its totals are


TOLERANCE = 0.05  # of the baseline: this near, the total "was" the longest or the sum


class DemoFinding(StrEnum):
    LONGEST = "the longest file, not the sum"
    SUM = "the sum, not the longest file"
    NEITHER = "neither the longest file nor the sum"
    UNKNOWN = "not known"


class Totals(NamedTuple):
    """Seconds. Of the nominal ones: so all overhead stands in ``total``, and cannot hide in the baseline."""

    sum: float
    longest: float
    total: float | None  # from just before the submission to the last file's finish; None: not every job is done


def totals(measurement: Measurement) -> Totals:
    nominal = [job.nominal or 0.0 for job in measurement.jobs]
    return Totals(sum(nominal), max(nominal, default=0.0), measurement.wall)


def find(each: Shown) -> DemoFinding:
    """What a total was."""
    total_sum, longest, total = totals(each.measurement)
    if total is None:
        return DemoFinding.UNKNOWN
    if abs(total - longest) <= TOLERANCE * longest:
        return DemoFinding.LONGEST
    return DemoFinding.SUM if abs(total - total_sum) <= TOLERANCE * total_sum else DemoFinding.NEITHER


def verdict(found: Sequence[Shown]) -> str:
    """One sentence: the pools, whose files take the same seconds, grouped by what was found; then the baseline."""
    clauses = []
    for serial, finding in product((False, True), DemoFinding):
        if alike := [each for each in found if each.deployment.serial is serial and find(each) is finding]:
            where = "one at a time" if serial else f"in {_listed([each.name for each in alike])}"
            took, of = _listed([_took(each.measurement) for each in alike]), totals(alike[0].measurement)
            clauses.append(f"{where} the total is {finding.value}: {took} (longest {of.longest:g} s, sum {of.sum:g} s)")
    sentence = "; ".join(clauses) or "nothing was compared"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _took(measurement: Measurement) -> str:
    lost = (f"{job.filename} {job.state}" for job in measurement.jobs if job.state is not MeasuredState.DONE)
    return ", ".join(lost) if measurement.wall is None else f"{measurement.wall:.2f} s"
