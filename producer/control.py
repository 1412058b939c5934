"""What a person sees and decides about batches, pools, workers and dead letters."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime

import click

from download.errors import printable
from ledger.dead_letters import DeadLetter, DeadLetters
from ledger.jobs import Batch, Pool, Ref
from ledger.ledger import KeptError
from ledger.switches import LiveWorker, Switches
from producer.cli import checked_name, counted, json_option, one_of, report, say
from producer.client import Client, redis_errors
from producer.errors import ProducerError
from producer.results import counters, iso, status_line

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}  # seconds
_NEWEST = 1_000_000  # batches that prune looks at
_SHOWN = 100  # characters of a dead letter in a line; --json has more
_STOPPING = 10.0  # seconds that running jobs of a cancelled batch get to stop before its records go


class UnknownWorkerError(ProducerError):
    """No worker of this name is alive."""


@click.command()
@click.argument("batch", required=False, callback=checked_name)
@click.option("-n", "most", type=click.IntRange(1, 1000), default=20, help="Batches to list.")
@click.option(
    "--workers", is_flag=True, help="List the live workers instead: pool, pids, running jobs, paused, drained."
)
@json_option
def status(batch: str | None, most: int, workers: bool, as_json: bool) -> int:
    """Show the newest batches, or one; or the workers."""
    client = Client()
    switches = Switches(client.ledger)
    with redis_errors(client.settings):
        if workers:
            alive = switches.workers()
            report([asdict(worker) for worker in alive], map(_worker_line, alive), as_json=as_json, indent=2)
            if not alive:
                say("no worker is alive")
            return 0
        for pool in switches.paused():
            say(f"{pool} is paused; `producer resume {pool}` lets it go on")
        dead = DeadLetters(client.ledger.redis, client.settings.key_prefix).counts()
    for pool, count in dead.items():
        if count:
            say(f"{pool}: {count:,} dead letters, no messages of Downpour; see `producer dead-letters {pool}`")
    batches = [client.batch(batch)] if batch else client.newest(most)
    found = [counters(each, dead) for each in batches]
    report(found[0] if batch else found, map(status_line, batches), as_json=as_json, indent=2)
    if not batches and not as_json:
        say("no batches yet")
    return 0


def _worker_line(worker: LiveWorker) -> str:
    """``threads@host  threads  pid 17  3 running  drained  unwell since 12:30:05: ...``."""
    pids = ",".join(map(str, worker.pids))
    held_back = [word for word, on in (("paused", worker.paused), ("drained", worker.drained)) if on]
    if worker.unwell:
        since = datetime.fromtimestamp(worker.unwell.since).astimezone().isoformat(" ", "seconds")
        held_back.append(f"unwell since {since}: {worker.unwell.reason}")
    return "  ".join([worker.name, worker.pool, f"pid {pids}", f"{worker.running} running", *held_back])


# -- pools and workers


def _switch(change: Callable[[Switches], bool], changed: str, unchanged: str) -> int:
    client = Client()
    with redis_errors(client.settings):
        click.echo(changed if change(Switches(client.ledger)) else unchanged)
    return 0


@click.command()
@click.argument("pool", type=one_of(Pool))
def pause(pool: str) -> int:
    """Let a pool take no new jobs; what runs goes on.

    Its workers stop consuming within about two seconds; jobs stay queued until `producer resume`.
    """
    return _switch(lambda switches: switches.pause(Pool(pool)), f"{pool}: paused", f"{pool}: was paused before")


@click.command()
@click.argument("pool", type=one_of(Pool))
def resume(pool: str) -> int:
    """Let a paused pool take jobs again."""
    return _switch(lambda switches: switches.resume(Pool(pool)), f"{pool}: resumed", f"{pool}: was not paused")


@click.command()
@click.argument("worker")
def drain(worker: str) -> int:
    """Let one worker take no new jobs; it finishes what it runs and stays up.

    WORKER is its name in `producer status --workers`. Others of its pool go on. A worker that restarts under the same
    name is still drained.
    """

    def change(switches: Switches) -> bool:
        alive = [each.name for each in switches.workers()]
        if worker not in alive:
            raise UnknownWorkerError(
                f"expected the name of a live worker, got {worker!r}; alive: {', '.join(alive) or 'none'}"
            )
        return switches.drain(worker)

    return _switch(change, f"{worker}: drained", f"{worker}: was drained before")


@click.command()
@click.argument("worker")
def undrain(worker: str) -> int:
    """Let a drained worker take jobs again."""
    return _switch(lambda each: each.undrain(worker), f"{worker}: takes jobs again", f"{worker}: was not drained")


# -- old batches


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value)
    if match is None:
        raise click.BadParameter(f"expected a number and one of s m h d w, like 7d; got {value!r}")
    return float(match[1]) * _UNITS[match[2]]


@click.command()
@click.argument("batches", nargs=-1, metavar="[BATCH]...")
@click.option(
    "--older-than", callback=_seconds, metavar="AGE", help="Batches whose last job ended so long ago: 7d, 12h."
)
@click.option("--keep", type=click.IntRange(0), metavar="N", help="All but the newest N.")
@click.option("--force", is_flag=True, help="Cancel and remove batches, named one by one, that have not finished.")
@json_option
def prune(batches: Sequence[str], older_than: float | None, keep: int | None, force: bool, as_json: bool) -> int:
    """Remove finished batches from Redis: records and counters. Their files stay.

    Batches with unfinished jobs stay, unless they are named and --force is given. With names the other options do not
    go; --older-than and --keep together remove what both would remove. Exit code 1: a batch that was named stays.
    """
    if bool(batches) == (older_than is not None or keep is not None):
        raise click.UsageError("expected either names of batches, or --older-than or --keep")
    if force and not batches:
        raise click.UsageError("--force goes with names of batches")
    client = Client()
    with redis_errors(client.settings):
        found = [client.batch(name) for name in batches] if batches else client.newest(_NEWEST)[keep or 0 :]
        removed, kept, jobs = _remove(client, found, older_than or 0.0, force)
    kept = kept if batches else {}
    lines = [f"{counted(len(removed), 'batch')} removed, {counted(jobs, 'job')}"]
    report({"removed": removed, "jobs": jobs, "kept": kept}, lines, as_json=as_json)
    for name, why in kept.items():
        say(f"batch {name} {why}; it stays")
    return 1 if kept else 0


def _remove(
    client: Client, batches: Sequence[Batch], ended_for: float, force: bool
) -> tuple[list[str], dict[str, str], int]:
    """Names of those that are gone, those that stay and why, and how many jobs went."""
    removed: list[str] = []
    kept: dict[str, str] = {}
    jobs = 0
    for batch in batches:
        if force and batch.known and not batch.finished:
            client.cancel([Ref(batch.name, 0, batch.known - 1)])
            until = time.monotonic() + _STOPPING
            while client.ledger.running(batch.name) and time.monotonic() < until:
                time.sleep(0.2)
        try:
            for _left in client.ledger.prune(batch.name, ended_for=ended_for, force=force):
                pass
        except KeptError as error:
            kept[batch.name] = str(error)
        else:
            removed.append(batch.name)
            jobs += batch.known
    return removed, kept, jobs


# -- dead letters


@click.command("dead-letters")
@click.argument("pool", required=False, type=one_of(Pool))
@click.option("--drop", is_flag=True, help="Remove them.")
@json_option
def dead_letters(pool: str | None, drop: bool, as_json: bool) -> int:
    """List what lay on the pools' queues and is no message of Downpour, or remove it.

    The newest 1,000 of each pool are kept, oldest first here, each with when and why it was refused. No job is lost
    with one: a job whose message vanished gets another.
    """
    client = Client()
    letters = DeadLetters(client.ledger.redis, client.settings.key_prefix)
    pools = [Pool(pool)] if pool else list(Pool)
    with redis_errors(client.settings):
        if drop:
            dropped = {each: letters.drop(each) for each in pools}
            report(dropped, [f"{sum(dropped.values()):,} dead letters removed"], as_json=as_json)
            return 0
        found = {each: letters.read(each)[::-1] for each in pools}
    rows = {each: [asdict(letter) for letter in kept] for each, kept in found.items()}
    lines = [_letter_line(each, letter) for each, kept in found.items() for letter in kept]
    report(rows, lines, as_json=as_json, indent=2)
    if not lines and not as_json:
        say("no dead letters")
    return 0


def _letter_line(pool: Pool, letter: DeadLetter) -> str:
    """``2026-11-29T20:00:00Z  threads  12 bytes  Invalid JSON: ...  'hello, queue'``, printable whatever it was."""
    begin = ascii(letter.element[:_SHOWN])
    return f"{iso(letter.time)}  {pool}  {letter.bytes:,} bytes  {printable(letter.reason)}  {begin}"
