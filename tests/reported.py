"""Experiments that are hard to show: hostile names, an attempt that failed, greenlets that live for one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ledger.jobs import FailureKind
from poolbench.experiment import PLAIN, Experiment, MeasuredExecutor, MeasuredJob, Setup
from poolbench.experiment import MeasuredAttempt as Attempt
from poolbench.experiment import PoolKind as Pool
from tests.experiments import MIB, Made, made, remeasured

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>.bin'


def with_jobs(experiment: Experiment, change: Callable[[int, MeasuredJob], MeasuredJob]) -> Experiment:
    return remeasured(experiment, lambda of: replace(of, jobs=tuple(change(n, job) for n, job in enumerate(of.jobs))))


def with_executors(experiment: Experiment, change: Callable[[int, MeasuredExecutor], MeasuredExecutor]) -> Experiment:
    def changed(n: int, job: MeasuredJob) -> MeasuredJob:
        who = job.attempts[0].executor
        return replace(job, attempts=(replace(job.attempts[0], executor=change(n, who)),)) if who else job

    return with_jobs(experiment, changed)


def a_greenlet_each(experiment: Experiment) -> Experiment:
    """As gevent does it: no greenlet runs a second job."""
    return with_executors(experiment, lambda n, who: who if who.greenlet is None else replace(who, greenlet=5000 + n))


def one_failed(job: MeasuredJob) -> MeasuredJob:
    """Its first attempt was reset, and the second began where that ended."""
    whole = job.attempts[0]
    middle = (whole.started + whole.finished) / 2
    first = replace(whole, finished=middle, first_byte=None, kind=FailureKind.RESET, reason="reset by the server")
    second = Attempt(whole.executor, middle, whole.finished)
    return replace(job, attempts=(first, second))


def few() -> Experiment:
    """A baseline and three pools, a step after each job, a failed attempt, a excluded turn, notes, hostile names."""

    def change(n: int, job: MeasuredJob) -> MeasuredJob:
        job = replace(job, step=0.1, filename=HOSTILE if n == 3 else job.filename)
        return one_failed(job) if n == 5 else job

    experiment = made(
        Made(Pool.PREFORK, 2, 0.5, serial=True),
        Made(Pool.PREFORK, 4, 0.5, per_slot=40 * MIB),
        Made(Pool.THREADS, 8, 0.52, excluded={2: "another process used <b>38 %</b> of the CPU"}),
        Made(Pool.GEVENT, 8, 0.3),
        nominal=0.5,
    )
    return replace(with_jobs(experiment, change), notes=("The clock of host <b> is 3 ms behind",))


def sampled() -> Experiment:
    """A baseline that ran ten of the forty jobs."""
    whole = made(Made(Pool.PREFORK, 2, 0.5, serial=True), Made(Pool.THREADS, 8, 0.5), nominal=0.5)
    part = made(Made(Pool.PREFORK, 2, 0.5, serial=True), Made(Pool.THREADS, 8, 0.5), jobs=10, nominal=0.5)
    of_part = {each.batch: each for each in part.measurements}
    return remeasured(whole, lambda of: of_part[of.batch], "serial")


def sweep() -> Experiment:
    """Several numbers of slots per pool."""
    return made(*(Made(pool, slots, 0.2, per_slot=MIB) for pool in Pool for slots in (2, 8, 32)), jobs=64)


def hosts() -> Experiment:
    """Two hosts that serve together; containers, say: process and thread ids of one are those of the other."""

    def change(n: int, who: MeasuredExecutor) -> MeasuredExecutor:
        return replace(who, worker=f"{who.worker.partition('@')[0]}@{('north', 'south')[n % 2]}")

    return with_executors(made(*(Made(pool, 3, 0.5) for pool in Pool)), change)


def varied() -> Experiment:
    """One pool with options, among them a deployment with all of them and the longest name that there is."""
    all_options = Setup(workers=16, prefetch=1000, events=False)
    return made(
        *(Made(Pool.THREADS, slots, 0.2, setup=setup) for slots in (2, 8) for setup in (PLAIN, Setup(prefetch=4))),
        Made(Pool.PREFORK, 2, 0.2, setup=Setup(workers=2), per_slot=30 * MIB),
        Made(Pool.GEVENT, 312, 0.2, setup=all_options),
        jobs=64,
    )


def many() -> Experiment:
    """Ten thousand jobs for each of three pools."""
    deployments = (Made(Pool.PREFORK, 8, 0.05), Made(Pool.THREADS, 100, 0.5), Made(Pool.GEVENT, 1000, 0.5))
    return a_greenlet_each(made(*deployments, jobs=10_000, rounds=3))
