"""Temp files of jobs that ended while nobody held them (poison, a cancel of what was handed back) are removed here.

Whoever holds a job removes its temp files before it closes the record; a holder that died cannot, and the sweep
never touches the disk. So each worker looks at the folder from time to time.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from download.tempfile import FOLDER
from ledger.ledger import Ledger
from ledger.redis_client import PerProcess, connect
from ledger.settings import Settings
from worker.background import keep

EVERY = 30.0  # seconds
_STRANGE = 24 * 3600.0  # seconds after which a file goes whose job this ledger does not know: another stack may
_NAME = re.compile(r"(?P<job>.+\.\d+)\.\d+\.part(\.json(\.new)?)?")


def tidy(downloads: Path, ledger: Ledger) -> int:
    """Remove what no job will need again; how many files that were."""
    files: dict[str, list[Path]] = {}
    for path in (downloads / FOLDER).glob("*.part*"):
        if match := _NAME.fullmatch(path.name):
            files.setdefault(match["job"], []).append(path)
    states = {record.id: record.state for record in ledger.read(files)}
    removed = 0
    for job, paths in files.items():
        for path in paths:
            with contextlib.suppress(OSError):
                old = time.time() - path.stat().st_mtime > _STRANGE
                if states[job].final if job in states else old:
                    path.unlink()
                    removed += 1
    return removed


def keep_tidy(settings: Settings) -> None:
    """For as long as the process lives."""
    ledger = PerProcess(lambda: Ledger(connect(settings, connections=1), settings.key_prefix))
    keep("janitor", EVERY, lambda: tidy(settings.downloads, ledger()) >= 0)
