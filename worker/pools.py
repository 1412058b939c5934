"""Which pool runs this process, and how the three differ: the command line is checked, the executor is named.

Job code never asks which pool it is in.
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


class DeploymentError(ValueError):
    """The worker's command line cannot do what it says."""


# Celery takes these options in every pool, and says nothing where it does nothing with them.
_LIMITS = ("time_limit", "soft_time_limit", "max_tasks_per_child", "max_memory_per_child")
_IGNORED = {
    Pool.PREFORK: (),
    Pool.THREADS: _LIMITS,
    Pool.GEVENT: ("soft_time_limit", "max_tasks_per_child", "max_memory_per_child"),
}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """How a worker was started, as far as the pools differ in it. Limits: None, not given."""

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
        module = worker.pool_cls.__module__
        if module not in _MODULES:
            raise DeploymentError(f"-P: expected {', '.join(Pool)}; got {module}. Downpour compares these three.")
        return cls(
            _MODULES[module],
            frozenset(worker.app.amqp.queues.consume_from),
            bool(worker.autoscale),
            worker.pool_start_method,
            *(getattr(worker, name) for name in _LIMITS),
        )

    def doubts(self) -> list[str]:
        """What it asks for and will not get, in sentences for the log."""
        found = []
        for name in _LIMITS:
            if not getattr(self, name):
                continue
            option = "--" + name.replace("_", "-")
            if name in _IGNORED[self.pool]:
                instead = "; DOWNPOUR_DEADLINE holds in every pool" if "time" in name else ""
                found.append(f"{option} does nothing with -P {self.pool}{instead}")
            elif "time" in name:
                found.append(
                    f"{option} cuts a job short and its ledger does not know why, so the job is tried again; "
                    "DOWNPOUR_DEADLINE ends it for good"
                )
        return found

    def check(self) -> None:
        """
        Raises:
            DeploymentError: the command line would run, and lie.
        """
        pool = self.pool
        if self.queues != {pool.queue}:
            got = ",".join(sorted(self.queues)) or "none"
            raise DeploymentError(
                f"-Q: a {pool} worker serves {pool.queue}; got {got}. Start it with -P {pool} -Q {pool.queue}"
            )
        if pool is Pool.GEVENT and not in_gevent():  # Celery patches for ``-P gevent`` on the command line alone
            raise DeploymentError(
                "-P gevent: expected monkey-patched sockets; got blocking ones. "
                "Spell it -P gevent, with a blank, on the command line"
            )
        if self.autoscale and pool is Pool.THREADS:
            raise DeploymentError(
                "--autoscale: expected -P prefork or -P gevent; got threads, where Celery's worker ends with an error "
                "instead of growing. Say how many with -c"
            )
        if self.start_method != "fork" and pool is Pool.PREFORK:
            raise DeploymentError(
                f"--pool-start-method: expected fork; got {self.start_method}. "
                "Children have their worker's name and hear of its stop through memory that only a fork shares"
            )


def executor(worker: str) -> Executor:
    """What runs the caller: process, thread, greenlet."""
    greenlet = None
    if in_gevent():
        import gevent  # noqa: PLC0415

        greenlet = int(gevent.getcurrent().minimal_ident)
    return Executor(worker, os.getpid(), threading.get_native_id(), greenlet)
