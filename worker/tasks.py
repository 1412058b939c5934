"""The one task, thin: what a message names is claimed and run; what Flower shows of it is said here."""

from __future__ import annotations

import logging
from typing import Any

from celery.exceptions import Ignore

from ledger.jobs import QUEUE_PREFIX, TASK_NAME, Pool, Ref
from ledger.ledger import Claim, IncarnationLostError
from worker import drain
from worker.app import app
from worker.job import Outcome, run_job
from worker.process import this_worker

log = logging.getLogger("downpour.worker")


class JobFailedError(Exception):
    """For Flower: the job is in the ledger as failed, and why."""


@app.task(name=TASK_NAME, bind=True, throws=(JobFailedError,))
def download(task: Any, ref: str) -> str:
    """Run the jobs that a message names.

    Returns:
        What Flower shows as the result, e.g. ``done: 1.2 MB in 5.0 s``.

    Raises:
        JobFailedError: the only job failed; Flower shows it as such.
    """
    pool = Pool(task.request.delivery_info["routing_key"].removeprefix(QUEUE_PREFIX))
    if drain.draining():
        return "not begun: the worker stops; the job stays queued"
    claims = _claim(Ref.parse(ref), pool)
    if not claims:
        log.info("nothing to do ref=%s: held, finished or unknown", ref)
        return "nothing to do: held by another worker, finished or cancelled"

    def tell(text: str) -> None:
        _send_progress(task, text)

    outcomes = [run_job(claim, tell) for claim in claims]
    return _for_flower(task, outcomes)


def _claim(ref: Ref, pool: Pool) -> list[Claim]:
    for _ in range(3):  # a new incarnation can be lost again only if Redis stays away for a whole lease
        incarnation = this_worker.incarnation()
        try:
            return this_worker.ledger().claim(ref, pool, incarnation.id)
        except IncarnationLostError:
            log.warning("incarnation=%s lost its lease, beginning a new one", incarnation.id)
            incarnation.lost = True
    raise IncarnationLostError(str(ref))


def _send_progress(task: Any, text: str) -> None:
    """An event that Flower shows in the row of a running task; lost without harm."""
    try:
        task.send_event("task-progress", retry=False, result=text)
    except Exception as error:
        log.debug("progress not sent: %s", error)


def _for_flower(task: Any, outcomes: list[Outcome]) -> str:
    if len(outcomes) > 1:
        failed = sum(outcome.failed for outcome in outcomes)
        return f"{len(outcomes) - failed} of {len(outcomes)} done"
    outcome = outcomes[0]
    if outcome.failed:
        raise JobFailedError(outcome.text)
    if outcome.cancelled:
        task.send_event("task-revoked", retry=False, terminated=False, signum=None, expired=False)
        raise Ignore
    return outcome.text
