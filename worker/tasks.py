"""The one task, thin: what a message names is claimed and run."""

from __future__ import annotations

import logging
from typing import Any

from celery.exceptions import Ignore
from redis.exceptions import RedisError

from ledger.jobs import QUEUE_PREFIX, TASK_NAME, JobState, Pool, Ref, job_id
from ledger.ledger import Claim, IncarnationLostError
from ledger.redis_client import once
from ledger.settings import get_settings
from worker import drain, events, group
from worker.app import app
from worker.claim import claimed
from worker.execute import run_jobs
from worker.incarnation import Incarnation
from worker.process import this_worker

log = logging.getLogger("downpour.worker")


@app.task(name=TASK_NAME, bind=True, throws=(events.JobFailedError,), Request=events.Request)
def download(task: Any, text: str) -> str:
    """Run the jobs that a message names, by its ref as text.

    Returns:
        What Flower shows as the result, e.g. ``done: 1,200,000 bytes in 5.0 s``.

    Raises:
        JobFailedError, Ignore: for Flower's eyes, see ``worker.events``. The ledger knows already.
    """
    ref = Ref.parse(text)
    pool = Pool(task.request.delivery_info["routing_key"].removeprefix(QUEUE_PREFIX))
    if drain.draining():
        raise events.handed_back("not begun: the worker stops; the job stays queued")
    incarnation, claims = _claim(ref, pool)
    if not claims:
        return events.ended_elsewhere(_states(ref))

    def show(line: str) -> None:
        events.progress(task, line)

    with incarnation.working([claim.record.id for claim in claims]), claimed(claims, incarnation) as jobs:
        outcomes = group.run_group(jobs, show) if group.suits(claims) else run_jobs(jobs, show)
    if all(outcome.state is None for outcome in outcomes):
        return events.ended_elsewhere(_states(ref))
    return events.ended(outcomes)


# Celery keeps a result back end per thread: in gevent's pool it would make one for each job. Ours keeps nothing.
download.backend = app.backend


def _states(ref: Ref) -> set[JobState]:
    try:
        with once():
            states = {record.state for record in this_worker.ledger().read(job_id(ref.batch, n) for n in ref.ordinals)}
    except RedisError:
        raise Ignore("the ledger cannot be asked") from None
    log.info("nothing to do ref=%s states=%s", ref, ",".join(sorted(states)) or "unknown")
    return states


def _claim(ref: Ref, pool: Pool) -> tuple[Incarnation, list[Claim]]:
    for _ in range(3):  # a new incarnation can be lost again only if Redis stays away for a whole lease
        incarnation = this_worker.incarnation()
        try:
            return incarnation, this_worker.ledger().claim(ref, pool, incarnation.id, deadline=get_settings().deadline)
        except IncarnationLostError:
            log.warning("incarnation=%s lost its lease, beginning a new one", incarnation.id)
            incarnation.lost = True
    raise IncarnationLostError(str(ref))
