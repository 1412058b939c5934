"""The one room that knows which pool runs this process, and how the three differ.

Job code asks here who executes it; it never asks which pool it is in.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from download.threads import in_gevent
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


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a worker was told when it was started, as far as the pools differ in it. Limits: None, not given."""

    pool: Pool
    queues: frozenset[str]
    autoscale: bool = False
    start_method: str = "fork"  # of prefork's children
    time_limit: float | None = None  # seconds
    soft_time_limit: float | None = None  # seconds
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None  # KiB

    @classmethod
    def of(cls, worker: Any) -> CommandLine:
        """
        Args:
            worker: Celery's, set up and not started.

        Raises:
            DeploymentError: a pool that is none of our three.
        """
        return cls(
            pool_of(worker.pool_cls),
            frozenset(worker.app.amqp.queues.consume_from),
            bool(worker.autoscale),
            worker.pool_start_method,
            *(getattr(worker, name) for name in _LIMITS),
        )


# Celery takes these options in every pool, and says nothing where it does nothing with them.
_LIMITS = ("time_limit", "soft_time_limit", "max_tasks_per_child", "max_memory_per_child")
_IGNORED = {
    Pool.PREFORK: (),
    Pool.THREADS: _LIMITS,
    Pool.GEVENT: ("soft_time_limit", "max_tasks_per_child", "max_memory_per_child"),
}


def doubts(line: CommandLine) -> list[str]:
    """What a command line asks for and will not get, in sentences for the log."""
    found = []
    for name in _LIMITS:
        if not getattr(line, name):
            continue
        option = "--" + name.replace("_", "-")
        if name in _IGNORED[line.pool]:
            instead = "; DOWNPOUR_DEADLINE holds in every pool" if "time" in name else ""
            found.append(f"{option} does nothing with -P {line.pool}{instead}")
        elif "time" in name:
            found.append(
                f"{option} cuts a job short and its ledger does not know why, so the job is tried again; "
                "DOWNPOUR_DEADLINE ends it for good"
            )
    return found


def check_deployment(line: CommandLine) -> None:
    """Refuse a command line that would run, and lie.

    Raises:
        DeploymentError: a queue of another pool; gevent without its patches (``-Pgevent`` without a blank, or a pool
            chosen in the configuration: Celery patches only for ``-P gevent``); threads that should become more or
            fewer; children that do not share their parent's memory.
    """
    pool, queues = line.pool, line.queues
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
    if line.autoscale and pool is Pool.THREADS:
        raise DeploymentError(
            "--autoscale: expected -P prefork or -P gevent; got threads, where Celery's worker ends with an error "
            "instead of growing. Say how many with -c"
        )
    if line.start_method != "fork" and pool is Pool.PREFORK:
        raise DeploymentError(
            f"--pool-start-method: expected fork; got {line.start_method}. "
            "Children have their worker's name and hear of its stop through memory that only a fork shares"
        )


def executor(worker: str) -> Executor:
    """Who is running this line."""
    return Executor(worker, os.getpid(), threading.get_native_id(), _greenlet())


def _greenlet() -> int | None:
    if not in_gevent():
        return None
    import gevent  # noqa: PLC0415

    return int(gevent.getcurrent().minimal_ident)
