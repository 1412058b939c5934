"""What a comparison runs: deployments of jobs, planned before the first one starts.

A scenario is a function from ``Options`` to deployments, in the order in which they run one after the other.
Each names its jobs completely: the same options give the same plan, whichever pools are looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ledger.jobs import Pool

# The files of the tutorial's three programs.
ARTICLE_FILES: Mapping[Pool, tuple[str, str]] = {
    Pool.PREFORK: ("Advanced_Python_Guide.pdf", "Demo_Video.mp4"),
    Pool.THREADS: ("Python_Development_Handbook.pdf", "Sample_Movie.avi"),
    Pool.GEVENT: ("Comprehensive_Python_Manual.pdf", "Presentation_Video.mp4"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may choose about a scenario."""

    seed: int
    size: int = 384 * 1024  # bytes of each file
    pools: tuple[Pool, ...] = tuple(Pool)
    seconds: tuple[int, int] = (5, 10)  # shortest and longest download, whole seconds
    serial: bool = True  # also one job at a time, for the sum


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One file to download from the origin."""

    filename: str
    path: str  # on the origin, with its query
    seconds: float  # for which the origin paces it


@dataclass(frozen=True, slots=True)
class Deployment:
    """Jobs for one pool, submitted together or one at a time."""

    name: str
    pool: Pool
    jobs: tuple[PlannedJob, ...]
    one_at_a_time: bool = False


def article(options: Options) -> list[Deployment]:
    """The tutorial: two files per pool, each taking a random whole number of seconds; then the first two again,
    one at a time."""
    dice = random.Random(options.seed)
    # All dice fall in one order, so that --pools and --no-serial do not change what a seed means.
    jobs = {
        pool: tuple(paced(name, dice.randint(*options.seconds), options.size) for name in names)
        for pool, names in ARTICLE_FILES.items()
    }
    deployments = [Deployment(pool.value, pool, jobs[pool]) for pool in options.pools]
    if options.serial and options.pools:
        first = options.pools[0]
        deployments.append(Deployment("serial", first, jobs[first], one_at_a_time=True))
    return deployments


def paced(name: str, seconds: int, size: int) -> PlannedJob:
    return PlannedJob(name, f"/paced/{seconds}/{quote(name)}?size={size}", seconds)


SCENARIOS: Mapping[str, Callable[[Options], list[Deployment]]] = {"article": article}
