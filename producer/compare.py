"""``producer compare``: the tutorial's three programs, run for real on the stack that is up."""

from __future__ import annotations

import random
from pathlib import Path

import click
from rich.console import Console

from ledger.jobs import Pool
from ledger.settings import get_settings
from producer.comparison.page import Page
from producer.comparison.rounds import compare as run_comparison
from producer.comparison.runs import Report, to_json
from producer.comparison.scenarios import SCENARIOS, Options


def _pools(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[Pool, ...]:
    names = [name.strip() for name in text.split(",")]
    try:
        pools = tuple(Pool(name) for name in names)
    except ValueError:
        raise click.BadParameter(f"expected names out of {', '.join(Pool)}, got {text!r}") from None
    if len(set(pools)) < len(pools):
        raise click.BadParameter(f"expected each pool once, got {text!r}")
    return pools


def _target(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Path | None:
    """Refused now rather than after the run."""
    if text is None or text == "-":
        return None if text is None else Path("-")
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise click.BadParameter(f"expected a file in a folder that exists, got {text!r}")
    return path


@click.command(short_help="Compare the pools, with numbers.")
@click.option("--scenario", type=click.Choice(sorted(SCENARIOS)), default="article", show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Of the random seconds; the same seed gives the same downloads.")
@click.option("--size", type=click.IntRange(1, 2**30), default=Options(0).size, show_default=True, metavar="BYTES")
@click.option("--json", "target", callback=_target, metavar="FILE", help="Write the report there; - is the output.")
@click.option("--pools", callback=_pools, default=",".join(Pool), show_default=True, metavar="POOL,...")
@click.option("--serial/--no-serial", default=True, help="Also one job at a time, for the sum.", show_default=True)
def compare(
    *,
    scenario: str,
    seed: int | None,
    size: int,
    target: Path | None,
    pools: tuple[Pool, ...],
    serial: bool,
) -> int:
    """Run two downloads per pool, as processes, as threads and as coroutines, on the workers that are up.

    Exit codes: 0 every file is there, 1 some are not, 2 wrong usage or no origin, 3 Redis cannot be used.
    """
    settings = get_settings()
    options = Options(random.SystemRandom().randrange(10**6) if seed is None else seed, size, pools, serial=serial)
    page = Page(Console(stderr=target == Path("-")))
    page.opens(scenario, options, settings.origin_url)
    report = run_comparison(settings, scenario, options, page)
    for run in report.runs:
        page.closes(run)
    _write(report, target)
    done = all(deployment.done for run in report.runs for deployment in run.deployments)
    return 0 if done else 1


def _write(report: Report, target: Path | None) -> None:
    if target == Path("-"):
        click.echo(to_json(report), nl=False)
    elif target:
        target.write_text(to_json(report), encoding="utf-8")
