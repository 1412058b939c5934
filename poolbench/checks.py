"""Checks of a measurement's jobs, and noise checks: a measurement that fails one is excluded and run once more.

Strangers are known only where the whole stack is ours, not on a running stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from poolbench.experiment import (
    Checks,
    Deployment,
    Experiment,
    MeasuredExecutor,
    MeasuredJob,
    MeasuredState,
    Measurement,
    Note,
    PoolKind,
    Spans,
)
from poolbench.figures import counted
from poolbench.sampler import MachineCounters


@dataclass(frozen=True, slots=True)
class NoiseLimits:
    """Beyond which a measurement is excluded. Shares of the machine's CPU time, if nothing else is said."""

    strangers: float = 0.25  # used by processes that are not the stack's, while less than ``spare`` was idle:
    spare: float = 0.10  # so they took what the deployment may have wanted
    stolen: float = 0.10  # kept by the hypervisor for others
    faults: float = 500.0  # pages per second that were waited for

    @property
    def text(self) -> str:
        return (
            f"a turn is excluded when strangers use more than {self.strangers:.0%} of the CPU and less than"
            f" {self.spare:.0%} is idle, when more than {self.stolen:.0%} is stolen, when more than {self.faults:g}"
            f" pages/s are read back from the disk, when jobs ran elsewhere or twice, or when another batch ran"
        )


# Whatever the machine does, its measurements count.
NONE = NoiseLimits(strangers=2.0, spare=0.0, stolen=2.0, faults=float("inf"))


def of_checks(checks: Checks) -> list[str]:
    found = (
        ("jobs ran on another worker", checks.here),
        ("jobs were tried more than once", checks.once),
        ("files have another sha256", checks.right),
    )
    return [f"{checks.done - count} of its {fault}" for fault, count in found if count < checks.done]


def of_machine(
    before: MachineCounters, after: MachineCounters, seconds: float, ours: float | None, limits: NoiseLimits
) -> list[str]:
    """
    Args:
        ours: seconds of CPU that the stack and we used; None: not known, so strangers are not either.
    """
    busy, idle, stolen = after.busy - before.busy, after.idle - before.idle, after.stolen - before.stolen
    whole = max(busy + idle + stolen, 1e-9)
    found = []
    if seconds > 0 and (faults := (after.major_faults - before.major_faults) / seconds) > limits.faults:
        found.append(f"the machine waited for {faults:.0f} pages/s from its disk")
    if stolen / whole > limits.stolen:
        found.append(f"{stolen / whole:.0%} of the CPU was stolen by the hypervisor")
    if ours is not None and (strange := (busy - ours) / whole) > limits.strangers and idle / whole < limits.spare:
        found.append(f"other programs used {strange:.0%} of the CPU, and {idle / whole:.0%} was idle")
    return found


def too_few(measurements: Sequence[Measurement], deployments: Sequence[str], rounds: int) -> list[Note]:
    """What a reader must know about deployments whose measurements do not all count."""
    found = []
    for name in deployments:
        count = len({each.round for each in measurements if each.deployment == name and each.counts})
        if count < rounds:
            found.append(f"{name}: {count} of {rounds} rounds count" + ("" if count else "; nothing is said of it"))
    if found and any(each.checks.passed and each.excluded for each in measurements):
        found.append("run it again when the machine is quiet, or with --noise 1 to count every turn that ran well")
    return [Note(text, caveat=True) for text in found]


# -- from jobs to a measurement


def wall(submitted: float, records: Sequence[MeasuredJob]) -> float | None:
    """Seconds until the last job's end; None: not every job is done."""
    if not records or any(record.state is not MeasuredState.DONE or not record.attempts for record in records):
        return None
    return round(max(record.attempts[-1].finished for record in records) - submitted, 6)


def spans(submitted: float, records: Sequence[MeasuredJob]) -> Spans:
    """Empty if not every job is done."""
    if wall(submitted, records) is None:
        return Spans()
    begun = [(record, record.attempts[0].started, record.attempts[-1]) for record in records]
    return Spans(
        queued=_rounded(max(0.0, record.queued - submitted) for record in records),
        waited=_rounded(max(0.0, at - record.queued) for record, at, _ in begun),
        ran=_rounded(last.finished - at for _, at, last in begun),
    )


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)


# -- the checks of its jobs


_FAULTS = 5  # that are named

Belongs = Callable[[MeasuredExecutor], bool]


def check(deployment: Deployment, jobs: int, records: Sequence[MeasuredJob], belongs: Belongs) -> Checks:
    """Whether every job ran exactly once, on the deployment's workers, and is done with the right bytes."""
    found = [(record, _faults(record, belongs)) for record in records]
    done = [faults for record, faults in found if record.state is MeasuredState.DONE]
    wrong = [f"{record.filename} {fault}" for record, faults in found for fault in faults.values()]
    if len(records) < jobs:
        wrong.insert(0, f"{jobs - len(records)} records are missing")
    more = [f"and {len(wrong) - _FAULTS} more"] if len(wrong) > _FAULTS else []
    return Checks(
        jobs=jobs,
        done=len(done),
        once=sum("once" not in faults for faults in done),
        here=sum("here" not in faults for faults in done),
        right=sum("right" not in faults for faults in done),
        executors=executors(deployment.pool, records),
        faults=(*wrong[:_FAULTS], *more),
    )


def _faults(record: MeasuredJob, belongs: Belongs) -> Mapping[str, str]:
    found = {}
    if record.state is not MeasuredState.DONE:
        found["done"] = f"is {record.state}"
    if len(record.attempts) != 1:
        found["once"] = f"ran {len(record.attempts)} times"
    ran = (each.executor for each in record.attempts if each.executor)
    if elsewhere := sorted({who.worker for who in ran if not belongs(who)}):
        found["here"] = f"ran on {', '.join(elsewhere)}"
    if record.state is MeasuredState.DONE and not record.right:
        found["right"] = "has another sha256 than the origin's"
    return found


def executors(pool: PoolKind, records: Sequence[MeasuredJob]) -> str:
    """``2 processes``, ``2 threads of 1 process``, ``2 greenlets of 1 thread``: counted, not assumed."""
    ran = [attempt.executor for record in records for attempt in record.attempts if attempt.executor]
    processes, threads = {(who.worker, who.pid) for who in ran}, {(who.worker, who.pid, who.thread) for who in ran}
    of_threads = counted(len(threads), "thread")
    if greenlets := {who for who in ran if who.greenlet is not None}:
        return f"{counted(len(greenlets), 'greenlet')} of {of_threads}"
    of_processes = counted(len(processes), "process")
    several = pool is PoolKind.THREADS or len(threads) > len(processes)
    return f"{of_threads} of {of_processes}" if several else of_processes


def final(experiment: Experiment) -> list[Measurement]:
    """The last measurement of each deployment in each round."""
    return list({(each.deployment, each.round): each for each in experiment.measurements}.values())


def failed(experiment: Experiment) -> bool:
    """Whether jobs failed, or checks failed."""
    return not all(each.checks.passed for each in final(experiment))


def said(experiment: Experiment) -> str:
    """Whether each job ran exactly once, on the deployment under test; from the records alone."""
    found = final(experiment)
    if wrong := [f"{each.deployment}: {fault}" for each in found for fault in each.checks.faults]:
        return f"Checks failed: {'; '.join(wrong)}."
    jobs = sum(each.checks.jobs for each in found)
    return f"Checks passed: {jobs:,} jobs, each ran once, on the pool under test, with the result that was expected."
