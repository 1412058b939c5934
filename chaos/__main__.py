"""``python -m chaos run``, ``stock`` and ``table``. Exit codes: 0 the books balance, 1 they do not, 2 wrong usage."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from chaos import findings, report, table
from chaos.downpour import Downpour
from chaos.run import SETTLE, Options, course
from chaos.stock import ABOUT, Stock
from chaos.subject import Subject
from stack.__main__ import ends_on_signals
from stack.stack import Stack

_say = partial(click.echo, err=True)
_LAST_WORDS = 400.0  # seconds for what comes after the load; then the process ends, and its reaper cleans up


@click.group()
def main() -> None:
    """Kill things under load and balance the books."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--seed", type=int, default=1, show_default=True, help="Of jobs and faults."),
        click.option("--kills", type=click.IntRange(1), default=40, show_default=True, help="Faults that kill."),
        click.option("--jobs", type=click.IntRange(300), default=8000, show_default=True, help="At least."),
        click.option("--each", type=click.IntRange(1), default=2, show_default=True, help="Workers per pool."),
        click.option("--limit", type=click.FloatRange(30), help="Seconds for the load; default: by kills and jobs."),
        click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The JSON report."),
        click.option(
            "--evidence", type=click.Path(file_okay=False, path_type=Path), help="Receives logs if all is not well."
        ),
    ):
        command = option(command)
    return command


@main.command()
@_options
def run(**options: Any) -> None:
    """Downpour, as deployed."""
    _run(Downpour, **options)


@main.command()
@click.option("--profile", type=click.Choice(list(ABOUT)), default="tuned", show_default=True)
@_options
def stock(profile: str, **options: Any) -> None:
    """A stock Celery app with the same job. Its books need not balance: the exit code is 0."""
    _run(partial(Stock, profile=profile), f"--profile={profile}", **options)
    sys.exit(0)


@main.command("table")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def table_(files: Sequence[Path]) -> None:
    """Render reports as Markdown."""
    click.echo(table.render([(file.name, report.from_json(file.read_text())) for file in files]), nl=False)


def _run(subject: Callable[[Stack, int], Subject], *profile: str, **chosen: Any) -> None:
    seed, kills, jobs = chosen["seed"], chosen["kills"], chosen["jobs"]
    limit = chosen["limit"] or 120 + kills * 8 + jobs / 25
    out, evidence = chosen["out"], chosen["evidence"]
    alarm = threading.Timer(limit + SETTLE + _LAST_WORDS, os._exit, (1,))  # then the stack's reaper cleans up
    alarm.daemon = True
    alarm.start()
    options = Options(seed, kills, jobs, chosen["each"], limit)
    words = [f"--seed={seed}", f"--kills={kills}", f"--jobs={jobs}", f"--each={chosen['each']}"]
    command = shlex.join(["python", "-m", "chaos", *sys.argv[1:2], *profile, *words])
    with ends_on_signals(), course(options, subject, _say, evidence) as over:
        found = findings.report(over, command)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(report.to_json(found))  # before anything is taken down
        if evidence and not found.good:
            shutil.copytree(over.subject.stack.plan.private / "logs", evidence, dirs_exist_ok=True)
    _say(table.summary(found))
    if not found.good:
        _say(f"NOT GOOD: {table.complaints(found)}")
    if isinstance(subject, type) and not found.good:
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m chaos")
