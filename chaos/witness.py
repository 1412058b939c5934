"""Looks on while the load lasts: which files had which inode when their batch was first seen to be finished."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from redis.exceptions import RedisError

from chaos.mix import Planned

Look = tuple[int, int, int]  # inode, size, time of the last write in ns
EVERY = 0.5  # seconds


def look(file: Path) -> Look | None:
    try:
        stat = file.stat(follow_symlinks=False)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class Witness:
    """Args:
    finished: names of the batches that are over, as the subject has it.
    note: the subject's own memory.
    """

    def __init__(
        self,
        downloads: Path,
        batches: Callable[[], Mapping[str, Sequence[Planned]]],
        finished: Callable[[Mapping[str, Sequence[Planned]]], set[str]],
        note: Callable[[], None],
    ) -> None:
        self.first: dict[str, Look | None] = {}  # by job
        self._downloads, self._batches, self._finished, self._note = downloads, batches, finished, note
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            with contextlib.suppress(RedisError):  # away: at the next look
                self._note()
                self._look()

    def _look(self) -> None:
        batches = self._batches()
        for name in self._finished(batches) - self._seen:
            self.first |= {job.id: look(self._downloads / name / job.filename) for job in batches[name]}
            self._seen.add(name)
