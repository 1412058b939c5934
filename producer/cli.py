"""The ``producer`` command. Results go to stdout, messages to stderr.

Exit codes
  0    what was asked for is done; for ``submit --wait``, ``watch`` and ``results``: every job is done
  1    some jobs failed, were cancelled or have not ended; ``submit``: some lines were bad; ``recommend``: cannot tell
  2    wrong usage: options, a manifest that cannot be used, a batch that does not exist or has other jobs
  3    Redis cannot be used: unreachable, frozen, full, or it refuses us
  130  interrupted
  143  told to stop by SIGTERM
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import click
from pydantic import ValidationError
from rich.console import Console

from ledger.jobs import JobRecord, JobState, Ref
from ledger.settings import get_settings
from producer import results, stopping
from producer.arguments import batch_argument, checked_name, json_option, say
from producer.client import Client
from producer.control import dead_letters, drain, pause, prune, resume, say_workers, undrain
from producer.errors import ProducerError, redis_errors
from producer.live import show
from producer.retry import retry
from producer.screen import counters, status_line
from producer.submit import submit
from producer.watch import exit_code


class Late(click.Command):
    """A command whose module is imported when it is called: what measures and reports is large."""

    def __init__(self, name: str, place: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._place = place

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        module, _, name = self._place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command.make_context(*args, **more)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Enqueue downloads and see what becomes of them.

    Exit codes: 0 done, 1 not every job is done, 2 wrong usage, 3 Redis cannot be used.
    """


@cli.command()
@batch_argument
@click.option(
    "--every", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds between plain lines."
)
def watch(batch: str, every: float) -> int:
    """Show a batch's progress until every job has its end."""
    return show(Client(get_settings()), batch, every, Console())


@cli.command()
@click.argument("batch", required=False, callback=checked_name)
@click.option("-n", "most", type=click.IntRange(1, 1000), default=20, show_default=True, help="Batches to list.")
@click.option(
    "--workers", is_flag=True, help="List the live workers instead: pool, pids, running jobs, paused, drained."
)
@json_option
def status(batch: str | None, most: int, workers: bool, as_json: bool) -> int:
    """Show the newest batches, or one; or the workers."""
    client = Client(get_settings())
    if workers:
        return say_workers(client, as_json=as_json)
    for pool in client.paused():
        say(f"{pool} is paused; `producer resume {pool}` lets it go on")
    dead = client.dead_letters()
    for pool, count in dead.items():
        if count:
            say(f"{pool}: {count:,} dead letters, no messages of Downpour; see `producer dead-letters {pool}`")
    batches = [client.batch(batch)] if batch else client.newest(most)
    if as_json:
        reports = [counters(found, dead) for found in batches]
        click.echo(json.dumps(reports[0] if batch else reports, indent=2))
        return 0
    for found in batches:
        click.echo(status_line(found))
    if not batches:
        say("no batches yet")
    return 0


@cli.command("results")
@batch_argument
@click.option(
    "--format", "style", type=click.Choice([each.value for each in results.Style]), default="table", show_default=True
)
@click.option(
    "--only",
    type=click.Choice([each.value for each in JobState]),
    multiple=True,
    help="Jobs in this state; may be repeated.",
)
def results_(batch: str, style: str, only: Sequence[str]) -> int:
    """Print what became of each job."""
    client = Client(get_settings())
    found = client.batch(batch)
    seen = 0

    def counted() -> Iterator[JobRecord]:
        nonlocal seen
        for record in client.ledger.read_batch(found):
            seen += 1
            if not only or record.state in only:
                yield record

    with redis_errors(client.settings):
        for line in results.lines(counted(), results.Style(style)):
            click.echo(line)
    if seen != (found.total or found.known):
        say(f"expected {found.total or found.known} records, Redis has {seen}: it lost the others")
        return 1
    return exit_code(found)


@cli.command()
@batch_argument
@click.argument("jobs", nargs=-1, metavar="[ORDINAL | FIRST-LAST]...")
@json_option
def cancel(batch: str, jobs: Sequence[str], as_json: bool) -> int:
    """Cancel a batch, or some of its jobs; finished ones stay as they are."""
    client = Client(get_settings())
    found = client.batch(batch)
    try:
        refs = [Ref.parse(f"{batch}.{text}", most=None) for text in jobs or [f"0-{found.known - 1}"]]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ORDINAL") from error
    if late := [str(ref) for ref in refs if ref.last >= found.known]:
        raise click.BadParameter(f"expected ordinals below {found.known}, got {', '.join(late)}", param_hint="ORDINAL")
    cancelled, asked = client.cancel(found, refs)
    asked_for = len({ordinal for ref in refs for ordinal in ref.ordinals})
    report = {"batch": batch, "cancelled": cancelled, "stopping": asked, "ended_before": asked_for - cancelled - asked}
    said = "batch {batch}: {cancelled:,} cancelled, {stopping:,} running and told to stop, {ended_before:,} had ended"
    click.echo(json.dumps(report) if as_json else said.format(**report))
    return 0


cli.add_command(submit)
for command in (pause, resume, drain, undrain, prune, dead_letters):
    cli.add_command(command)
cli.add_command(retry)
for late in (
    Late("compare", "producer.compare:compare", "Compare the pools, with numbers."),
    Late("recommend", "poolbench.cli:recommend_", "Say which pool, with what concurrency, from measured runs."),
    Late("report", "poolbench.cli:report_", "Show measured runs: page, text, pictures, trace."),
):
    cli.add_command(late)


def run(argv: Sequence[str] | None = None) -> int:
    """The command's exit code; every foreseen error as one message on stderr."""
    try:
        return cli.main(argv, prog_name="producer", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code if isinstance(error, click.UsageError) else 2
    except ProducerError as error:
        say(f"producer: {error}")
        return error.exit_code
    except (ValidationError, OSError) as error:
        say(f"producer: {error}")
        return 2
    except (click.Abort, KeyboardInterrupt) as stop:
        say("interrupted")
        return stopping.exit_code(stop)


def main() -> None:
    stopping.heed()
    sys.exit(run())


if __name__ == "__main__":
    main()
