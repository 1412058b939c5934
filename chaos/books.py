"""Balances the books from outside: files on disk, the origin's access log, and what the subject itself says.

While the load lasts a witness notes which inode each file had when its batch was first seen to be finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from chaos.mix import PARTIAL, Planned
from chaos.report import Books, Work
from chaos.subject import Ended

Look = tuple[int, int, int]  # inode, size, time of the last write in ns
_LOOK_EVERY = 0.5  # seconds
_EXAMPLES = 20


def balance(
    jobs: Sequence[Planned],
    ended: Mapping[str, Ended],
    downloads: Path,
    first: Mapping[str, Look | None],
    left: tuple[dict[str, int], tuple[str, ...]],
    *,
    malformed: int = 0,
) -> Books:
    """
    Args:
        first: how each job's file looked when it was first seen to be done.
        left: what is left in Redis, and what of it must not be.
        malformed: messages that were put on the queues.
    """
    states = Counter(ended[job.id].state for job in jobs)
    poisoned = {job.id for job in jobs if job.poison and ended[job.id].kind == "poison"}
    done = {f"{job.id.rpartition('.')[0]}/{job.filename}": job for job in jobs if ended[job.id].state == "done"}
    seen = {name: job for name, job in done.items() if job.id in first}
    found, temp = set(_names(downloads)), set(temp_files(downloads))
    bad = {
        "lost": [job.id for job in jobs if ended[job.id].state is None],
        "doubled": [job.id for job in jobs if ended[job.id].successes > 1],
        "wrong_files": [job.id for name, job in done.items() if not _whole(downloads / name, job)],
        "changed_files": [job.id for name, job in seen.items() if first[job.id] != look(downloads / name)],
        "strange_files": sorted(found - temp - done.keys()),
        "temp_files": sorted(temp),
        "escaped": [job.id for job in jobs if job.poison and job.id not in poisoned],
    }
    counts: dict[str, Any] = {what: len(ids) for what, ids in bad.items()}
    failed = [job.id for job in jobs if ended[job.id].state == "failed" and job.id not in poisoned]
    return Books(
        submitted=len(jobs),
        done=states["done"],
        failed=states["failed"],
        poisoned=len(poisoned),
        malformed=malformed,
        cancelled=states["cancelled"],
        **counts,
        leftovers=left[0],
        not_allowed=left[1],
        examples={what: ids[:_EXAMPLES] for what, ids in {**bad, "innocent failed": failed}.items() if ids},
    )


def work(jobs: Sequence[Planned], ended: Mapping[str, Ended], access_log: Path) -> Work:
    """What was done more often than once."""
    whole = whole_fetches(access_log)
    return Work(
        attempts=sum(len(each.starts) for each in ended.values()),
        attempts_lost=sum(each.lost for each in ended.values()),
        handed_back=sum(each.handed_back for each in ended.values()),
        fetched_again=sum(whole[job.target] > 1 for job in jobs),
        failed_kinds=dict(Counter(str(each.kind) for each in ended.values() if each.state == "failed")),
    )


def whole_fetches(access_log: Path) -> Counter[str]:
    """How often the origin sent a file's last byte, by path: whole files, and the rest of resumed ones."""
    whole: Counter[str] = Counter()
    with access_log.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                request = json.loads(line)
                if request["status"] in (200, 206) and not request["aborted"]:
                    whole[request["path"]] += 1
    return whole


def temp_files(downloads: Path) -> Iterator[str]:
    return (name for name in _names(downloads) if name.startswith(PARTIAL) or name.endswith(".part"))


def _names(folder: Path) -> Iterator[str]:
    return (str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir())


def _whole(file: Path, job: Planned) -> bool:
    """Whether the file has the bytes that the origin's content has, computed anew."""
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return len(content) == job.size and hashlib.sha256(content).hexdigest() == job.sha256


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
        while not self._stop.wait(_LOOK_EVERY):
            with contextlib.suppress(RedisError):  # away: at the next look
                self._note()
                self._look()

    def _look(self) -> None:
        batches = self._batches()
        for name in self._finished(batches) - self._seen:
            self.first |= {job.id: look(self._downloads / name / job.filename) for job in batches[name]}
            self._seen.add(name)
