"""``python -m poolbench.tasks.fenced …`` is ``celery …``, behind the fence before a line of the project is imported.

Here is also how the workers under test write notes. Nothing of Celery may be imported before Celery has patched
itself for gevent.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from poolbench.tasks.private import fence

SETTINGS: dict[str, Any] = json.loads(os.environ["POOLBENCH_PROBE"])
_files: dict[int, int] = {}  # by pid


def note(kind: str, **what: object) -> None:
    """Write a line of JSON to ``FOLDER/PID.jsonl``; see ``probe``."""
    pid = os.getpid()
    if pid not in _files:
        _files[pid] = os.open(f"{SETTINGS['folder']}/{pid}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    line = {"kind": kind, "at": time.monotonic() + SETTINGS["epoch"], "pid": pid, **what}
    os.write(_files[pid], (json.dumps(line) + "\n").encode())


def _reaches(to: str, allowed: bool) -> None:
    from celery._state import get_current_task  # noqa: PLC0415

    if to != SETTINGS["server"]:
        task = get_current_task()
        note("reaches", by=task.name if task else "", to=to, ok=allowed)


if __name__ == "__main__":
    fence(map(tuple, SETTINGS["allowed"]), _reaches)
    from celery.__main__ import main

    main()
