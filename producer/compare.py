"""``producer compare``: the same jobs on each pool, round after round, with numbers."""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console

from ledger.jobs import Job
from ledger.settings import Settings
from poolbench.checks import NONE, NoiseLimits, failed
from poolbench.deployment import Spec, parse
from poolbench.experiment import Experiment, RunCommand, to_json
from poolbench.rounds import Design, run_experiment
from poolbench.runfiles import STDOUT, writable, write_whole
from poolbench.terminal import Page, close
from producer.cli import one_of
from producer.client import Client, read_settings, redis_errors
from producer.downloads import Downloads
from producer.errors import ManifestError
from producer.fleet import Private, Shared
from producer.formats import Format
from producer.manifest import Reader
from producer.scenarios import SCENARIOS, Options, PlannedWork, from_manifest, from_recipe

_ARTICLE = "article"


def _pools(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[Spec, ...] | None:
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(short_help="Compare the pools, with numbers.")
@click.argument("name", required=False, metavar="[SCENARIO]", type=click.Choice(list(SCENARIOS)))
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), help="The same as the argument; default: article.")
@click.option("-i", "--input", "source", type=click.File("rb"), help="Your own jobs: a manifest; - is stdin.")
@click.option("--format", "format_", type=one_of(Format), help="Of the manifest; default: by suffix or first line.")
@click.option(
    "--pools",
    callback=_pools,
    metavar="POOL[:CONCURRENCY[+OPTION=VALUE]...],...",
    help="With a concurrency: workers of our own, e.g. threads:8,threads:100, also with options, e.g."
    " threads:8+workers=2 (each with 8), +prefetch=4 (messages ahead per job at once), +events=off. Without: those of"
    " the running stack, all.",
)
@click.option("--repeat", type=click.IntRange(1, 1000), help="Rounds that count; default: 3, of the article 1.")
@click.option("--jobs", type=click.IntRange(1, 1_000_000), help="Default: as many as take a minute or two in all.")
@click.option("--seed", type=click.IntRange(0), help="Of what is random; the same seed gives the same downloads.")
@click.option("--size", type=click.IntRange(1, 2**30), metavar="BYTES", help="Of each file, where all are alike.")
@click.option("--serial/--no-serial", default=True, help="Also one job at a time, as a baseline.")
@click.option(
    "--noise",
    type=click.FloatRange(0, 1),
    default=NoiseLimits().strangers,
    metavar="SHARE",
    help="Of the CPU, that other programs may use before a turn does not count; 1: whatever the machine does.",
)
@click.option(
    "--json",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=writable,
    metavar="FILE",
    help="Write the experiment there; - is the output.",
)
def compare(
    *,
    name: str | None,
    scenario: str | None,
    source: BinaryIO | None,
    format_: str | None,
    pools: tuple[Spec, ...] | None,
    repeat: int | None,
    jobs: int | None,
    seed: int | None,
    size: int | None,
    serial: bool,
    noise: float,
    target: Path | None,
) -> int:
    """Run the same jobs on each pool, in rounds, and compare.

    \b
    article  the tutorial: two files of 5 to 10 seconds per pool
    slow     small files from a slow server     small  many small files
    large    a few large files, each hashed     cpu    pages parsed in pure Python
    mixed    some of all

    Each round has a turn of every deployment, in an order that rotates; a warm-up round does not count, and neither
    does an excluded turn: it says why, and is run once more.

    Exit codes: 0 every job is done, 1 jobs failed or checks failed, 2 wrong usage or no origin,
    3 Redis cannot be used, 130 interrupted, 143 told to stop by SIGTERM (what was measured is kept in both cases).
    """
    if sum(each is not None for each in (name, scenario, source)) > 1:
        raise click.UsageError("expected one scenario, or -i FILE")
    chosen = name or scenario or _ARTICLE
    if source is None and chosen == _ARTICLE and jobs not in (None, 2):
        raise click.UsageError("the article has two jobs per pool; --jobs is for the other scenarios and -i FILE")
    page, settings = Page(Console(stderr=target == STDOUT)), read_settings()
    own = _own_jobs(Reader(source, format_, page.say), source.name, jobs) if source else None
    with _fleet(settings, pools, serial=serial) as fleet:
        if source and own:
            work = from_manifest(own, Path(source.name).name, fleet.deployments)
        else:
            recipe = SCENARIOS[chosen]
            seed = random.SystemRandom().randrange(10**6) if seed is None else seed
            options = Options(seed, jobs or recipe.jobs, size or recipe.size)
            work = from_recipe(recipe, options, fleet.deployments, fleet.settings.origin_url)
        repeat = repeat or (1 if work.scenario.demonstration else 3)
        words = ("-i", source.name) if source else (chosen,)
        design = _design(work, repeat, noise, words, pools, serial=serial, size=size)
        origin = None if source else fleet.settings.origin_url
        page.opens(work.scenario, fleet.deployments, repeat, origin, warm_up=design.warm_up)
        with page.watching(), redis_errors(fleet.settings), Downloads(fleet, work) as workload:
            outcome = run_experiment(workload, design, page)
    close(page, outcome.experiment)
    _write(outcome.experiment, target)
    if outcome.cut:
        with redis_errors(fleet.settings):
            raise outcome.cut
    return 1 if failed(outcome.experiment) else 0


def _own_jobs(reader: Reader, name: str, most: int | None) -> list[Job]:
    jobs = list(islice(reader.jobs(), most))
    if not jobs:
        raise ManifestError(f"expected at least one URL in {name}, got none; nothing was compared")
    return jobs


@contextmanager
def _fleet(settings: Settings, pools: Sequence[Spec] | None, *, serial: bool) -> Iterator[Shared | Private]:
    if pools and pools[0].concurrency is not None:
        with Private(settings, pools, serial=serial) as fleet:
            yield fleet
    else:
        yield Shared(settings, Client(settings).ledger, pools, serial=serial)


def _design(
    work: PlannedWork,
    repeat: int,
    noise: float,
    words: Sequence[str],
    pools: Sequence[Spec] | None,
    *,
    serial: bool,
    size: int | None,
) -> Design:
    """With the command that has everything that was chosen for it.

    The article once is a show: its jobs sleep, so neighbours do not matter and nothing needs to warm up.
    """
    show = work.scenario.demonstration and repeat == 1
    options = {
        "--jobs": work.scenario.jobs if work.scenario.name != _ARTICLE else None,
        "--repeat": repeat,
        "--seed": work.scenario.seed,
        "--size": size,
        "--pools": ",".join(each.name for each in pools) if pools else None,
    }
    given = tuple((name, str(value)) for name, value in options.items() if value is not None)
    request = RunCommand(("producer", "compare", *words), given if serial else (*given, ("--no-serial", None)))
    limits = NONE if show or noise >= 1 else NoiseLimits(strangers=noise)
    return Design(repeat, request, warm_up=not show, again=not show, limits=limits)


def _write(experiment: Experiment, target: Path | None) -> None:
    if target == STDOUT:
        click.echo(to_json(experiment), nl=False)
    elif target:
        write_whole(target, to_json(experiment).encode())
        name = shlex.quote(str(target))
        advises = "" if experiment.scenario.demonstration else f", `producer recommend {name}` advises"
        click.echo(f"written: {name}; `producer report {name} -o report.html` shows it{advises}")
