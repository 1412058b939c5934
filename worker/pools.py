"""The one room that knows which pool runs this process, and how the three differ.

Job code asks here who executes it; it never asks which pool it is in.
"""

from __future__ import annotations

import os
import threading

from download.native import in_gevent
from ledger.jobs import Executor, Pool

_MODULES = {
    "celery.concurrency.prefork": Pool.PREFORK,
    "celery.concurrency.thread": Pool.THREADS,
    "celery.concurrency.gevent": Pool.GEVENT,
}


class DeploymentError(Exception):
    """The worker's command line cannot do what it says."""


def pool_of(pool_class: type) -> Pool:
    """The pool that a Celery pool class implements.

    Raises:
        DeploymentError: it is none of our three.
    """
    pool = _MODULES.get(pool_class.__module__)
    if pool is None:
        wanted = ", ".join(Pool)
        raise DeploymentError(f"-P: expected {wanted}; got {pool_class.__module__}. Downpour compares these three.")
    return pool


def check_deployment(pool: Pool, queues: set[str]) -> None:
    """Refuse a command line that would run, and lie.

    Raises:
        DeploymentError: a queue of another pool, or gevent without its patches (``-Pgevent`` without a blank,
            or a pool chosen in the configuration: Celery patches only for ``-P gevent``).
    """
    if queues != {pool.queue}:
        got = ",".join(sorted(queues)) or "none"
        raise DeploymentError(
            f"-Q: a {pool} worker serves {pool.queue}; got {got}. Start it with -P {pool} -Q {pool.queue}"
        )
    if pool is Pool.GEVENT and not in_gevent():
        raise DeploymentError(
            "-P gevent: expected monkey-patched sockets; got blocking ones. "
            "Spell it -P gevent, with a blank, on the command line"
        )


def executor(worker: str) -> Executor:
    """Who is running this line."""
    return Executor(worker, os.getpid(), threading.get_native_id(), _greenlet())


def _greenlet() -> int | None:
    if not in_gevent():
        return None
    import gevent  # noqa: PLC0415

    return int(gevent.getcurrent().minimal_ident)
