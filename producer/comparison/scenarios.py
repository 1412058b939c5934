"""What a comparison runs: jobs, planned before the first one starts. A table of recipes.

The same seed and number give the same jobs, to every contestant and whichever contestants there are. One exception, the
tutorial's: in ``article`` each pool has files of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from ledger.jobs import Pool
from producer.comparison.experiment import Bound

KIB, MIB = 2**10, 2**20

# The files of the tutorial's three programs.
ARTICLE_FILES: Mapping[Pool, tuple[str, str]] = {
    Pool.PREFORK: ("Advanced_Python_Guide.pdf", "Demo_Video.mp4"),
    Pool.THREADS: ("Python_Development_Handbook.pdf", "Sample_Movie.avi"),
    Pool.GEVENT: ("Comprehensive_Python_Manual.pdf", "Presentation_Video.mp4"),
}
_PAGES = 16  # different ones; the origin remembers as many, so making them is not what is measured


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may choose about a scenario."""

    seed: int
    jobs: int = 2
    size: int = 384 * KIB  # bytes of each file, where they are all alike
    seconds: tuple[int, int] = (5, 10)  # shortest and longest download of the article, whole seconds


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One file to download from the origin."""

    filename: str
    path: str  # on the origin, with its query
    seconds: float | None = None  # for which the origin paces it
    step: str | None = None
    weight: float = 0.0  # to choose a sample by: about how much of a job it is


@dataclass(frozen=True, slots=True)
class Recipe:
    """A scenario."""

    name: str
    title: str
    bound: Bound
    jobs: int  # by default
    serial: int  # how many of them the yardstick runs at the most
    size: int  # bytes of each file by default; 0: they have sizes of their own
    plan: Callable[[Options, Pool], Sequence[PlannedJob]]
    repeat: int = 3


def article(options: Options, pool: Pool) -> Sequence[PlannedJob]:
    """The tutorial: two files per pool, each taking a random whole number of seconds."""
    dice = random.Random(options.seed)
    # All dice fall in one order, so that --pools and --no-serial do not change what a seed means.
    plans = {
        each: tuple(paced(name, dice.randint(*options.seconds), options.size) for name in names)
        for each, names in ARTICLE_FILES.items()
    }
    return plans[pool]


def slow(options: Options, _pool: Pool) -> Sequence[PlannedJob]:
    dice = random.Random(options.seed)
    return [paced(f"slow-{n}.bin", round(dice.uniform(0.2, 0.8), 2), options.size) for n in range(options.jobs)]


def small(options: Options, _pool: Pool) -> Sequence[PlannedJob]:
    return [_file(f"small-{options.seed}-{n}.bin", options.size) for n in range(options.jobs)]


def large(options: Options, _pool: Pool) -> Sequence[PlannedJob]:
    return [_file(f"large-{options.seed}-{n}.bin", options.size) for n in range(options.jobs)]


def cpu(options: Options, _pool: Pool) -> Sequence[PlannedJob]:
    return [_page(options.seed, n, 4000) for n in range(options.jobs)]


def mixed(options: Options, _pool: Pool) -> Sequence[PlannedJob]:
    """Of twenty jobs ten are small, five slow, four pages to parse, one is large."""
    dice = random.Random(options.seed)
    jobs = []
    for n in range(options.jobs):
        kind = n % 20
        if kind < 10:
            jobs.append(_file(f"small-{n}.bin", 4 * KIB))
        elif kind < 15:
            jobs.append(paced(f"slow-{n}.bin", round(dice.uniform(0.2, 0.8), 2), 4 * KIB))
        elif kind < 19:
            jobs.append(_page(options.seed, n, 1000))
        else:
            jobs.append(_file(f"large-{n}.bin", 16 * MIB))
    dice.shuffle(jobs)
    return jobs


def paced(name: str, seconds: float, size: int) -> PlannedJob:
    return PlannedJob(name, f"/paced/{seconds:g}/{quote(name)}?size={size}", seconds, weight=seconds)


def _file(name: str, size: int) -> PlannedJob:
    return PlannedJob(name, f"/files/{quote(name)}?size={size}", weight=size / 50e6)


def _page(seed: int, n: int, links: int) -> PlannedJob:
    number = seed % 100_000 * _PAGES + n % _PAGES
    return PlannedJob(f"page-{n}.html", f"/pages/{number}.html?links={links}", step="links", weight=links / 50_000)


def sample(planned: Sequence[PlannedJob], most: int) -> list[int]:
    """The numbers of so many jobs, spread evenly from the lightest to the heaviest: on average a job like the rest."""
    if len(planned) <= most:
        return list(range(len(planned)))
    ordered = sorted(range(len(planned)), key=lambda n: (planned[n].weight, n))
    step = len(ordered) / most
    return sorted(ordered[int((k + 0.5) * step)] for k in range(most))


SCENARIOS: Mapping[str, Recipe] = {
    each.name: each
    for each in (
        Recipe(
            "article",
            "the tutorial: two files that take 5 to 10 seconds each",
            Bound.LATENCY, 2, 2, 384 * KIB, article, repeat=1,
        ),
        Recipe("slow", "small files from a server that takes 0.2 to 0.8 s for each",
               Bound.LATENCY, 120, 12, 4 * KIB, slow),
        Recipe("small", "many small files", Bound.OVERHEAD, 1000, 100, 4 * KIB, small),
        Recipe("large", "a few large files, each hashed", Bound.THROUGHPUT, 12, 4, 32 * MIB, large),
        Recipe("cpu", "pages whose links are extracted in pure Python, which holds the GIL",
               Bound.CPU, 60, 15, 0, cpu),
        Recipe("mixed", "small, slow and large files, and pages to parse", Bound.MIXED, 200, 40, 0, mixed),
    )
}  # fmt: skip
