"""A Celery project as anybody would write it, whose tasks note what becomes of them. It imports nothing of ours.

Started by ``tests.celery_workers``; everything it is told is in its environment. With PROJECT_SICK it also has tasks
that a healthy project has not.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, signals

app = Celery("project", broker=os.environ["PROJECT_BROKER"])
app.conf.update(json.loads(os.environ["PROJECT_CONF"]))


def _note(what: str, name: str) -> None:
    """One line in one write: whole, whoever else writes, and there even if the process dies in the next moment."""
    line = f"{time.time():.3f} {os.getpid()} {what} {name}\n"
    file = os.open(os.environ["PROJECT_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@contextmanager
def _body(name: str) -> Iterator[None]:
    _note("start", name)
    try:
        yield
    except BaseException as error:
        _note(type(error).__name__, name)
        raise
    _note("end", name)


@app.task(name="project.sleep")
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@app.task(name="project.note")
def note(name: str, seconds: float = 0.0) -> None:
    with _body(name):
        time.sleep(seconds)


@app.task(name="project.burn")
def burn(name: str, seconds: float) -> None:
    """Pure Python that never waits for anything."""
    with _body(name):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sum(range(1000))


@app.task(name="project.block")
def block(seconds: float) -> None:
    """C code that lets nobody else run in its thread, 0.7 s at a time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        while time.monotonic() - began < 0.7:
            hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 50_000)
        time.sleep(0.05)


@app.task(name="project.die")
def die(name: str) -> None:
    """As when the kernel kills a process for want of memory."""
    with _body(name):
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="project.two_sockets")
def two_sockets(seconds: float) -> None:
    pair = socket.socketpair()
    time.sleep(seconds)
    for each in pair:
        each.close()


@app.task(name="project.patched")
def patched() -> None:
    from gevent import monkey

    _note(str(monkey.is_module_patched("socket")), "patched")


if os.environ.get("PROJECT_SICK"):

    @app.task(name="project.coroutine")
    async def coroutine(name: str) -> None:
        with _body(name):
            pass

    @app.task(name="project.backoff", bind=True, retry_backoff=1)
    def backoff(self: Any) -> None:
        raise self.retry()

    @app.task(name="project.unserved", queue="nobody")
    def unserved() -> None:
        pass


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    Path(os.environ["PROJECT_READY"]).touch()


@signals.task_success.connect
def _succeeded(sender: Any, **_: Any) -> None:
    _note("success", sender.request.id)
