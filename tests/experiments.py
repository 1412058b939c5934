"""Experiments with known answers, for tests: what a machine with so many cores would have measured, and nothing ran."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeVar

from poolbench.experiment import (
    PLAIN,
    Checks,
    Cores,
    Deployment,
    Experiment,
    MeasuredJob,
    Measurement,
    Scenario,
    SchedulingLatency,
    Setup,
    Spans,
    Usage,
)
from poolbench.experiment import MeasuredAttempt as Attempt
from poolbench.experiment import MeasuredExecutor as Executor
from poolbench.experiment import MeasuredState as State
from poolbench.experiment import PoolKind as Pool
from poolbench.experiment import RunCommand as Request
from producer.fleet import start

T = TypeVar("T")

EPOCH = 1_700_000_000.0
MIB = 2**20


def known(value: T | None) -> T:
    """What must be there."""
    assert value is not None
    return value


def remeasured(
    experiment: Experiment, change: Callable[[Measurement], Measurement], of: str | None = None
) -> Experiment:
    """The experiment with each measurement changed, or each of one deployment."""
    found = (change(each) if of in (None, each.deployment) else each for each in experiment.measurements)
    return replace(experiment, measurements=tuple(found))


@dataclass(frozen=True, slots=True)
class Made:
    """A deployment, and how it behaves."""

    pool: Pool
    concurrency: int  # of each worker
    run: float  # seconds that a job takes in a slot
    cpu: float = 0.002  # seconds per job
    noise: float = 0.02  # relative spread of a turn
    idle: int = 60 * MIB  # PSS
    per_slot: int = MIB // 10
    serial: bool = False
    late: float = 0.001  # p99 of the lateness
    excluded: dict[int, str] | None = None  # by round
    work: float = 0.0  # seconds per job in pure Python: threads and greenlets share one core for it
    saturation: int | None = None  # slots beyond which the server answers no more jobs per second: runs only get longer
    setup: Setup = PLAIN

    @property
    def name(self) -> str:
        return "serial" if self.serial else f"{self.pool}:{self.concurrency}{self.setup}"

    @property
    def total(self) -> int:
        """Slots of all of its workers."""
        return self.concurrency * self.setup.workers


def made(
    *deployments: Made,
    jobs: int = 40,
    rounds: int = 5,
    seed: int = 1,
    cores: float = 2.0,
    nominal: float | None = None,
    drift: float = 0.0,
) -> Experiment:
    """An experiment in which every turn follows from the deployment's figures, and a little noise.

    ``drift`` is the relative spread of what all turns of a round have in common. A turn without a wall, with no usage
    or with other books is made from one of these with ``dataclasses.replace``.
    """
    dice = random.Random(seed)
    rounds_dice = random.Random(seed + 1)
    measurements = []
    for number in range(rounds + 1):
        weather = math.exp(rounds_dice.gauss(0.0, drift))
        for place in range(len(deployments)):
            each = deployments[(place + number) % len(deployments)]
            machine = _Machine(cores, weather, nominal, dice)
            measurements.append(_measurement(each, jobs, number, place, machine, keep=number == min(1, rounds)))
    options = (("--jobs", str(jobs)), ("--repeat", str(rounds)), ("--seed", str(seed)))
    request = Request(("producer", "compare", "made"), options)
    return Experiment(
        scenario=Scenario(
            "made", "Jobs that nobody ran", jobs, seed, () if nominal is None else (nominal,) * jobs, jobs * 1000
        ),
        deployments=tuple(
            Deployment(
                each.name,
                each.pool,
                each.total,
                each.serial,
                start(each.pool, each.concurrency, each.setup),
                each.setup,
            )
            for each in deployments
        ),
        measurements=tuple(measurements),
        started=EPOCH,
        finished=EPOCH + 1000.0,
        request=request,
        versions={"python": "CPython 3.13.0", "celery": "5.7.0"},
        machine={"system": "Linux", "processor": "x86_64", "cores": 2, "memory": 24 * 2**30, "load": 0.1},
        cores=Cores(2, cores, (cores,) * (rounds + 1)),
    )


@dataclass(frozen=True, slots=True)
class _Machine:
    cores: float
    weather: float  # of the round
    nominal: float | None  # seconds for which jobs are paced
    dice: random.Random

    def span(self, each: Made, jobs: int) -> float:
        """How long a job runs: the more jobs want a core, the longer."""
        running = min(1 if each.serial else each.total, jobs)
        cores = min(running if each.pool is Pool.PREFORK else each.setup.workers, self.cores)
        crowd = max(1.0, running / each.saturation) if each.saturation else 1.0
        return each.run * crowd + each.work * max(1.0, running / cores)


def _measurement(each: Made, jobs: int, number: int, place: int, machine: _Machine, *, keep: bool) -> Measurement:
    dice = machine.dice
    speed = max(0.1, dice.gauss(1.0, each.noise)) * machine.weather
    span = machine.span(each, jobs)
    submitted = EPOCH + 100.0 * number + 10.0 * place
    free = [(0.0, slot) for slot in range(1 if each.serial else each.total)]
    heapq.heapify(free)
    measured, ran, waited = [], [], []
    for n in range(jobs):
        begin, slot = heapq.heappop(free)
        end = begin + span * speed * dice.uniform(0.95, 1.05)
        heapq.heappush(free, (end, slot))
        waited.append(0.0 if each.serial else begin)
        ran.append(end - begin)
        measured.append(_job(each, n, (submitted, submitted + begin, submitted + end), slot, machine.nominal))
    queued = [ran_before if each.serial else 0.0 for ran_before in accumulate(ran[:-1], initial=0.0)]
    cpu = (each.cpu + each.work) * jobs * speed
    idle = each.idle * each.setup.workers
    return Measurement(
        deployment=each.name,
        round=number,
        batch=f"made-{number}-{each.name.replace(':', '-')}",
        submitted=submitted,
        wall=max(end for end, _ in free),
        spans=Spans(tuple(queued), tuple(waited), tuple(ran)),
        checks=Checks(jobs, jobs, jobs, jobs, jobs, f"{each.total} slots"),
        usage=Usage(
            cpu=cpu,
            pss_idle=idle,
            pss_peak=idle + each.total * each.per_slot,
            processes=each.setup.workers * (each.concurrency + 1 if each.pool is Pool.PREFORK else 1),
            scheduling=SchedulingLatency(each.late, each.late * 3),
        ),
        excluded=(each.excluded[number],) if each.excluded and number in each.excluded else (),
        jobs=tuple(measured) if keep else (),
    )


def _job(each: Made, n: int, span: tuple[float, float, float], slot: int, nominal: float | None) -> MeasuredJob:
    submitted, started, finished = span
    queued = started - 0.001 if each.serial else submitted
    executor = {
        Pool.PREFORK: Executor(f"{each.name}@host", 101 + slot, 101 + slot, None),
        Pool.THREADS: Executor(f"{each.name}@host", 200, 201 + slot, None),
        Pool.GEVENT: Executor(f"{each.name}@host", 300, 300, slot),
    }[each.pool]
    attempt = Attempt(executor, started, finished, started + (finished - started) / 10)
    return MeasuredJob(
        id=f"made.{n}",
        filename=f"file-{n}.bin",
        state=State.DONE,
        nominal=nominal,
        queued=queued,
        received=max(queued, started - 0.0005),
        attempts=(attempt,),
    )
