"""The ``producer`` command. Results go to stdout, messages to stderr.

Exit codes
  0    what was asked for is done; for ``submit --wait``, ``watch`` and ``results``: every job is done
  1    some jobs failed, were cancelled or have not ended; ``submit``: some lines were bad; ``recommend``: cannot tell
  2    wrong usage: options, a manifest that cannot be used, a batch that does not exist or has other jobs
  3    Redis cannot be used: unreachable, frozen, full, or it refuses us
  130  interrupted
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import BinaryIO

import click
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from ledger.jobs import JobRecord, JobState, Pool, Ref, check_batch_name
from ledger.ledger import Batch
from ledger.settings import get_settings
from producer import manifest, results
from producer.client import Client, new_batch_name
from producer.compare import compare
from producer.control import drain, pause, prune, resume, say_workers, undrain
from producer.errors import ProducerError, redis_errors
from producer.intake import Intake
from producer.recommend import recommend_
from producer.report import report_
from producer.retry import retry
from producer.screen import Lines, counters, panel, status_line
from producer.watch import Watch, exit_code

ALL = "all"
_SAY_EVERY = 50_000  # jobs


def say(message: str) -> None:
    click.echo(message, err=True)


def _jobs_per_message(_context: click.Context, _option: click.Parameter, text: str) -> int:
    """0 for auto, as ``Client.submit`` takes it."""
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 500):
        raise click.BadParameter(f"expected a number from 1 to 500, or auto; got {text!r}")
    return int(text)


def _checked_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_batch_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


batch_argument = click.argument("batch", callback=_checked_name)
json_option = click.option("--json", "as_json", is_flag=True, help="A JSON report on stdout.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Enqueue downloads and see what becomes of them.

    Exit codes: 0 done, 1 not every job is done, 2 wrong usage, 3 Redis cannot be used.
    """


@cli.command()
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("-i", "--input", "source", type=click.File("rb"), help="A manifest; - is stdin.")
@click.option(
    "--format",
    "format_",
    type=click.Choice([each.value for each in manifest.Format]),
    help="Default: by suffix or first line.",
)
@click.option(
    "--pool",
    type=click.Choice([*(each.value for each in Pool), ALL]),
    default=Pool.THREADS.value,
    show_default=True,
    help="all: in turn.",
)
@click.option("--name", callback=_checked_name, help="The batch's name; default: generated.")
@click.option(
    "--per-message",
    callback=_jobs_per_message,
    default="1",
    show_default=True,
    metavar="N|auto",
    help="Jobs per message, up to 500; auto: one at first, up to 250 in a long manifest.",
)
@click.option("--deadline", type=click.FloatRange(0.1), help="Seconds that a job may take from its first start on.")
@click.option(
    "--names",
    type=click.Choice(["url", "server"]),
    default="url",
    show_default=True,
    help="Who names a file that the manifest does not: server = Content-Disposition, then the URL.",
)
@click.option("--step", metavar="NAME", help="Do this with each file before it gets its name: links.")
@click.option("--dedup", is_flag=True, help="A URL that comes again with the same filename, or with none, is left out.")
@click.option("--strict", is_flag=True, help="Submit nothing if any line is bad.")
@click.option("--front", is_flag=True, help="Before all that waits in the queue; what runs goes on.")
@click.option(
    "--shard",
    type=click.IntRange(1),
    metavar="N",
    help="N files per folder (0000, 0001 ...), for those that the manifest does not name.",
)
@click.option("--wait", is_flag=True, help="Watch the batch; the exit code is its outcome.")
@json_option
def submit(
    *,
    urls: Sequence[str],
    source: BinaryIO | None,
    format_: str | None,
    pool: str,
    name: str | None,
    per_message: int,
    deadline: float | None,
    names: str,
    step: str | None,
    dedup: bool,
    strict: bool,
    front: bool,
    shard: int | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Submit URLs, or the lines of a manifest, as one batch; print the batch's name.

    Running the same command with the same --name again submits what is missing and nothing twice.
    """
    if bool(urls) == (source is not None):
        raise click.UsageError("expected either URLs or -i FILE")
    intake = Intake(
        urls,
        source,
        manifest.Format(format_) if format_ else None,
        report=say,
        server_names=names == "server",
        dedup=dedup,
        shard=shard or 0,
    )
    if strict:
        intake.check()
    name = name or new_batch_name()
    client = Client(get_settings())
    before = client.find(name)
    pools = list(Pool) if pool == ALL else [Pool(pool)]
    accepted = said = 0
    jobs = (replace(job, step=step) for job in intake.jobs())
    for accepted in client.submit(name, jobs, pools, per_message, deadline, front=front):
        if accepted >= said + _SAY_EVERY:
            said = accepted
            say(f"{accepted:,} jobs of batch {name} submitted")
    known = before.known if before else 0
    report = {"batch": name, "jobs": accepted, "new": accepted - known, "bad_lines": intake.bad}
    summary = "batch {batch}: {jobs:,} jobs, {new:,} of them new, {bad_lines:,} bad lines"
    if intake.once:
        report["repeated_lines"] = intake.once.repeated
        summary += ", {repeated_lines:,} repeated ones left out"
    say(summary.format(**report))
    code = 1 if intake.bad else 0
    if wait:
        code = _watch(client, name, 5.0, Console(stderr=as_json)) or code
    click.echo(json.dumps(report) if as_json else name)
    return code


@cli.command()
@batch_argument
@click.option(
    "--every", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds between plain lines."
)
def watch(batch: str, every: float) -> int:
    """Show a batch's progress until every job has its end."""
    return _watch(Client(get_settings()), batch, every, Console())


def _watch(client: Client, name: str, every: float, console: Console) -> int:
    """Live on a terminal, lines elsewhere."""
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    lines = Lines(every, time.monotonic)
    last: Batch | None = None
    with live or nullcontext():
        for snapshot in Watch(client, name, every=min(every, 0.5)).snapshots():
            last = snapshot.batch
            if live:
                live.update(panel(snapshot), refresh=True)
                continue
            for line in lines.of(snapshot):
                click.echo(line, err=console.stderr)
    return exit_code(last) if last else 1


@cli.command()
@click.argument("batch", required=False, callback=_checked_name)
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
    batches = [client.batch(batch)] if batch else client.newest(most)
    if as_json:
        reports = [counters(found) for found in batches]
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
        refs = [Ref.parse(f"{batch}.{text}") for text in jobs or [f"0-{found.known - 1}"]]
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


cli.add_command(compare)
cli.add_command(recommend_)
for command in (pause, resume, drain, undrain, prune):
    cli.add_command(command)
cli.add_command(retry)
cli.add_command(report_)


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
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return 130


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
