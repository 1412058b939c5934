"""A Celery project: its app, the calls of its tasks that are measured, and those that wait in a queue."""

from __future__ import annotations

import base64
import difflib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from poolbench.runfiles import PoolbenchError

_SHOWN = 60  # characters of a call's arguments


class ProjectError(PoolbenchError):
    """The project, its tasks or their arguments cannot be used."""


@dataclass(frozen=True, slots=True)
class Call:
    """A task and its arguments."""

    task: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """``fetch`` of ``shop.tasks.fetch``"""
        return self.task.rpartition(".")[2]

    def __str__(self) -> str:
        shown = ", ".join([*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())])
        return f"{self.task}({shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + '...'})"


def load(name: str) -> Any:
    """The app that ``celery -A NAME`` would use, with its tasks; the folder that we are in comes first.

    Raises:
        ProjectError: there is none, or importing it fails.
    """
    from celery import Celery  # noqa: PLC0415 - takes longer than --help
    from celery.app.utils import find_app  # noqa: PLC0415

    sys.path.insert(0, str(Path.cwd()))
    try:
        app = find_app(name)
        if not isinstance(app, Celery):
            raise TypeError(f"{name} is of {type(app)}; name it: module:app")
        app.loader.import_default_modules()
        app.finalize()
    except (Exception, SystemExit) as error:
        raise ProjectError(
            f"expected a Celery app for -A {name}, as `celery -A {name} worker` finds it in {Path.cwd()};"
            f" got {type(error).__name__}: {error}"
        ) from error
    return app


def read_calls(path: Path | None, task: str | None) -> list[Call]:
    """
    Args:
        path: a line per call: ``["a", 1]``, ``{"args": [...], "kwargs": {...}}``, or the same with a ``"task"``.
        task: of lines that name none.

    Raises:
        ProjectError: a line is something else.
    """
    if path is None:
        return [Call(task)] if task else []
    lines = enumerate(path.read_text().splitlines(), 1)
    found = [_call(line, task, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not found:
        raise ProjectError(f"expected at least one call in {path}, got none")
    return found


def _call(line: str, task: str | None, where: str) -> Call:
    try:
        value = json.loads(line)
        found = Call(**{"task": task, **(value if isinstance(value, dict) else {"args": value})})
        for name, kind in (("task", str), ("args", list), ("kwargs", dict)):
            if not isinstance(getattr(found, name), kind):
                raise TypeError(f"{name} is {getattr(found, name)!r}"[:_SHOWN])
    except (ValueError, TypeError) as error:
        expected = (
            '["an", "argument"] or {"task": "name", "args": [...], "kwargs": {...}}, and a task here or by --task'
        )
        raise ProjectError(f"{where}: expected {expected}; got {line[:80]}: {error}") from error
    return found


def check_tasks(app: Any, calls: Sequence[Call]) -> None:
    """
    Raises:
        ProjectError: the project has no such task, or the arguments do not fit.
    """
    for call in calls:
        if call.task not in app.tasks:
            own = sorted(name for name in app.tasks if not name.startswith("celery."))
            near = difflib.get_close_matches(call.task, own, 3) or own[:5]
            raise ProjectError(f"expected a task of the project, got {call.task!r}; it has {', '.join(near) or 'none'}")
        task = app.tasks[call.task]
        try:
            if task.typing:
                task.__header__(*call.args, **call.kwargs)
        except TypeError as error:
            raise ProjectError(f"{call}: {error}") from error


def queues(app: Any, calls: Sequence[Call]) -> str:
    """Where the project sends these tasks, as after ``-Q``."""
    routed = [app.amqp.router.route({}, call.task).get("queue") or app.conf.task_default_queue for call in calls]
    return ",".join(sorted({str(getattr(queue, "name", queue)) for queue in routed}))


# -- what waits in a queue


def record(app: Any, queue: str, most: int) -> tuple[list[Call], int, int]:
    """The oldest calls that wait in a queue on Redis; nothing is removed or changed.

    Returns:
        The calls; messages in the queue; those that were looked at and cannot be read: no JSON, or not Celery's.

    Raises:
        ProjectError: the broker is not Redis, or does not answer.
    """
    with app.connection_for_read() as connection:
        if connection.transport.driver_type != "redis":
            raise ProjectError(
                f"expected a Redis broker, got {connection.as_uri()}: only there a queue can be read and stay as it is"
            )
        try:
            channel = connection.default_channel
            client, prefix = channel.client, getattr(channel, "global_keyprefix", "")
            keys = [channel._q_for_pri(queue, step) for step in channel.priority_steps]
            waiting = sum(client.llen(key) for key in keys)
            # kombu's client knows no LRANGE: what it puts before the keys of other commands is missing there.
            raw = [one for key in keys for one in reversed(client.lrange(prefix + key, -most, -1))]
        except connection.connection_errors as error:
            raise ProjectError(f"the broker {connection.as_uri()} does not answer: {error}") from error
    read = [_recorded(each) for each in raw[:most]]
    return [each for each in read if each], waiting, read.count(None)


def _recorded(raw: bytes | str) -> Call | None:
    try:
        message = json.loads(raw)
        body = message["body"]
        if message["headers"].get("compression") or message["content-type"] != "application/json":
            return None
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        args, kwargs, _ = json.loads(body)
        return Call(message["headers"]["task"], list(args), dict(kwargs))
    except (ValueError, KeyError, TypeError):
        return None


def write_calls(path: Path, calls: Sequence[Call]) -> None:
    """Readable by its owner alone: arguments may hold what others must not see."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(json.dumps(asdict(call)) + "\n" for call in calls)
