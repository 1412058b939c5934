"""``producer submit``: URLs, or the lines of a manifest, as one batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import click
from rich.console import Console

from ledger.jobs import JOBS_PER_MESSAGE, Pool
from ledger.settings import get_settings
from producer import manifest
from producer.arguments import checked_name, json_option, say
from producer.client import Client, new_batch_name
from producer.intake import Intake
from producer.live import show

ALL = "all"
_SAY_EVERY = 50_000  # jobs


def _jobs_per_message(_context: click.Context, _option: click.Parameter, text: str) -> int:
    """0 for auto, as ``Client.submit`` takes it."""
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= JOBS_PER_MESSAGE):
        raise click.BadParameter(f"expected a number from 1 to {JOBS_PER_MESSAGE}, or auto; got {text!r}")
    return int(text)


@click.command()
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
@click.option("--name", callback=checked_name, help="The batch's name; default: generated.")
@click.option(
    "--per-message",
    callback=_jobs_per_message,
    default="1",
    show_default=True,
    metavar="N|auto",
    help=f"Jobs per message, up to {JOBS_PER_MESSAGE}; auto: one at first, up to 250 in a long manifest.",
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
    if warning := client.check_eviction():
        say(f"warning: {warning}")
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
        code = show(client, name, 5.0, Console(stderr=as_json)) or code
    click.echo(json.dumps(report) if as_json else name)
    return code
