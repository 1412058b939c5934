"""What the numbers say, in one sentence, and whether the books balance. Nothing here is said that is not computed."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from enum import StrEnum

from ledger.jobs import JobState, Pool
from producer.comparison.runs import MeasuredDeployment, MeasuredJob

TOLERANCE = 0.05  # of the yardstick: this near, the total "was" the longest or the sum


class Finding(StrEnum):
    LONGEST = "the longest file, not the sum"
    SUM = "the sum, not the longest file"
    BETWEEN = "neither the longest file nor the sum"
    SLOWER = "more than the sum"
    UNKNOWN = "not known"


def find(deployment: MeasuredDeployment) -> Finding:
    """What a deployment's total was."""
    numbers = deployment.totals
    if numbers.total is None:
        return Finding.UNKNOWN
    if numbers.total <= numbers.longest * (1 + TOLERANCE):
        return Finding.LONGEST
    if numbers.total > numbers.sum * (1 + TOLERANCE):
        return Finding.SLOWER
    return Finding.SUM if numbers.total >= numbers.sum * (1 - TOLERANCE) else Finding.BETWEEN


def verdict(deployments: Sequence[MeasuredDeployment]) -> str:
    """One sentence: the pools grouped by what was found, then the serial row, which is a yardstick and not a pool."""
    pools = [deployment for deployment in deployments if not deployment.one_at_a_time]
    clauses = []
    for finding in Finding:
        if found := [deployment for deployment in pools if find(deployment) is finding]:
            figures = ", ".join(_figures(deployment) for deployment in found)
            clauses.append(f"{_where(found, len(pools))} the total was {finding.value}: {figures}")
    clauses += [_serial(deployment) for deployment in deployments if deployment.one_at_a_time]
    sentence = "; ".join(clauses) or "nothing was compared"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _where(found: Sequence[MeasuredDeployment], of: int) -> str:
    names = [deployment.name for deployment in found]
    if len(names) == of > 1:
        return {2: "in both pools", 3: "in all three pools"}.get(of, f"in all {of} pools")
    return "in " + " and ".join(names)


def _figures(deployment: MeasuredDeployment) -> str:
    numbers = deployment.totals
    if numbers.total is None:
        return deployment.name + _not_done(deployment)
    text = f"{deployment.name} {numbers.total:.2f} s (longest {numbers.longest:g} s, sum {numbers.sum:g} s)"
    waited = max(job.waited for job in deployment.jobs)
    if find(deployment) is not Finding.LONGEST and waited > numbers.longest * TOLERANCE:
        text += f" with {waited:.1f} s in the queue"
    return text


def _not_done(deployment: MeasuredDeployment) -> str:
    lost = [f"{job.filename} {job.state}" for job in deployment.jobs if job.state is not JobState.DONE]
    return f" ({', '.join(lost)})"


def _serial(deployment: MeasuredDeployment) -> str:
    numbers, found = deployment.totals, find(deployment)
    if numbers.total is None:
        return f"one at a time it is {found.value}{_not_done(deployment)}"
    return f"one at a time it was {found.value}: {numbers.total:.2f} s (sum {numbers.sum:g} s)"


# -- the books


def faults(deployments: Sequence[MeasuredDeployment]) -> list[str]:
    """Why the books do not balance: every job should have run exactly once, on the pool under test, and be done."""
    return [
        f"{deployment.name}: {job.filename} {fault}"
        for deployment in deployments
        for job in deployment.jobs
        for fault in _faults(job, deployment.pool)
    ]


def _faults(job: MeasuredJob, pool: Pool) -> list[str]:
    found = []
    if job.state is not JobState.DONE:
        found.append(f"is {job.state}")
    if len(job.attempts) != 1:
        found.append(f"ran {len(job.attempts)} times")
    workers = {attempt.executor.worker for attempt in job.attempts if attempt.executor}
    found += [f"ran on {worker}" for worker in sorted(workers) if _pool_of(worker) != pool]
    if job.state is JobState.DONE and job.expected_sha256 and job.sha256 != job.expected_sha256:
        found.append("has another sha256 than the origin's")
    return found


def _pool_of(worker: str) -> str:
    """Workers are named POOL@HOST, as compose and the Procfile do."""
    return worker.partition("@")[0]


def books(deployments: Sequence[MeasuredDeployment]) -> str:
    """Whether each job ran once and where, from the records alone."""
    wrong = faults(deployments)
    if wrong:
        return "The books do not balance: " + "; ".join(wrong) + "."
    jobs = sum(len(deployment.jobs) for deployment in deployments)
    where = "; ".join(f"{deployment.name} in {executors(deployment)}" for deployment in deployments)
    return f"The books: {jobs} jobs, each ran exactly once, on the pool under test, and its sha256 is right: {where}."


def executors(deployment: MeasuredDeployment) -> str:
    """``2 processes``, ``2 threads of 1 process``, ``2 greenlets of 1 thread``: counted, not assumed."""
    ran = [attempt.executor for job in deployment.jobs for attempt in job.attempts if attempt.executor]
    processes = {who.pid for who in ran}
    threads = {(who.pid, who.thread) for who in ran}
    greenlets = {(who.pid, who.thread, who.greenlet) for who in ran if who.greenlet is not None}
    if greenlets:
        return f"{_count(greenlets, 'greenlet')} of {_count(threads, 'thread')}"
    if deployment.pool is Pool.THREADS or len(threads) > len(processes):
        return f"{_count(threads, 'thread')} of {_count(processes, 'process')}"
    return _count(processes, "process")


def _count(things: Sized, word: str) -> str:
    plural = word + ("es" if word.endswith("s") else "s")
    return f"{len(things)} {word if len(things) == 1 else plural}"
