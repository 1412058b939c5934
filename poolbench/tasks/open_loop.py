"""The sweep of arrival rates (open loop), and what follows from it: who keeps up, the saturation points, one sentence.

Jobs are sent at random moments, the same for every deployment, at one rate after the other. A deployment that falls
behind is not asked for more. See ``OpenLoop`` for what that means, and METHOD.md for why.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from poolbench.experiment import Experiment, OpenLoop
from poolbench.figures import counted, seconds
from poolbench.statistics import percentile

if TYPE_CHECKING:  # it imports Celery, which a report does not need
    from poolbench.tasks.foreign import OwnTasks


def cells(found: Sequence[OpenLoop]) -> Iterator[list[str]]:
    """A row for each deployment and rate."""
    for each in found:
        least = "" if each.ended == each.jobs else "≥ "
        latency = [least * (n > 0) + seconds(value) for n, value in enumerate((each.p50, each.p95, each.p99))]
        state = "yes" if each.keeps_up else f"no ({each.backlog})"
        yield [each.deployment, f"{each.rate:g}/s", f"{each.jobs}", *latency, state]


def saturation(found: Sequence[OpenLoop]) -> dict[str, float | None]:
    """By deployment the first rate at which it falls behind; None: it was not reached."""
    names = dict.fromkeys(each.deployment for each in found)
    behind = {each.deployment: each.rate for each in found if not each.keeps_up}
    return {name: behind.get(name) for name in names}


def highest(found: Sequence[OpenLoop]) -> tuple[float, list[OpenLoop]]:
    """The highest rate that a deployment keeps up with, and those that do, the lowest p99 first; 0: none does."""
    best = max((each.rate for each in found if each.keeps_up), default=0.0)
    return best, sorted((each for each in found if each.rate == best and each.keeps_up), key=lambda each: each.p99)


def sentence(found: Sequence[OpenLoop]) -> str:
    """``At 20/s threads:16 keeps p99 below 0.4 s; prefork:4 does not, it falls behind at 10/s.``"""
    rate, keep = highest(found)
    if not keep:
        return f"At {min(each.rate for each in found):g}/s every deployment falls behind already."
    text = f"At {rate:g}/s " + ", ".join(
        f"{each.deployment} {'keeps p99 ' if each is keep[0] else ''}below {ceiling(each.p99):g} s" for each in keep
    )
    behind = {name: at for name, at in saturation(found).items() if at is not None}
    slower = [f"{name} does not, it falls behind at {at:g}/s" for name, at in behind.items() if at <= rate]
    more = sorted({at for at in behind.values() if at > rate})
    higher = [f"at {at:g}/s {_those(name for name in behind if behind[name] == at)} behind" for at in more]
    none = [] if behind else ["no deployment fell behind, so the saturation point is higher"]
    return "; ".join([text, *slower, *higher, *none]) + "."


def _those(names: Iterable[str]) -> str:
    found = list(names)
    return f"{' and '.join(found)} {'falls' if len(found) == 1 else 'fall'}"


def ceiling(value: float) -> float:
    """The next value with one digit: 0.4 of 0.31."""
    unit = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return round((math.floor(value / unit + 1e-9) + 1) * unit, 12)


def keeping_up(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """Without the deployments that fall behind at a rate which another keeps up with; and their names."""
    rate, keep = highest(experiment.open_loop)
    behind = [name for name, at in saturation(experiment.open_loop).items() if at is not None and at <= rate]
    if not keep or not behind:
        return experiment, []
    left = tuple(each for each in experiment.deployments if each.name not in behind)
    measured = tuple(each for each in experiment.measurements if each.deployment not in behind)
    return replace(experiment, deployments=left, measurements=measured), behind


# -- the sweep


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
    ran, late = workload.send_and_wait(workload.repeated(len(moments)), moments, limit=limit)
    jobs, over, last = ran.jobs, ran.jobs[0].queued + limit, ran.jobs[-1].queued
    latencies = sorted(
        (job.attempts[-1].finished if job.state.final and job.attempts else over) - job.queued for job in jobs
    )
    ended = sum(job.state.final for job in jobs)
    backlog = sum(not job.attempts or job.attempts[0].started > last for job in jobs)
    p50, p95, p99 = (round(percentile(latencies, share), 4) for share in (0.5, 0.95, 0.99))
    return OpenLoop(name, rate, len(jobs), ended, backlog, p50, p95, p99, round(percentile(sorted(late), 0.99), 4))
