"""The one task: the jobs that a message names are claimed and run; then Flower is told how it really ended.

Flower lets nothing replace SUCCESS in a row, not even a failure that follows; so success is said only of what is done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from contextlib import ExitStack, closing
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.exceptions import Ignore
from celery.worker.request import Request
from redis.exceptions import RedisError

from ledger.jobs import FINAL_STATES, QUEUE_PREFIX, TASK_NAME, JobState, Pool, Ref, job_id
from ledger.ledger import Claim, IncarnationLostError
from ledger.redis_client import once
from ledger.settings import get_settings
from worker import drain, gather, group
from worker.app import app
from worker.claim import JobOutcome, claimed
from worker.execute import run_jobs
from worker.heartbeat import Incarnation
from worker.pools import executor
from worker.process import this_worker

log = logging.getLogger("downpour.worker")


class JobFailedError(Exception):
    """For Flower: the job is in the ledger as failed, and why."""


class EndedOtherwise(Ignore):  # type: ignore[misc]
    """The task ends, and Celery's own event of that is not sent, but the one that is named here."""

    def __init__(self, event: str, text: str) -> None:
        super().__init__(event, text)
        self.event, self.text = event, text


class TaskRequest(Request):  # type: ignore[misc]
    """A task as the worker's main process sees it.

    That the task began is its event, sent in batches. Were the end sent by the task itself, it could come before, and
    Flower would show for good what waits as STARTED.
    """

    def send_event(self, type: str, **fields: Any) -> None:
        """With the executor when it began: the pid that Celery adds is the main process' in every pool."""
        if type == "task-started":
            who = executor(this_worker.name)  # called in the thread or greenlet that runs it
            ids = (who.pid, who.thread, who.greenlet)
            if this_worker.pool is Pool.PREFORK:  # called in the main process, for a child
                ids = (self.worker_pid, self.worker_pid, None)
            fields["executor"] = [this_worker.family, *ids]
        super().send_event(type, **fields)

    def on_failure(self, exc_info: Any, **more: Any) -> None:
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it
        if lost := isinstance(error, WorkerLostError):  # a child died; its job has not failed, and soon runs again
            more["send_failed_event"] = False
        super().on_failure(exc_info, **more)
        if lost or isinstance(error, EndedOtherwise):
            event, text = ("retried", "its process died") if lost else (error.event, error.text)
            self.send_event(f"task-{event}", result=text)


@app.task(name=TASK_NAME, bind=True, throws=(JobFailedError,), Request=TaskRequest)
def download(task: Any, text: str) -> str:
    """Run the jobs that a message names, by its ref as text.

    Returns:
        What Flower shows as the result, e.g. ``done: 1,200,000 bytes in 5.0 s``.

    Raises:
        JobFailedError, EndedOtherwise, Ignore: for Flower; the ledger knows already.
    """
    ref = Ref.parse(text)
    pool = Pool(task.request.delivery_info["routing_key"].removeprefix(QUEUE_PREFIX))

    def show(line: str, **fields: Any) -> None:
        """In the row of the running task. It may get lost without harm, so the job does not wait for Redis."""
        if this_worker.redis_away or not task.app.conf.worker_send_task_events:
            return
        try:
            task.send_event("task-progress", retry=False, result=line, **fields)
        except Exception as error:
            log.debug("task-progress not sent: %s", error)

    with closing(gather.Turn(ref)) as turn, ExitStack() as working:
        if drain.stopping():
            raise EndedOtherwise("retried", "not begun: the worker stops; the job stays queued")
        incarnation, claims = _claim(ref, pool, working)
        if not claims:
            return _ended_elsewhere(ref)
        more = turn.take(claims, pool)
        working.enter_context(incarnation.working([claim.record.id for claim in more]))
        claims += more
        with claimed(claims, incarnation) as jobs:
            if more:
                show(f"0 of {len(claims)} over", jobs=len(claims))
                outcomes = group.run_group(jobs, show, turn.long)
            else:
                outcomes = (group.run_group if group.suits(claims) else run_jobs)(jobs, show)
        if more or len(claims) == 1:
            turn.over(len(claims))
    if all(outcome.state is None for outcome in outcomes):
        return _ended_elsewhere(ref)
    return _ended(outcomes)


# Celery keeps a result back end per thread: in gevent's pool it would make one for each job. Ours keeps nothing.
download.backend = app.backend


def _claim(ref: Ref, pool: Pool, working: ExitStack) -> tuple[Incarnation, list[Claim]]:
    """
    Args:
        working: until it ends, the process says with its renewals that it runs the claimed jobs.
    """
    ledger, deadline = this_worker.ledger(), get_settings().deadline
    for _ in range(3):  # a new incarnation can be lost again only if Redis stays away for a whole lease
        incarnation = this_worker.incarnation()
        try:
            # The jobs are held before the answer is read, which takes long in a busy interpreter.
            with incarnation.working([job_id(ref.batch, ordinal) for ordinal in ref.ordinals]):
                claims = ledger.claim(ref, pool, incarnation.id, deadline=deadline)
                working.enter_context(incarnation.working([claim.record.id for claim in claims]))
                return incarnation, claims
        except IncarnationLostError:
            log.warning("incarnation=%s lost its lease, beginning a new one", incarnation.id)
            incarnation.lost = True
    raise IncarnationLostError(str(ref))


def _ended(outcomes: Sequence[JobOutcome]) -> str:
    done = sum(outcome.state is JobState.DONE for outcome in outcomes)
    text = failed = outcomes[0].text
    if len(outcomes) > 1:
        text = f"{done} of {len(outcomes)} done"
        failed = "; ".join([text, *(each.text for each in outcomes if each.state is JobState.FAILED)][:2])
    return _end({outcome.state for outcome in outcomes}, waiting=text, failed=failed, cancelled=text, done=text)


def _ended_elsewhere(ref: Ref) -> str:
    """Another worker, the sweep or the producer decides: the row ends as its jobs did, or waits as they do."""
    try:
        with once():
            states = {record.state for record in this_worker.ledger().read(job_id(ref.batch, n) for n in ref.ordinals)}
    except RedisError:
        raise Ignore("the ledger cannot be asked") from None
    log.info("nothing to do ref=%s states=%s", ref, ",".join(sorted(states)) or "unknown")
    if JobState.RUNNING in states:
        raise Ignore("held by another worker")  # which tells the rest
    return _end(
        states,
        waiting="waits for its next attempt",
        failed="failed elsewhere",
        cancelled="cancelled before it began" if states else "unknown to the ledger",
        done="done elsewhere",
    )


def _end(states: Set[JobState | None], *, waiting: str, failed: str, cancelled: str, done: str) -> str:
    """
    Returns:
        The result of a task that brought what it should.

    Raises:
        JobFailedError: a job failed.
        EndedOtherwise: no job failed and not everything is done.
    """
    if not states <= FINAL_STATES:
        raise EndedOtherwise("retried", waiting)
    if JobState.FAILED in states:
        raise JobFailedError(failed)
    if JobState.DONE not in states:
        raise EndedOtherwise("revoked", cancelled)
    return done
