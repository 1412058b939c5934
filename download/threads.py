"""Threads of the operating system, also where gevent has replaced them: for what blocks, and for what must not starve.

The only file of a download that knows gevent; the others call these functions and behave the same in all pools.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any

Run = Callable[[Callable[[], None]], None]  # calls its argument, here or in a thread, and waits until that is over


def in_place(work: Callable[[], None]) -> None:
    """The ``Run`` where the caller has a process or a thread to itself."""
    work()


def in_gevent() -> bool:
    """Whether this process runs on patched sockets."""
    if "gevent.monkey" not in sys.modules:
        return False
    from gevent import monkey  # noqa: PLC0415 - the other pools never load gevent

    return bool(monkey.is_module_patched("socket"))


def native(module: str, name: str) -> Any:
    """A function of the standard library as it was before gevent's patches, for code that runs in a native thread."""
    if in_gevent():
        from gevent import monkey  # noqa: PLC0415

        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


def start_native_thread(name: str, target: Callable[[], None]) -> None:
    """Run ``target`` in a thread of the operating system, which ends with the process.

    Under gevent ``threading.Thread`` is a greenlet, and a job that computes would starve it.
    """
    if in_gevent():
        native("_thread", "start_new_thread")(target, ())
    else:
        threading.Thread(target=target, name=name, daemon=True).start()


def native_runner(threads: int = 4) -> Run:
    """A ``Run`` for work that keeps disk and CPU busy, or blocks. Make one per process.

    Processes and threads do it themselves. A greenlet would hold up all the others: with four fast downloads the hub
    is 90 to 440 ms late in the median when pieces are written and hashed inline, 0.5 ms when threads do that: a socket
    that always has bytes never lets its greenlet wait. The threads are our own: those of the hub also resolve names.

    A greenlet that is killed meanwhile ends when its thread is done, so nothing that the thread uses is closed before.
    Work that has not begun by then never does.
    """
    if not in_gevent():
        return in_place
    from gevent.threadpool import ThreadPool  # noqa: PLC0415

    pool = ThreadPool(threads)

    def run(work: Callable[[], None]) -> None:
        met: list[BaseException] = []

        def errand() -> None:
            try:
                if not met:
                    work()
            except Exception as error:  # left in the thread, the hub would print it as an accident
                met.append(error)

        done = pool.spawn(errand)
        while not done.ready():
            try:
                done.wait()
            except BaseException as kill:
                met.insert(0, kill)
        if met:
            raise met.pop(0)

    return run
