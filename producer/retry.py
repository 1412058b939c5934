"""``producer retry``: what failed is tried again, in place, and nothing else is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import click

from ledger.jobs import Batch, FailureKind, JobState, Ref, check_batch_name
from ledger.ledger import UnknownJobsError
from ledger.messages import Envelope, Publisher, label
from ledger.settings import get_settings
from producer.client import Client
from producer.errors import UnknownBatchError, bounded, redis_errors

_AT_ONCE = 500  # jobs per call of the ledger: a few milliseconds of Redis' time


def resubmit(client: Client, batch: Batch, states: Sequence[JobState], kinds: Sequence[FailureKind]) -> Iterator[int]:
    """Queue the jobs and send their messages, a group at a time. Cut off anywhere, it is simply repeated.

    Yields:
        How many jobs were queued by now.

    Raises:
        UnknownBatchError: it was removed meanwhile.
        RedisUnusableError: Redis went away or is full. Who is queued has a message, or gets one from the sweep.
    """
    publisher, total = Publisher(client.settings), 0
    with redis_errors(client.settings):
        for first in range(0, batch.known, _AT_ONCE):
            piece = Ref(batch.name, first, min(first + _AT_ONCE, batch.known) - 1)
            try:
                pools = dict(client.ledger.retry(piece, states, kinds))
            except UnknownJobsError as error:
                raise UnknownBatchError(batch.name) from error
            if not pools:
                continue
            records = client.ledger.read(pools)
            envelopes = [Envelope(record.id, pools[record.id], label(record.job)) for record in records]
            bounded(lambda envelopes=envelopes: publisher.send(envelopes), client.settings.redis_timeout)  # type: ignore[misc]
            total += len(pools)
            yield total


def _checked(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        return check_batch_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("batch", callback=_checked)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([each.value for each in FailureKind]),
    multiple=True,
    metavar="KIND",
    help="Only failures of this kind; may be repeated.",
)
@click.option("--cancelled", is_flag=True, help="Cancelled jobs, too.")
@click.option("--all", "everything", is_flag=True, help="Every job that has ended, done ones included.")
@click.option("--json", "as_json", is_flag=True, help="A JSON report on stdout.")
def retry(batch: str, kinds: Sequence[str], cancelled: bool, everything: bool, as_json: bool) -> int:
    """Try the failed jobs of a batch again; their earlier attempts stay in the record.

    Jobs that are queued, running or done stay as they are, so it may be run twice.
    """
    states = [JobState.FAILED]
    if cancelled or everything:
        states.append(JobState.CANCELLED)
    if everything:
        states.append(JobState.DONE)
    client = Client(get_settings())
    total = max(resubmit(client, client.batch(batch), states, [FailureKind(kind) for kind in kinds]), default=0)
    report = {"batch": batch, "queued": total}
    click.echo(json.dumps(report) if as_json else "batch {batch}: {queued:,} jobs queued again".format(**report))
    return 0
