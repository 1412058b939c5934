"""The one room that knows which pool runs this process, and how the three differ.

Job code asks here who executes it, where to write, and how to start a thread that no busy hub can starve;
it never asks which pool it is in.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from typing import Any

from ledger.jobs import Executor, Pool

_MODULES = {
    "celery.concurrency.prefork": Pool.PREFORK,
    "celery.concurrency.thread": Pool.THREADS,
    "celery.concurrency.gevent": Pool.GEVENT,
}

_DISK_THREADS = 4


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
    if pool is Pool.GEVENT and not _patched():
        raise DeploymentError(
            "-P gevent: expected monkey-patched sockets; got blocking ones. "
            "Spell it -P gevent, with a blank, on the command line"
        )


def _patched() -> bool:
    from gevent import monkey  # noqa: PLC0415 - the other pools never load gevent

    return bool(monkey.is_module_patched("socket"))


def executor(worker: str) -> Executor:
    """Who is running this line."""
    return Executor(worker, os.getpid(), threading.get_native_id(), _greenlet())


def _greenlet() -> int | None:
    if not _in_gevent():
        return None
    import gevent  # noqa: PLC0415

    return int(gevent.getcurrent().minimal_ident)


def _in_gevent() -> bool:
    import sys  # noqa: PLC0415

    return "gevent.monkey" in sys.modules and _patched()


def disk_runner() -> Callable[[Callable[[], None]], None]:
    """What runs a piece of work that keeps disk and CPU busy, while the caller waits. Make one per process.

    Processes and threads do it themselves. A greenlet would hold up all the others: with four fast downloads the hub
    is 90 to 440 ms late in the median when pieces are written and hashed inline, 0.5 ms when threads do that: a socket
    that always has bytes never lets its greenlet wait. The threads are our own: those of the hub also resolve names.
    """
    return native_runner(_DISK_THREADS)


def start_native_thread(name: str, target: Callable[[], None]) -> None:
    """Run ``target`` in a thread of the operating system, which goes with the process.

    Under gevent ``threading.Thread`` is a greenlet, and a job that computes would starve it.
    """
    if _in_gevent():
        from gevent import monkey  # noqa: PLC0415

        monkey.get_original("_thread", "start_new_thread")(target, ())
    else:
        threading.Thread(target=target, name=name, daemon=True).start()


def native(module: str, name: str) -> Any:
    """A function of the standard library as it was before gevent's patches, for code that runs in a native thread."""
    if _in_gevent():
        from gevent import monkey  # noqa: PLC0415

        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


def native_runner(threads: int) -> Callable[[Callable[[], None]], None]:
    """What runs a piece of work that blocks, while the caller waits. Make one per process.

    Under gevent that is a thread of the operating system, so that other greenlets go on. Elsewhere it is the caller.
    """
    if not _in_gevent():
        return lambda work: work()
    from gevent.threadpool import ThreadPool  # noqa: PLC0415

    apply: Callable[[Callable[[], None]], None] = ThreadPool(threads).apply
    return apply


def native_sleep(seconds: float) -> None:
    """``time.sleep`` of the thread itself, for the loops of ``start_native_thread``."""
    sleep: Any
    if _in_gevent():
        from gevent import monkey  # noqa: PLC0415

        sleep = monkey.get_original("time", "sleep")
    else:
        from time import sleep  # noqa: PLC0415
    sleep(seconds)
