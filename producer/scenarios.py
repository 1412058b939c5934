"""What a comparison runs: jobs, planned before the first one starts. A table of recipes, or a person's manifest.

The same seed and number give the same jobs to every deployment, whichever deployments there are. In ``article``, the
tutorial, only the names of the files differ from pool to pool.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from urllib.parse import quote

import urllib3

from download.validators import repr_sha256
from ledger.jobs import Job
from poolbench.experiment import Deployment, Note, PoolKind, Scenario
from producer.errors import ProducerError

KIB, MIB = 2**10, 2**20

# The files of the tutorial's three programs.
ARTICLE_FILES: Mapping[PoolKind, tuple[str, str]] = {
    PoolKind.PREFORK: ("Advanced_Python_Guide.pdf", "Demo_Video.mp4"),
    PoolKind.THREADS: ("Python_Development_Handbook.pdf", "Sample_Movie.avi"),
    PoolKind.GEVENT: ("Comprehensive_Python_Manual.pdf", "Presentation_Video.mp4"),
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
    jobs: int  # by default
    serial: int  # how many of them the baseline runs at the most
    size: int  # bytes of each file by default; 0: they have sizes of their own
    plan: Callable[[Options, PoolKind], Sequence[PlannedJob]]
    demonstration: bool = False


def article(options: Options, pool: PoolKind) -> Sequence[PlannedJob]:
    """The tutorial: two files per pool, each taking a random whole number of seconds, the same in every pool."""
    dice = random.Random(options.seed)
    return [paced(name, dice.randint(*options.seconds), options.size) for name in ARTICLE_FILES[pool]]


def slow(options: Options, _pool: PoolKind) -> Sequence[PlannedJob]:
    dice = random.Random(options.seed)
    return [paced(f"slow-{n}.bin", round(dice.uniform(0.2, 0.8), 2), options.size) for n in range(options.jobs)]


def alike(name: str, options: Options, _pool: PoolKind) -> Sequence[PlannedJob]:
    return [_file(f"{name}-{options.seed}-{n}.bin", options.size) for n in range(options.jobs)]


def cpu(options: Options, _pool: PoolKind) -> Sequence[PlannedJob]:
    return [_page(options.seed, n, 4000) for n in range(options.jobs)]


def mixed(options: Options, _pool: PoolKind) -> Sequence[PlannedJob]:
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
            2, 2, 384 * KIB, article, demonstration=True,
        ),
        Recipe("slow", "small files from a server that takes 0.2 to 0.8 s for each",
               120, 12, 4 * KIB, slow),
        Recipe("small", "many small files", 1000, 100, 4 * KIB, partial(alike, "small")),
        Recipe("large", "a few large files, each hashed", 12, 4, 32 * MIB, partial(alike, "large")),
        Recipe("cpu", "pages whose links are extracted in pure Python, which holds the GIL",
               60, 15, 0, cpu),
        Recipe("mixed", "small, slow and large files, and pages to parse", 200, 40, 0, mixed),
    )
}  # fmt: skip


# -- what each deployment is given

MANIFEST_SERIAL = 20  # jobs of a manifest that the baseline runs at the most
_WARM_LEAST = 10  # jobs of the warm-up round


@dataclass(frozen=True, slots=True)
class RoundJobs:
    """A deployment's jobs in a round."""

    jobs: Sequence[Job]
    nominal: Sequence[float | None]  # seconds for which the origin paces each


@dataclass(frozen=True, slots=True)
class PlannedWork:
    """What an experiment runs."""

    scenario: Scenario
    shares: Mapping[PoolKind, RoundJobs]  # whole; the same for all pools, but for the names of the article's files
    serial: Sequence[int]  # numbers of the jobs that the baseline runs

    def share(self, deployment: Deployment, *, warm_up: bool = False) -> RoundJobs:
        """
        Args:
            warm_up: a quarter of the jobs is enough to warm up.
        """
        whole = self.shares[deployment.pool]
        numbers = self.serial if deployment.serial else range(len(whole.jobs))
        if warm_up:
            numbers = numbers[: max(_WARM_LEAST, len(numbers) // 4)]
        return RoundJobs([whole.jobs[n] for n in numbers], [whole.nominal[n] for n in numbers])

    def notes(self, deployments: Sequence[Deployment]) -> list[Note]:
        if not any(each.serial for each in deployments) or len(self.serial) == self.scenario.jobs:
            return []
        text = (
            f"serial ran {len(self.serial)} of the {self.scenario.jobs} jobs, chosen evenly from the lightest to the"
            " heaviest; compare its jobs per second, not its wall time"
        )
        return [Note(text, caveat=True)]


def from_recipe(recipe: Recipe, options: Options, deployments: Sequence[Deployment], origin_url: str) -> PlannedWork:
    """
    Raises:
        OriginError: the origin cannot be used.
    """
    plans = {pool: recipe.plan(options, pool) for pool in dict.fromkeys(each.pool for each in deployments)}
    jobs = iter(look_up(origin_url, [each for plan in plans.values() for each in plan]))
    shares = {
        pool: RoundJobs(list(islice(jobs, len(plan))), [each.seconds for each in plan]) for pool, plan in plans.items()
    }
    first = shares[deployments[0].pool]
    nominal = tuple(each for each in first.nominal if each is not None)
    scenario = Scenario(
        name=recipe.name,
        title=recipe.title,
        jobs=len(first.jobs),
        seed=options.seed,
        nominal=nominal if len(nominal) == len(first.jobs) else (),
        bytes=sum(job.size or 0 for job in first.jobs),
        demonstration=recipe.demonstration,
    )
    return PlannedWork(scenario, shares, sample(plans[deployments[0].pool], recipe.serial))


def from_manifest(jobs: Sequence[Job], name: str, deployments: Sequence[Deployment]) -> PlannedWork:
    sizes = [job.size for job in jobs]
    scenario = Scenario(
        name="manifest",
        title=f"the {len(jobs)} jobs of {name}",
        jobs=len(jobs),
        seed=None,
        bytes=None if None in sizes else sum(size or 0 for size in sizes),
    )
    share = RoundJobs(jobs, [None] * len(jobs))
    weights = [PlannedJob(job.filename, "", weight=job.size or 0.0) for job in jobs]
    return PlannedWork(scenario, {each.pool: share for each in deployments}, sample(weights, MANIFEST_SERIAL))


# -- what the origin says about a file before it is downloaded, so that the worker can verify length and sha256

_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)  # the origin hashes a large file before it answers


class OriginError(ProducerError):
    """The origin cannot be used."""


def look_up(origin_url: str, planned: Sequence[PlannedJob]) -> list[Job]:
    """The jobs for the planned files, each with the length and the digest that the origin's HEAD promises.

    Raises:
        OriginError: it does not answer, or not as expected.
    """
    root = origin_url.rstrip("/")
    with urllib3.PoolManager(retries=False, timeout=_TIMEOUT) as http:  # all pools have most paths in common
        promises = {path: _promise(http, root + path) for path in dict.fromkeys(each.path for each in planned)}
    return [Job(root + each.path, each.filename, *promises[each.path], step=each.step) for each in planned]


def _promise(http: urllib3.PoolManager, url: str) -> tuple[str, int]:
    try:
        answer = http.request("HEAD", url)
    except urllib3.exceptions.HTTPError as error:
        raise OriginError(
            f"the origin does not answer on {url}: {error}; start it, or set DOWNPOUR_ORIGIN_URL to where it is"
        ) from error
    said, length = answer.headers.get("Repr-Digest", ""), answer.headers.get("Content-Length", "")
    digest = repr_sha256(said)
    if answer.status != 200 or digest is None or not length.isdigit():
        got = f"{answer.status}, Content-Length {length!r}, Repr-Digest {said!r}"
        raise OriginError(f"HEAD {url}: expected 200 with Content-Length and a sha-256 Repr-Digest, got {got}")
    return digest, int(length)
