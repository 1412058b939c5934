"""What the numbers say, in one sentence, and whether the books balance. Nothing here is said that is not computed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from ledger.jobs import Attempt, JobState, Pool
from producer.runs import MeasuredDeployment, MeasuredJob

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
    """One sentence on the pools, grouped by what was found; the serial row is the yardstick, not a pool."""
    pools = [deployment for deployment in deployments if not deployment.one_at_a_time]
    if not pools:
        return "Nothing was compared."
    clauses = []
    for finding in Finding:
        found = [deployment for deployment in pools if find(deployment) is finding]
        if not found:
            continue
        figures = "; ".join(_figures(deployment, finding) for deployment in found)
        clauses.append(f"{_where(found, len(pools))} the total was {finding}: {figures}")
    clauses += [_serial(deployment) for deployment in deployments if deployment.one_at_a_time]
    sentence = ". ".join(clause[0].upper() + clause[1:] for clause in clauses)
    return sentence + "."


def _where(found: Sequence[MeasuredDeployment], of: int) -> str:
    names = [deployment.name for deployment in found]
    if len(names) == of > 1:
        return {2: "in both pools", 3: "in all three pools"}.get(of, f"in all {of} pools")
    return "in " + (" and ".join(names) if len(names) < 3 else ", ".join(names))


def _figures(deployment: MeasuredDeployment, finding: Finding) -> str:
    numbers = deployment.totals
    if numbers.total is None:
        lost = [f"{job.filename} {job.state}" for job in deployment.jobs if job.state is not JobState.DONE]
        return f"{deployment.name}, {', '.join(lost)}"
    text = f"{deployment.name} {numbers.total:.2f} s (longest {numbers.longest:g} s, sum {numbers.sum:g} s)"
    waited = max(job.waited for job in deployment.jobs)
    if finding is not Finding.LONGEST and waited > numbers.longest * TOLERANCE:
        text += f", of which {waited:.1f} s in the queue"
    return text


def _serial(deployment: MeasuredDeployment) -> str:
    numbers = deployment.totals
    if numbers.total is None:
        return "one at a time, the jobs were not all done"
    finding = find(deployment)
    ran = ", as it must be" if finding is Finding.SUM else ", which is not the sum that was expected"
    if finding is Finding.SUM:
        return f"one at a time they took {numbers.total:.2f} s, the sum"
    return f"one at a time they took {numbers.total:.2f} s (sum {numbers.sum:g} s){ran}"


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
    wrong = {who.worker for who in (attempt.executor for attempt in job.attempts) if who and _pool_of(who.worker) != pool}
    found += [f"ran on {worker}" for worker in sorted(wrong)]
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
    pids = {who.pid for who in ran}
    tids = {(who.pid, who.thread) for who in ran}
    greenlets = {(who.pid, who.thread, who.greenlet) for who in ran if who.greenlet is not None}
    if greenlets:
        return f"{_count(greenlets, 'greenlet')} of {_count(tids, 'thread')}"
    return f"{_count(tids, 'thread')} of {_count(pids, 'process')}" if len(tids) > len(pids) else _count(pids, "process")


def _count(things: set[object] | set[int] | set[tuple[int, int]] | set[tuple[int, int, int | None]], word: str) -> str:
    plural = word + ("es" if word.endswith("s") else "s")
    return f"{len(things)} {word if len(things) == 1 else plural}"


def last_failure(job: MeasuredJob) -> Attempt | None:
    return next((attempt for attempt in reversed(job.attempts) if attempt.kind), None)
