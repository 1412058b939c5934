"""Commands that put jobs on queues, or take them away: ``submit``, ``retry``, ``cancel``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO

import click

from ledger.jobs import JOBS_PER_MESSAGE, Batch, FailureKind, JobState, Pool, Ref
from ledger.ledger import ConflictError
from producer.cli import batch_argument, checked_name, counted, json_option, one_of, report, say
from producer.client import Client, new_batch_name
from producer.errors import OtherManifestError
from producer.formats import Format
from producer.manifest import FIELDS, Names, Reader

_ALL = "all"
_SAY_EVERY = 50_000  # jobs


def _columns(_context: click.Context, _option: click.Parameter, text: str | None) -> Mapping[str, str] | None:
    """``url=URL,filename=TEXT``; ``size`` alone is ``size=size``."""
    if text is None:
        return None
    pairs = [(field, column or field) for field, _, column in (part.partition("=") for part in text.split(","))]
    columns = dict(pairs)
    if len(columns) < len(pairs) or not set(columns) <= set(FIELDS) or "url" not in columns:
        raise click.BadParameter(f"expected url=NAME and more of {', '.join(FIELDS)}, each once; got {text!r}")
    return columns


@click.command()
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("-i", "--input", "source", type=click.File("rb"), help="A manifest; - is stdin.")
@click.option("--format", "format_", type=one_of(Format), help="Default: by suffix, first bytes or first line.")
@click.option(
    "--columns",
    callback=_columns,
    metavar="FIELD=NAME,...",
    help="Which columns or keys to take, e.g. url=URL,filename=TEXT; the others are left alone.",
)
@click.option(
    "--pool", type=click.Choice([*one_of(Pool).choices, _ALL]), default=Pool.THREADS.value, help="all: in turn."
)
@click.option("--name", callback=checked_name, help="The batch's name; default: generated.")
@click.option(
    "--per-message", type=click.IntRange(1, JOBS_PER_MESSAGE), default=1, metavar="N", help="Jobs per message."
)
@click.option("--deadline", type=click.FloatRange(0.1), help="Seconds that a job may take from its first start on.")
@click.option(
    "--names",
    type=click.Choice(["url", "server"]),
    default="url",
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
    columns: Mapping[str, str] | None,
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

    Running the same command with the same --name again submits what is missing and nothing twice, also when the
    manifest has more lines since, or a bad line was mended.
    """
    if bool(urls) == (source is not None):
        raise click.UsageError("expected either URLs or -i FILE")
    new_names = partial(Names, shard or 0, dedup=dedup)
    reader = Reader(source or urls, format_, say, new_names, names == "server", step, columns)
    if strict:
        reader.check()
    name = name or new_batch_name()
    client = Client()
    if warning := client.check_eviction():
        say(f"warning: {warning}")
    before = client.find(name)
    pools = list(Pool) if pool == _ALL else [Pool(pool)]
    submitted = partial(client.submit, name, pools=pools, per_message=per_message, deadline=deadline, front=front)
    accepted = said = 0
    for accepted in _mending(client, reader, before, submitted):
        if accepted >= said + _SAY_EVERY:
            said = accepted
            say(f"{accepted:,} jobs of batch {name} submitted")
    if before and (cancelled := before.count(JobState.CANCELLED)):
        say(f"{cancelled:,} jobs of batch {name} stay cancelled; `producer retry {name} --cancelled` queues them again")
    found = {"batch": name, "jobs": accepted, "new": client.new, "bad_lines": reader.bad}
    summary = f"batch {name}: {counted(accepted, 'job')}, {client.new:,} of them new, {counted(reader.bad, 'bad line')}"
    if dedup:
        found["repeated_lines"] = reader.repeated
        summary += f", {reader.repeated:,} repeated ones left out"
    say(summary)
    code = 1 if reader.bad else 0
    if wait:
        from producer.watch import show  # noqa: PLC0415 - rich takes as long to import as all the rest

        code = show(client, name, 5.0, to_stderr=as_json) or code
    report(found, [name], as_json=as_json)
    return code


def _mending(
    client: Client, reader: Reader, before: Batch | None, submitted: Callable[..., Iterator[int]]
) -> Iterator[int]:
    """Submit by place; if a mended line moved the others, what the batch does not have, after what it has.

    Raises:
        OtherManifestError: it has jobs that the manifest does not have.
    """
    if before:
        reader.keep()
    try:
        yield from submitted(jobs=reader.jobs())
    except OtherManifestError as error:
        if not (before and isinstance(error.__cause__, ConflictError)):
            raise
        try:
            jobs = reader.missing(partial(client.jobs, before))
        except OtherManifestError as other:
            raise OtherManifestError(f"{error}: {other}") from other
        yield from submitted(jobs=jobs, first=before.known)


@click.command()
@batch_argument
@click.option(
    "--kind",
    "kinds",
    type=one_of(FailureKind),
    multiple=True,
    metavar="KIND",
    help="Only failures of this kind; may be repeated.",
)
@click.option("--cancelled", is_flag=True, help="Cancelled jobs, too.")
@click.option("--all", "everything", is_flag=True, help="Every job that has ended, done ones included.")
@json_option
def retry(batch: str, kinds: Sequence[str], cancelled: bool, everything: bool, as_json: bool) -> int:
    """Try the failed jobs of a batch again; their earlier attempts stay in the record.

    Jobs that are queued, running or done stay as they are, so it may be run twice.
    """
    states = [JobState.FAILED]
    if cancelled or everything:
        states.append(JobState.CANCELLED)
    if everything:
        states.append(JobState.DONE)
    client = Client()
    queued, spent = client.retry(client.batch(batch), states, [FailureKind(kind) for kind in kinds])
    if spent:
        say(f"{spent:,} jobs stay done: their headers were dropped then. Submit them under another name")
    report(
        {"batch": batch, "queued": queued}, [f"batch {batch}: {counted(queued, 'job')} queued again"], as_json=as_json
    )
    return 0


@click.command()
@batch_argument
@click.argument("jobs", nargs=-1, metavar="[ORDINAL | FIRST-LAST]...")
@json_option
def cancel(batch: str, jobs: Sequence[str], as_json: bool) -> int:
    """Cancel a batch, or some of its jobs; finished ones stay as they are."""
    client = Client()
    found = client.batch(batch)
    try:
        refs = [Ref.parse(f"{batch}.{text}", most=None) for text in jobs or [f"0-{found.known - 1}"]]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ORDINAL") from error
    if late := [str(ref) for ref in refs if ref.last >= found.known]:
        raise click.BadParameter(f"expected ordinals below {found.known}, got {', '.join(late)}", param_hint="ORDINAL")
    cancelled, asked = client.cancel(refs)
    ended = len({ordinal for ref in refs for ordinal in ref.ordinals}) - cancelled - asked
    report(
        {"batch": batch, "cancelled": cancelled, "stopping": asked, "ended_before": ended},
        [f"batch {batch}: {cancelled:,} cancelled, {asked:,} running and told to stop, {ended:,} had ended"],
        as_json=as_json,
    )
    return 0
