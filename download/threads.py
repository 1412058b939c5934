"""Threads of the operating system, also where gevent has replaced them: for what blocks, and for what must not starve.

The only file of a download that knows gevent; the others call these functions and behave the same in all pools.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any

_DISK_THREADS = 4

Run = Callable[[Callable[[], None]], None]  # calls what it is given, here or in a thread, and waits for it


def in_place(work: Callable[[], None]) -> None:
    """The ``Run`` where the caller has a process or a thread to itself."""
    work()


def in_gevent() -> bool:
    """Whether this process runs on patched sockets."""
    if "gevent.monkey" not in sys.modules:
        return False
    from gevent import monkey  # noqa: PLC0415 - the other pools never load gevent

    return bool(monkey.is_module_patched("socket"))


def disk_runner() -> Run:
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
    if in_gevent():
        from gevent import monkey  # noqa: PLC0415

        monkey.get_original("_thread", "start_new_thread")(target, ())
    else:
        threading.Thread(target=target, name=name, daemon=True).start()


def native(module: str, name: str) -> Any:
    """A function of the standard library as it was before gevent's patches, for code that runs in a native thread."""
    if in_gevent():
        from gevent import monkey  # noqa: PLC0415

        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


def native_runner(threads: int) -> Run:
    """What runs a piece of work that blocks, while the caller waits. Make one per process.

    Under gevent that is a thread of the operating system, so that other greenlets go on. Elsewhere it is the caller.
    """
    if not in_gevent():
        return in_place
    from gevent.threadpool import ThreadPool  # noqa: PLC0415

    apply: Run = ThreadPool(threads).apply
    return apply


def native_sleep(seconds: float) -> None:
    """``time.sleep`` of the thread itself, for the loops of ``start_native_thread``."""
    sleep: Any
    if in_gevent():
        from gevent import monkey  # noqa: PLC0415

        sleep = monkey.get_original("time", "sleep")
    else:
        from time import sleep  # noqa: PLC0415
    sleep(seconds)
