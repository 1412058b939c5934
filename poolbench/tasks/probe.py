"""In the worker under test, by ``-I poolbench.tasks.probe``: points its app to the private broker, notes, fences.

Notes are lines of JSON in ``FOLDER/PID.jsonl``; moments are CLOCK_MONOTONIC, which all processes of a machine share:

    ready     a worker consumes; with the addresses that it uses and that are not ours
    received  its main process has a job's message
    begins, ends, fails    of a job, with executor, state, seconds of CPU of its thread (not under gevent)
    sends     a running task sent another one: it stays in the private broker, and nothing runs it
    reaches   something asked for an address; ok: it was let through

The fence is an audit hook: what is neither loopback nor allowed is refused before a packet leaves. It sees Python's
sockets alone; for C libraries there is ``namespace``. Imports nothing heavy: it is part of what is measured.
"""

from __future__ import annotations

import errno
import functools
import inspect
import ipaddress
import json
import os
import socket
import sys
import threading
import time
from array import array
from pathlib import Path
from typing import Any

from celery import signals
from celery._state import get_current_app, get_current_task
from celery.app.task import Task

from poolbench.tasks.redirect import is_at, point, strangers

PROBE_EVERY = 0.02  # seconds between two looks at the scheduling latency
_NOTES = 5  # looks per note
_SETTINGS = json.loads(os.environ["POOLBENCH_PROBE"])
_FOLDER, _BROKER, _RESULTS = Path(_SETTINGS["notes"]), _SETTINGS["broker"], _SETTINGS["results"]
_ALLOWED = {(host, port) for host, port in _SETTINGS["allowed"]}  # port None: every one
_RETRIES = int(_SETTINGS["retries"])
_QUEUE = _SETTINGS["queue"]
_OURS = tuple(_SETTINGS["broker_at"])  # host, port
_NAMES = {"", "localhost", socket.gethostname()}

_files: dict[int, int] = {}
_begun: dict[str, float] = {}  # seconds of CPU of its thread, by job id
_looked: set[int] = set()  # processes whose addresses were looked at


def _note(kind: str, **what: object) -> None:
    pid = os.getpid()
    if pid not in _files:
        _files[pid] = os.open(_FOLDER / f"{pid}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    line = {"kind": kind, "at": time.monotonic(), "pid": pid, **what}
    os.write(_files[pid], (json.dumps(line) + "\n").encode())


def _insist(app: Any) -> None:
    """End this process if the app is about to use an address that is not the private one."""
    if found := strangers(app, _BROKER, _RESULTS):
        _note("stranger", addresses=found)
        os._exit(78)


# -- the fence


_NETWORK = (socket.AF_INET, socket.AF_INET6)
_WATCHED = {
    "socket.connect", "socket.sendto", "socket.sendmsg",
    "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
}  # fmt: skip


@functools.lru_cache(4096)
def _may(host: str, port: int | None) -> bool:
    """Args: port is None for a name that is looked up, -1 for an address whose name is."""
    if host in _NAMES or (host, port) in _ALLOWED or (host, None) in _ALLOWED:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return port is None and any(host == name for name, _ in _ALLOWED)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified or port is None  # a number needs no look-up


def _fence(event: str, args: tuple[Any, ...]) -> None:
    if event not in _WATCHED:
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if args[0].family not in _NETWORK or not isinstance(args[1], tuple):
            return  # within this machine, or connected already
        host, port = args[1][0], args[1][1]
    else:
        host, port = args[0], -1 if event == "socket.gethostbyaddr" else None
    host = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
    allowed = _may(host, port)
    if (allowed and port in (None, -1)) or (host, port) == _OURS:
        return
    task = get_current_task()
    to = host if port in (None, -1) else f"{host}:{port}"
    _note("reaches", by=task.name if task else None, to=to, ok=allowed)
    if not allowed:
        raise PermissionError(errno.EACCES, f"poolbench: {to} may not be reached; allow it with --allow {to}")


# -- who runs a job


def _green() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("threading"))


_GREEN = _green()
if _GREEN:
    import gevent
    from gevent.monkey import get_original

    _native_id = get_original("threading", "get_native_id")
else:
    _native_id = threading.get_native_id


def _executor(task: Any) -> dict[str, object]:
    greenlet = getattr(gevent.getcurrent(), "minimal_ident", None) if _GREEN else None
    return {"worker": str(task.request.hostname), "thread": _native_id(), "greenlet": greenlet}


@signals.task_received.connect(weak=False)  # type: ignore[untyped-decorator]
def _received(request: Any, **_: object) -> None:
    _note("received", id=request.id)


@signals.task_prerun.connect(weak=False)  # type: ignore[untyped-decorator]
def _begins(task_id: str, task: Any, **_: object) -> None:
    if os.getpid() not in _looked:
        _insist(task.app)  # a child may have been told otherwise since it was forked
        _looked.add(os.getpid())
    _note("begins", id=task_id, **_executor(task))
    _begun[task_id] = time.thread_time()


@signals.task_postrun.connect(weak=False)  # type: ignore[untyped-decorator]
def _ends(task_id: str, retval: object = None, state: str | None = None, **_: object) -> None:
    used = time.thread_time() - _begun.pop(task_id, 0.0)
    if inspect.iscoroutine(retval):
        retval.close()
        _note("fails", id=task_id, error="NeverAwaited", reason="an async def task returns a coroutine that never runs")
    _note("ends", id=task_id, state=state, cpu=None if _GREEN else used)


@signals.task_failure.connect(weak=False)  # type: ignore[untyped-decorator]
def _fails(task_id: str, exception: BaseException, **_: object) -> None:
    """In the process that ran it; of one that died, in the main process."""
    _note("fails", id=task_id, error=type(exception).__name__, reason=str(exception)[:300])


@signals.before_task_publish.connect(weak=False)  # type: ignore[untyped-decorator]
def _sends(sender: Any = None, headers: Any = None, **_: object) -> None:
    task = get_current_task()
    if task and (headers or {}).get("id") != task.request.id:  # else it is a retry
        _note("sends", by=task.name, task=str(sender))


_retry = Task.retry


def _capped(  # noqa: PLR0917 - Celery's own signature
    self: Any,
    args: Any = None,
    kwargs: Any = None,
    exc: Any = None,
    throw: bool = True,
    eta: Any = None,
    countdown: Any = None,
    max_retries: int | None = None,
    **options: Any,
) -> Any:
    wanted = self.max_retries if max_retries is None else max_retries
    most = _RETRIES if wanted is None else min(wanted, _RETRIES)
    return _retry(self, args, kwargs, exc, throw, eta, countdown, most, **options)


# -- scheduling latency, as ``sampler`` reads it: pairs of doubles in FOLDER/PID


def _keep_probing() -> None:
    """A thread, or under gevent a greenlet, so that it waits for what jobs wait for."""
    file = Path(_SETTINGS["latency"]) / str(os.getpid())
    threading.Thread(target=_probe, args=(file,), name="latency", daemon=True).start()


def _probe(file: Path) -> None:
    with file.open("ab", buffering=0) as notes:
        pairs = array("d")
        moment = time.monotonic() + PROBE_EVERY
        while True:
            time.sleep(max(0.0, moment - time.monotonic()))
            now = time.monotonic()
            while moment <= now:  # each moment that went by, or one long wait would count as one short
                pairs.extend((moment, now - moment))
                moment += PROBE_EVERY
            if len(pairs) >= 2 * _NOTES:
                notes.write(pairs.tobytes())
                pairs = array("d")


@signals.worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _child(**_: object) -> None:
    _keep_probing()


@signals.celeryd_after_setup.connect(weak=False)  # type: ignore[untyped-decorator]
def _before_connecting(instance: Any, **_: object) -> None:
    _insist(instance.app)


@signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
def _ready(sender: Any, **_: object) -> None:
    used = sender.connection
    also = [] if is_at(used, _BROKER) else [f"the consumer's connection is {used.as_uri()}"]
    if not type(sender.pool).__module__.endswith("prefork"):
        _keep_probing()
    _note("ready", strangers=[*strangers(sender.app, _BROKER, _RESULTS), *also])


def _install(app: Any) -> None:
    sys.addaudithook(_fence)
    Task.retry = _capped
    point(app, _BROKER, _RESULTS)
    _insist(app)
    # Also where the project forbids queues that it did not declare: what its tasks send elsewhere must wait there.
    app.amqp.queues.create_missing = True
    app.amqp.queues.select([_QUEUE])


_install(get_current_app())
