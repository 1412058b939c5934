"""Noise checks, which exclude a turn: it is shown, says why, does not count, and is run once more. Checks of its jobs.

==================  ===========================================================================================
a turn is excluded  when
==================  ===========================================================================================
not its own         a job ran elsewhere than on the deployment's worker, or was tried again
not whole           a worker of the deployment ended, where it was started for the turn
not alone           jobs of another batch ran meanwhile
swapping            more than ``swapped`` pages a second went in or out, or more than ``faults`` were waited for
neighbours          the hypervisor kept more than ``stolen`` of the machine's CPU for others
strangers           processes that are not the stack's used more than ``strangers`` of the machine's CPU, and less
                    than ``spare`` of it was idle: so they took what the deployment may have wanted
fewer cores         the probe before the round found less than ``cores`` of what the best probe found
==================  ===========================================================================================

Strangers are known only where the whole stack is ours; on a running stack who is a stranger cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass

from poolbench.experiment import (
    Checks,
    Deployment,
    Executor,
    Experiment,
    MeasuredJob,
    Measurement,
    Note,
    Pool,
    Spans,
    State,
)
from poolbench.sampler import Machine


@dataclass(frozen=True, slots=True)
class NoiseLimits:
    """Shares of the machine's CPU time, if nothing else is said."""

    strangers: float = 0.25
    spare: float = 0.10
    stolen: float = 0.10
    swapped: float = 100.0  # pages per second
    faults: float = 500.0  # major ones per second
    cores: float = 0.6  # of the best probe

    @property
    def text(self) -> str:
        return (
            f"a turn is excluded when strangers use more than {self.strangers:.0%} of the CPU and less than"
            f" {self.spare:.0%} is idle, when more than {self.stolen:.0%} is stolen, when more than {self.swapped:g}"
            f" pages/s are swapped or {self.faults:g} read back, when less than {self.cores:.0%} of the best seen cores"
            " are ours, when jobs ran elsewhere or twice, or when another batch ran"
        )


# Whatever the machine does, its turns count.
NONE = NoiseLimits(strangers=2.0, spare=0.0, stolen=2.0, swapped=float("inf"), faults=float("inf"), cores=0.0)


def of_checks(checks: Checks) -> list[str]:
    found = []
    if checks.here < checks.done:
        found.append(f"{checks.done - checks.here} of its jobs ran on another worker")
    if checks.once < checks.done:
        found.append(f"{checks.done - checks.once} of its jobs were tried more than once")
    if checks.right < checks.done:
        found.append(f"{checks.done - checks.right} of its files have another sha256")
    return found


def of_machine(before: Machine, after: Machine, seconds: float, ours: float | None, limits: NoiseLimits) -> list[str]:
    """
    Args:
        ours: seconds of CPU that the stack and we used; None: not known, so strangers are not either.
    """
    busy, idle = after.busy - before.busy, after.idle - before.idle
    stolen = after.stolen - before.stolen
    whole = max(busy + idle + stolen, 1e-9)
    found = []
    if seconds > 0 and (swapped := (after.swapped - before.swapped) / seconds) > limits.swapped:
        found.append(f"the machine swapped {swapped:.0f} pages/s")
    if seconds > 0 and (faults := (after.major_faults - before.major_faults) / seconds) > limits.faults:
        found.append(f"the machine waited for {faults:.0f} pages/s from its disk")
    if stolen / whole > limits.stolen:
        found.append(f"{stolen / whole:.0%} of the CPU was stolen by the hypervisor")
    if ours is not None and (strange := (busy - ours) / whole) > limits.strangers and idle / whole < limits.spare:
        found.append(f"other programs used {strange:.0%} of the CPU, and {idle / whole:.0%} was idle")
    return found


def too_few(measurements: Sequence[Measurement], deployments: Sequence[str], rounds: int) -> list[Note]:
    """What a reader must know about deployments whose turns do not all count."""
    counted = {
        name: len(
            {measurement.round for measurement in measurements if measurement.deployment == name and measurement.counts}
        )
        for name in deployments
    }
    found = [
        f"{name}: {count} of {rounds} rounds count" + ("" if count else "; nothing is said of it")
        for name, count in counted.items()
        if count < rounds
    ]
    if found and any(measurement.checks.passed and measurement.excluded for measurement in measurements):
        found.append("run it again when the machine is quiet, or with --noise 1 to count every turn that ran well")
    return [Note(text, caveat=True) for text in found]


# -- from jobs to a turn


_FAULTS = 5  # that are told

Belongs = Callable[[Executor], bool]


def wall(submitted: float, records: Sequence[MeasuredJob]) -> float | None:
    """Seconds until the last job's end; None: not every job is done."""
    if not records or any(record.state is not State.DONE or not record.attempts for record in records):
        return None
    return round(max(record.attempts[-1].finished for record in records) - submitted, 6)


def spans(submitted: float, records: Sequence[MeasuredJob]) -> Spans:
    """Empty if not every job is done."""
    if wall(submitted, records) is None:
        return Spans()
    begun = [record.attempts[0].started for record in records]
    steps = [record.step for record in records]
    return Spans(
        queued=_rounded(max(0.0, record.queued - submitted) for record in records),
        waited=_rounded(max(0.0, at - record.queued) for at, record in zip(begun, records, strict=True)),
        ran=_rounded(record.attempts[-1].finished - at for at, record in zip(begun, records, strict=True)),
        first_byte=tuple(
            None if (first := record.attempts[-1].first_byte) is None else round(first - at, 4)
            for at, record in zip(begun, records, strict=True)
        ),
        step=_rounded(step or 0.0 for step in steps) if any(step is not None for step in steps) else (),
    )


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)


# -- the checks


def check(deployment: Deployment, jobs: int, records: Sequence[MeasuredJob], belongs: Belongs) -> Checks:
    """Whether every job ran exactly once, on the deployment's workers, and is done with the right bytes."""
    done = [record for record in records if record.state is State.DONE]
    found = [(record, _faults(record, belongs)) for record in records]
    wrong = [f"{record.filename} {fault}" for record, faults in found for fault in faults.values()]
    if len(records) < jobs:
        wrong.insert(0, f"{jobs - len(records)} records are missing")
    more = [f"and {len(wrong) - _FAULTS} more"] if len(wrong) > _FAULTS else []
    return Checks(
        jobs=jobs,
        done=len(done),
        once=sum("once" not in faults for record, faults in found if record.state is State.DONE),
        here=sum("here" not in faults for record, faults in found if record.state is State.DONE),
        right=sum("right" not in faults for record, faults in found if record.state is State.DONE),
        executors=executors(deployment.pool, records),
        faults=(*wrong[:_FAULTS], *more),
    )


def _faults(record: MeasuredJob, belongs: Belongs) -> Mapping[str, str]:
    found = {}
    if record.state is not State.DONE:
        found["done"] = f"is {record.state}"
    if len(record.attempts) != 1:
        found["once"] = f"ran {len(record.attempts)} times"
    elsewhere = sorted(
        {each.executor.worker for each in record.attempts if each.executor and not belongs(each.executor)}
    )
    if elsewhere:
        found["here"] = f"ran on {', '.join(elsewhere)}"
    expected = record.expected_sha256
    if record.state is State.DONE and expected and record.sha256 != expected:
        found["right"] = "has another sha256 than the origin's"
    return found


def executors(pool: Pool, records: Sequence[MeasuredJob]) -> str:
    """``2 processes``, ``2 threads of 1 process``, ``2 greenlets of 1 thread``: counted, not assumed."""
    ran = [attempt.executor for record in records for attempt in record.attempts if attempt.executor]
    processes = {(who.worker, who.pid) for who in ran}
    threads = {(who.worker, who.pid, who.thread) for who in ran}
    greenlets = {(who.worker, who.pid, who.thread, who.greenlet) for who in ran if who.greenlet is not None}
    if greenlets:
        return f"{_count(greenlets, 'greenlet')} of {_count(threads, 'thread')}"
    if pool is Pool.THREADS or len(threads) > len(processes):
        return f"{_count(threads, 'thread')} of {_count(processes, 'process')}"
    return _count(processes, "process")


def _count(things: Sized, word: str) -> str:
    plural = word + ("es" if word.endswith("s") else "s")
    return f"{len(things)} {word if len(things) == 1 else plural}"


def failed(experiment: Experiment) -> bool:
    """Whether jobs failed, or checks failed: those of the last turn that each deployment had in each round."""
    last = {(measurement.deployment, measurement.round): measurement for measurement in experiment.measurements}
    return not all(measurement.checks.passed for measurement in last.values())
