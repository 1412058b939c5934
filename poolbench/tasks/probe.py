"""In the worker under test, by ``-I poolbench.tasks.probe``: points its app to the private broker, and notes.

Notes are lines of JSON in ``FOLDER/PID.jsonl``; moments are CLOCK_MONOTONIC, which all processes of a machine share,
shifted to the epoch by the same seconds in each:

    ready     a worker consumes; with the addresses that it uses and that are not ours
    received  its main process has a job's message
    begins, ends, fails    of a job, with executor and state
    sends     a running task sent another one: it stays in the private broker, and nothing runs it
    reaches   something asked for an address; ok: it was let through

Imports nothing heavy: it is part of what is measured.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from pathlib import Path
from typing import Any

from celery import signals
from celery._state import get_current_app, get_current_task
from celery.app.task import Task

from poolbench.tasks.fenced import SETTINGS, note
from poolbench.tasks.lateness import keep_probing
from poolbench.tasks.private import is_at, point, strangers

_FOLDER, _BROKER, _RESULTS = Path(SETTINGS["folder"]), SETTINGS["broker"], SETTINGS["results"]

_looked: set[int] = set()  # processes whose addresses were looked at


def _insist(app: Any) -> None:
    """End this process if the app is about to use an address that is not the private one."""
    if found := strangers(app, _BROKER, _RESULTS):
        note("stranger", strangers=found)
        os._exit(78)


# -- a job


def _green() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("threading"))


if _GREEN := _green():
    import gevent


def _executor(task: Any) -> dict[str, object]:
    """Under gevent jobs run in the main thread, whose id is that of the process."""
    greenlet = getattr(gevent.getcurrent(), "minimal_ident", None) if _GREEN else None
    thread = os.getpid() if _GREEN else threading.get_native_id()
    return {"worker": str(task.request.hostname), "thread": thread, "greenlet": greenlet}


@signals.task_received.connect(weak=False)  # type: ignore[untyped-decorator]
def _received(request: Any, **_: object) -> None:
    note("received", id=request.id)


@signals.task_prerun.connect(weak=False)  # type: ignore[untyped-decorator]
def _begins(task_id: str, task: Any, **_: object) -> None:
    if os.getpid() not in _looked:
        _insist(task.app)  # a child may have been told otherwise since it was forked
        _looked.add(os.getpid())
    note("begins", id=task_id, **_executor(task))


@signals.task_postrun.connect(weak=False)  # type: ignore[untyped-decorator]
def _ends(task_id: str, retval: object = None, state: str | None = None, **_: object) -> None:
    if inspect.iscoroutine(retval):
        retval.close()
        note("fails", id=task_id, error="NeverAwaited", reason="an async def task returns a coroutine that never runs")
    note("ends", id=task_id, state=state)


@signals.task_failure.connect(weak=False)  # type: ignore[untyped-decorator]
def _fails(task_id: str, exception: BaseException, **_: object) -> None:
    """In the process that ran it; of one that died, in the main process."""
    note("fails", id=task_id, error=type(exception).__name__, reason=str(exception)[:300])


@signals.before_task_publish.connect(weak=False)  # type: ignore[untyped-decorator]
def _sends(sender: Any = None, headers: Any = None, **_: object) -> None:
    task = get_current_task()
    if task and (headers or {}).get("id") != task.request.id:  # else it is a retry
        note("sends", by=task.name, task=str(sender))


_retry, _RETRY = Task.retry, inspect.signature(Task.retry)


def _capped(self: Any, *args: Any, **options: Any) -> Any:
    given = _RETRY.bind(self, *args, **options)
    wanted = given.arguments.get("max_retries")
    wanted = self.max_retries if wanted is None else wanted
    most = SETTINGS["retries"]
    given.arguments["max_retries"] = most if wanted is None else min(wanted, most)
    return _retry(*given.args, **given.kwargs)


# -- the worker


@signals.celeryd_after_setup.connect(weak=False)  # type: ignore[untyped-decorator]
def _before_connecting(instance: Any, **_: object) -> None:
    _insist(instance.app)


@signals.worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _child_ready(**_: object) -> None:
    keep_probing(_FOLDER)


@signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
def _ready(sender: Any, **_: object) -> None:
    used = sender.connection
    also = [] if is_at(used, _BROKER) else [f"the consumer's connection is {used.as_uri()}"]
    if not type(sender.pool).__module__.endswith("prefork"):
        keep_probing(_FOLDER)
    note("ready", strangers=[*strangers(sender.app, _BROKER, _RESULTS), *also])


def _install(app: Any) -> None:
    Task.retry = _capped
    point(app, _BROKER, _RESULTS)
    _insist(app)
    # Also where the project forbids queues that it did not declare: what its tasks send elsewhere must wait there.
    app.amqp.queues.create_missing = True
    app.amqp.queues.select([SETTINGS["queue"]])


_install(get_current_app())
