"""Balances the books from outside: files on disk, the origin's access log, and what the subject itself says."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from chaos.mix import Planned
from chaos.report import Books, Work
from chaos.subject import Ended
from chaos.witness import Look, look

PARTIAL = ".partial"  # the folder of temp files
_EXAMPLES = 20


def balance(
    jobs: Sequence[Planned],
    ended: Mapping[str, Ended],
    downloads: Path,
    first: Mapping[str, Look | None],
    left: tuple[dict[str, int], tuple[str, ...]],
) -> Books:
    """
    Args:
        first: how each job's file looked when it was first seen to be done.
        left: what is left in Redis, and what of it must not be.
    """
    states = Counter(ended[job.id].state for job in jobs)
    done = {f"{job.id.rpartition('.')[0]}/{job.filename}": job for job in jobs if ended[job.id].state == "done"}
    found = set(_names(downloads))
    temp = set(temp_files(downloads))
    bad = {
        "lost": [job.id for job in jobs if ended[job.id].state is None],
        "doubled": [job.id for job in jobs if ended[job.id].successes > 1],
        "wrong files": [job.id for name, job in done.items() if not _whole(downloads / name, job)],
        "changed files": [
            job.id for name, job in done.items() if job.id in first and first[job.id] != look(downloads / name)
        ],
        "strange files": sorted(found - temp - done.keys()),
        "temp files": sorted(temp),
        "failed": [job.id for job in jobs if ended[job.id].state == "failed"],
    }
    return Books(
        submitted=len(jobs),
        done=states["done"],
        failed=states["failed"],
        cancelled=states["cancelled"],
        lost=len(bad["lost"]),
        doubled=len(bad["doubled"]),
        wrong_files=len(bad["wrong files"]),
        changed_files=len(bad["changed files"]),
        strange_files=len(bad["strange files"]),
        temp_files=len(bad["temp files"]),
        leftovers=left[0],
        not_allowed=left[1],
        examples={what: ids[:_EXAMPLES] for what, ids in bad.items() if ids},
    )


def work(jobs: Sequence[Planned], ended: Mapping[str, Ended], access_log: Path) -> Work:
    """What was done more often than once."""
    whole = whole_fetches(access_log)
    return Work(
        attempts=sum(len(each.starts) for each in ended.values()),
        attempts_lost=sum(each.lost for each in ended.values()),
        handed_back=sum(each.handed_back for each in ended.values()),
        fetched_whole=sum(whole.values()),
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
    for file in folder.rglob("*"):
        if not file.is_dir():
            yield str(file.relative_to(folder))


def _whole(file: Path, job: Planned) -> bool:
    """Whether the file has the bytes that the origin's content has, computed anew."""
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return len(content) == job.size and hashlib.sha256(content).hexdigest() == job.sha256
