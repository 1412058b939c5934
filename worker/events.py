"""What Flower is told of a task beyond what Celery says: progress, and how it really ended.

Flower lets nothing replace SUCCESS in a row, not even a failure that follows; so success is said only of what is done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery.exceptions import Ignore
from celery.worker.request import Request as CelerysRequest

from ledger.jobs import FINAL_STATES, JobState
from worker.claim import JobOutcome
from worker.process import this_worker

log = logging.getLogger("downpour.worker")


class JobFailedError(Exception):
    """For Flower: the job is in the ledger as failed, and why."""


class EndedOtherwise(Ignore):  # type: ignore[misc]
    """The task ends, and Celery's own event of that is not sent, but the one that is named here."""

    def __init__(self, event: str, text: str) -> None:
        super().__init__(event, text)
        self.event, self.text = event, text


class Request(CelerysRequest):  # type: ignore[misc]
    """A task as the worker's main process sees it; for ``@app.task(Request=...)``.

    That the task began is its event, sent in batches. Were the end sent by the task itself, it could come before, and
    Flower would show for good what waits as STARTED.
    """

    def on_failure(self, exc_info: Any, *args: Any, **more: Any) -> None:
        super().on_failure(exc_info, *args, **more)
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it
        if isinstance(error, EndedOtherwise):
            self.send_event(f"task-{error.event}", result=error.text)


def progress(task: Any, text: str) -> None:
    """Shown in the row of the running task. It may get lost without harm, so the job does not wait for Redis."""
    if this_worker.redis_away or not task.app.conf.worker_send_task_events:
        return
    try:
        task.send_event("task-progress", retry=False, result=text)
    except Exception as error:
        log.debug("task-progress not sent: %s", error)


def handed_back(text: str) -> EndedOtherwise:
    """The task ends and its job goes on elsewhere or later. To be raised."""
    return EndedOtherwise("retried", text)


def ended(outcomes: Sequence[JobOutcome]) -> str:
    """
    Returns:
        The result of a task that brought what it should.

    Raises:
        JobFailedError: a job failed.
        EndedOtherwise: nothing failed and not everything is done.
    """
    failed = [outcome for outcome in outcomes if outcome.state is JobState.FAILED]
    done = sum(outcome.state is JobState.DONE for outcome in outcomes)
    text = outcomes[0].text if len(outcomes) == 1 else f"{done} of {len(outcomes)} done"
    states = {outcome.state for outcome in outcomes}
    if not states <= FINAL_STATES:
        raise handed_back(text)
    if failed:
        raise JobFailedError(text if len(outcomes) == 1 else f"{text}; {failed[0].text}")
    if states == {JobState.CANCELLED}:
        raise EndedOtherwise("revoked", text)
    return text


def ended_elsewhere(states: set[JobState]) -> str:
    """Another worker, the sweep or the producer has the say: the row ends as its jobs did, or waits as they do.

    Raises:
        JobFailedError, EndedOtherwise, Ignore: as ``ended``.
    """
    if JobState.RUNNING in states:
        raise Ignore("held by another worker")  # which tells the rest
    if not states <= FINAL_STATES:
        raise handed_back("waits for its next attempt")
    if JobState.FAILED in states:
        raise JobFailedError("failed elsewhere")
    if JobState.DONE not in states:
        raise EndedOtherwise("revoked", "cancelled before it began" if states else "unknown to the ledger")
    return "done elsewhere"
