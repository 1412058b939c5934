"""What Flower is told of a task beyond what Celery says: progress, and how it really ended.

Flower lets nothing replace SUCCESS in a row, not even a failure that follows; so success is said only of what is done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery.exceptions import Ignore

from ledger.jobs import FINAL_STATES, JobState
from worker.job import Outcome
from worker.process import this_worker

log = logging.getLogger("downpour.worker")


class JobFailedError(Exception):
    """For Flower: the job is in the ledger as failed, and why."""


def progress(task: Any, text: str) -> None:
    """Shown in the row of the running task."""
    _send(task, "progress", text)


def handed_back(task: Any, text: str) -> Ignore:
    """The task ends and its job goes on elsewhere or later. To be raised: it keeps Celery's own word back."""
    return _ends(task, "retried", text)


def ended(task: Any, outcomes: Sequence[Outcome]) -> str:
    """
    Returns:
        The result of a task that brought what it should.

    Raises:
        JobFailedError: a job failed.
        Ignore: nothing failed and not everything is done; Flower was told.
    """
    failed = [outcome for outcome in outcomes if outcome.failed]
    done = sum(outcome.state is JobState.DONE for outcome in outcomes)
    text = outcomes[0].text if len(outcomes) == 1 else f"{done} of {len(outcomes)} done"
    states = {outcome.state for outcome in outcomes}
    if states == {None}:
        raise Ignore(text)  # another worker holds the job now, and tells the rest
    if not states <= FINAL_STATES:
        raise _ends(task, "retried", text)
    if failed:
        raise JobFailedError(text if len(outcomes) == 1 else f"{text}; {failed[0].text}")
    if states == {JobState.CANCELLED}:
        raise _ends(task, "revoked", text)
    return text


def nothing_claimed(task: Any, states: set[JobState]) -> str:
    """The row, which has started again, ends as its jobs did, or waits as they do.

    Raises:
        JobFailedError, Ignore: as ``ended``.
    """
    if JobState.RUNNING in states:
        raise Ignore("held by another worker")  # which tells the rest
    if not states <= FINAL_STATES:
        raise _ends(task, "retried", "waits for its next attempt")
    if JobState.FAILED in states:
        raise JobFailedError("failed before this message came")
    if JobState.DONE not in states:
        raise _ends(task, "revoked", "cancelled before it began" if states else "unknown to the ledger")
    return "done before this message came"


def _ends(task: Any, event: str, text: str) -> Ignore:
    _send(task, event, text)
    return Ignore(text)


def _send(task: Any, event: str, text: str) -> None:
    """An event may get lost without harm: the ledger is the truth. So nobody waits for Redis to send one."""
    if this_worker.redis_away or not task.app.conf.worker_send_task_events:
        return
    try:
        task.send_event(f"task-{event}", retry=False, result=text)
    except Exception as error:
        log.debug("task-%s not sent: %s", event, error)
