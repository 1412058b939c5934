"""How long a run will take, said before it begins, and the sweep of arrival rates (open loop).

Calibration runs a few jobs on each deployment. From what they took follow the number of jobs that fit into the
budget, and the time that is told. Estimates are high rather than low: a few jobs do not fill a large pool.

A sweep sends jobs at random moments, the same for every deployment, at one rate after the other. A deployment that
falls behind is not asked for more. See ``OpenLoop`` for what that means, and METHOD.md for why.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from poolbench.experiment import OpenLoop
from poolbench.figures import counted, seconds
from poolbench.statistics import percentile
from poolbench.tasks.foreign import OwnTasks

_ENOUGH = 4.0  # seconds for the calibration of a deployment, if a job ends within them
_FEW = 64  # jobs for it
_AROUND = 1.0  # seconds of a measurement beside its workers and jobs: samples of the machine, the last notes
_LEAST_JOBS = 10
_SHORTEST, _LONGEST = 3.0, 30.0  # seconds of one rate


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of a deployment."""

    around: float  # seconds to start and stop its workers
    rate: float  # jobs per second
    job: float  # seconds, in the median


@dataclass(frozen=True, slots=True)
class Forecast:
    jobs: int  # in each measurement
    rounds: float  # seconds for all rounds
    arrivals: float  # seconds for each rate; 0: there are none
    sweep: float  # seconds for all rates

    @property
    def total(self) -> float:
        return self.rounds + self.sweep


def calibrate(workload: OwnTasks) -> dict[str, Calibration]:
    """By the deployment's name."""
    found = {}
    for each in workload.deployments:
        begun = time.monotonic()
        calls = workload.repeated(min(2 * (each.concurrency or 1), _FEW))
        with workload.deployed(each, "calibration", warm=False):
            before = time.monotonic()
            sent, _ = workload.send_and_wait(calls, enough=_ENOUGH)
            took = time.monotonic() - before
            ended = [job.attempts for job in workload.measured(sent) if job.attempts and job.state.final]
        around = time.monotonic() - begun - took
        last = max(attempts[-1].finished for attempts in ended) - sent[0].at if ended else took
        ran = [attempts[-1].finished - attempts[0].started for attempts in ended]
        found[each.name] = Calibration(around, max(len(ended), 1) / last, statistics.median(ran or [took]))
    return found


def plan(
    found: Mapping[str, Calibration], *, rounds: int, budget: float, most: int, fixed: bool, rates: int = 0
) -> Forecast:
    """
    Args:
        budget: seconds for all of it.
        most: jobs in a measurement; if fixed, exactly so many.
        rates: how many are to be swept; they get half of the budget.
    """
    left = budget / 2 if rates else budget
    around = sum(each.around + each.job + _AROUND for each in found.values())
    per_job = sum(1 / each.rate for each in found.values())
    fits = int((left / rounds - around) / per_job)
    jobs = most if fixed else max(min(most, _LEAST_JOBS), min(most, fits))
    arrivals = swept = 0.0
    if rates:
        start, wait = sum(each.around + each.job for each in found.values()), max(each.job for each in found.values())
        arrivals = min(_LONGEST, max(_SHORTEST, (left - start) / (len(found) * rates) - wait))
        swept = start + len(found) * rates * (arrivals + wait)
    return Forecast(jobs, rounds * (around + jobs * per_job), arrivals, swept)


# -- arrivals


def sweep(
    workload: OwnTasks, rates: Sequence[float], lasting: float, job: float, says: Callable[[str], None], *, most: int
) -> tuple[OpenLoop, ...]:
    """
    Args:
        lasting: seconds of one rate.
        job: seconds of a job, about: how long the last ones are waited for.
        most: jobs of one rate.
    """
    found: list[OpenLoop] = []
    limit = lasting + max(lasting / 2, 3 * job + 1)
    for each in workload.deployments if rates else ():
        with workload.deployed(each, "arrivals"):
            for rate in sorted(rates):
                one = _at(workload, each.name, rate, schedule(rate, lasting, most), limit)
                found.append(one)
                behind = f"falls behind: {counted(one.backlog, 'job')} waiting"
                says(f"{each.name} at {rate:g}/s: {f'p99 {seconds(one.p99)}' if one.keeps_up else behind}")
                if not one.keeps_up:
                    break
    return tuple(found)


def schedule(rate: float, lasting: float, most: int) -> list[float]:
    """Moments in seconds, as independent users come: random, the same for every deployment."""
    jobs = max(1, min(most, round(rate * lasting)))
    dice = random.Random(f"{rate} {jobs}")
    return sorted(dice.uniform(0.0, jobs / rate) for _ in range(jobs))


def _at(workload: OwnTasks, name: str, rate: float, moments: Sequence[float], limit: float) -> OpenLoop:
    sent, _ = workload.send_and_wait(workload.repeated(len(moments)), moments, limit=limit)
    jobs, over, last = workload.measured(sent), sent[0].due + limit, sent[-1].due
    latencies = sorted(
        (job.attempts[-1].finished if job.state.final and job.attempts else over) - one.due
        for one, job in zip(sent, jobs, strict=True)
    )
    late = percentile(sorted(one.at - one.due for one in sent), 0.99)
    ended = sum(job.state.final for job in jobs)
    backlog = sum(not job.attempts or job.attempts[0].started > last for job in jobs)
    p50, p95, p99 = (round(percentile(latencies, share), 4) for share in (0.5, 0.95, 0.99))
    return OpenLoop(name, rate, len(sent), ended, backlog, p50, p95, p99, round(late, 4))
