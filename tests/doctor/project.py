"""A Celery project as anybody would write it, sick or healthy by its environment. It imports nothing of ours."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from celery import Celery, signals

app = Celery("project", broker=os.environ["DOCTOR_BROKER"])
app.conf.update(json.loads(os.environ["DOCTOR_CONF"]))


@app.task(name="project.sleep")
def sleep(seconds: float) -> None:
    time.sleep(seconds)


def _write(line: str) -> None:
    """In one write, so that lines are whole whoever writes."""
    with Path(os.environ["DOCTOR_NOTES"]).open("a") as file:
        file.write(f"{line} {time.time()}\n")


@app.task(name="project.note")
def note(name: str, seconds: float = 0.0) -> None:
    """Writes down when it began, and how it ended."""
    _write(f"{name} began")
    try:
        time.sleep(seconds)
    except BaseException as error:
        _write(f"{name} {type(error).__name__}")
        raise
    _write(f"{name} ended")


@app.task(name="project.block")
def block(seconds: float) -> None:
    """C code that lets nobody else run in its thread, 0.7 s at a time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        while time.monotonic() - began < 0.7:
            hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 50_000)
        time.sleep(0.05)


@app.task(name="project.two_sockets")
def two_sockets(seconds: float) -> None:
    pair = socket.socketpair()
    time.sleep(seconds)
    for each in pair:
        each.close()


@app.task(name="project.patched")
def patched() -> None:
    from gevent import monkey

    _write(f"patched {monkey.is_module_patched('socket')}")


if os.environ.get("DOCTOR_SICK"):

    @app.task(name="project.coroutine")
    async def coroutine() -> None:
        pass

    @app.task(name="project.backoff", bind=True, retry_backoff=1)
    def backoff(self: Any) -> None:
        raise self.retry()

    @app.task(name="project.unserved", queue="nobody")
    def unserved() -> None:
        pass


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    Path(os.environ["DOCTOR_READY"]).touch()
