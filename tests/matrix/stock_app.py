"""A Celery app as anybody would write it, whose bodies write down when they begin and how they end.

Started by ``tests.matrix.stock``; everything it is told is in its environment. It imports nothing of Downpour.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, signals

app = Celery("stock", broker=os.environ["MATRIX_BROKER"])
app.conf.update(json.loads(os.environ["MATRIX_CONF"]))


def _mark(what: str, name: str) -> None:
    """One line in one write: whole, whoever else writes, and there even if the process dies in the next moment."""
    line = f"{time.time():.3f} {what} {name} {os.getpid()}\n"
    file = os.open(os.environ["MATRIX_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@contextmanager
def _body(name: str) -> Iterator[None]:
    _mark("start", name)
    try:
        yield
    except BaseException as error:
        _mark(type(error).__name__, name)
        raise
    _mark("end", name)


@app.task(name="sleep")
def sleep(name: str, seconds: float) -> None:
    with _body(name):
        time.sleep(seconds)


@app.task(name="burn")
def burn(name: str, seconds: float) -> None:
    """Pure Python that never waits for anything."""
    with _body(name):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sum(range(1000))


@app.task(name="die")
def die(name: str) -> None:
    """As when the kernel kills a process for want of memory."""
    with _body(name):
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="coroutine")
async def coroutine(name: str) -> None:
    with _body(name):
        pass


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    Path(os.environ["MATRIX_READY"]).touch()


@signals.task_success.connect
def _succeeded(sender: Any, **_: Any) -> None:
    _mark("success", sender.request.id)
