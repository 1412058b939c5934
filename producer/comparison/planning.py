"""What each contestant is given: the jobs of a scenario, or of somebody's manifest, complete before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ledger.jobs import Job, Pool
from producer.comparison.experiment import Bound, Contestant, Scenario
from producer.comparison.offers import look_up
from producer.comparison.scenarios import Options, PlannedJob, Recipe, sample

MANIFEST_SERIAL = 20  # jobs of a manifest that the yardstick runs at the most
_WARM_LEAST = 10  # jobs of the warm-up round


@dataclass(frozen=True, slots=True)
class Share:
    """A contestant's jobs in a round."""

    jobs: Sequence[Job]
    nominal: Sequence[float | None]  # seconds for which the origin paces each


@dataclass(frozen=True, slots=True)
class Work:
    """What an experiment runs."""

    scenario: Scenario
    shares: Mapping[Pool, Share]  # whole; the same for all pools, but in the article
    serial: Sequence[int]  # numbers of the jobs that the yardstick runs
    repeat: int = 3
    keeps_files: bool = False

    def share(self, contestant: Contestant, *, warm_up: bool = False) -> Share:
        """
        Args:
            warm_up: a quarter of the jobs is enough to warm up.
        """
        whole = self.shares[contestant.pool]
        numbers = list(self.serial) if contestant.serial else list(range(len(whole.jobs)))
        if warm_up:
            numbers = numbers[: max(_WARM_LEAST, len(numbers) // 4)]
        return Share([whole.jobs[n] for n in numbers], [whole.nominal[n] for n in numbers])

    def notes(self, contestants: Sequence[Contestant]) -> list[str]:
        if not any(each.serial for each in contestants) or len(self.serial) == self.scenario.jobs:
            return []
        return [
            f"serial ran {len(self.serial)} of the {self.scenario.jobs} jobs, chosen evenly from the lightest to the"
            " heaviest; compare its jobs per second, not its wall time"
        ]


def from_recipe(recipe: Recipe, options: Options, contestants: Sequence[Contestant], origin_url: str) -> Work:
    """
    Raises:
        OriginError: the origin cannot be used.
    """
    plans: dict[Pool, Sequence[PlannedJob]] = {}
    known: list[tuple[Sequence[PlannedJob], Sequence[Job]]] = []  # most recipes plan alike for all pools
    shares = {}
    for pool in dict.fromkeys(each.pool for each in contestants):
        plan = plans[pool] = list(recipe.plan(options, pool))
        jobs = next((jobs for seen, jobs in known if seen == plan), None)
        if jobs is None:
            jobs = look_up(origin_url, plan)
            known.append((plan, jobs))
        shares[pool] = Share(jobs, [each.seconds for each in plan])
    first = shares[contestants[0].pool]
    nominal = tuple(each for each in first.nominal if each is not None)
    scenario = Scenario(
        name=recipe.name,
        title=recipe.title,
        bound=recipe.bound,
        jobs=len(first.jobs),
        seed=options.seed,
        nominal=nominal if len(nominal) == len(first.jobs) else (),
        bytes=sum(job.size or 0 for job in first.jobs),
    )
    chosen = sample(plans[contestants[0].pool], recipe.serial)
    return Work(scenario, shares, chosen, recipe.repeat, keeps_files=recipe.name == "article")


def from_manifest(jobs: Sequence[Job], name: str, contestants: Sequence[Contestant]) -> Work:
    sizes = [job.size for job in jobs]
    scenario = Scenario(
        name="manifest",
        title=f"the {len(jobs)} jobs of {name}",
        bound=Bound.UNKNOWN,
        jobs=len(jobs),
        seed=None,
        bytes=None if None in sizes else sum(size or 0 for size in sizes),
    )
    share = Share(jobs, [None] * len(jobs))
    weights = [PlannedJob(job.filename, "", weight=job.size or 0.0) for job in jobs]
    return Work(scenario, {each.pool: share for each in contestants}, sample(weights, MANIFEST_SERIAL))
