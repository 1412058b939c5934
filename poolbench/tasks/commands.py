"""``poolbench run`` and ``poolbench record``; as a plug-in also ``celery -A APP poolbench run``."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from poolbench.deployment import Spec, parse
from poolbench.runfiles import writable
from poolbench.sampler import nominal

_PATH = click.Path(path_type=Path)


def app_name(given: str | None) -> str:
    """After -A here, or after ``celery -A``."""
    context: click.Context | None = click.get_current_context()
    while not given and context:
        given, context = context.params.get("app"), context.parent
    if not given:
        raise click.UsageError("expected the project's app: -A shop.celery")
    return given


def _arrivals(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[float, ...]:
    try:
        rates = tuple(float(each.strip().removesuffix("/s")) for each in text.split(",")) if text else ()
    except ValueError:
        rates = (0.0,)
    if any(not 0 < rate <= 10_000 for rate in rates):
        raise click.BadParameter(f"expected rates per second, e.g. 5/s,10/s,20/s; got {text!r}")
    return rates


def _allowed(_context: click.Context, _parameter: click.Parameter, given: Sequence[str]) -> tuple[Any, ...]:
    found = []
    for text in given:
        host, colon, port = text.rpartition(":") if text.count(":") == 1 else (text, "", "")
        if not host or (colon and not (port.isdigit() and 0 < int(port) < 65536)):
            raise click.BadParameter(f"expected HOST or HOST:PORT, got {text!r}")
        found.append((host, int(port) if colon else None))
    return tuple(found)


def _pools(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[Spec, ...]:
    green = ",gevent:100" if find_spec("gevent") else ""
    try:
        specs = parse(text or f"prefork:{nominal()},threads:16{green}")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if wrong := [each.name for each in specs if each.concurrency is None or not each.setup.events]:
        raise click.BadParameter(
            f"expected POOL:CONCURRENCY, also with +workers or +prefetch, got {wrong[0]!r}: the workers are started for"
            " this run, without events"
        )
    return specs


APP = click.option(
    "-A", "--app", envvar="APP", metavar="APP", help="As for celery: shop.celery:app; after `celery -A APP` not needed."
)


@click.command("run", short_help="Compare pools on your own tasks.")
@APP
@click.option("--task", metavar="NAME", help="The task, for lines that name none.")
@click.option(
    "--args",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help='A call per line: ["a", 1] or {"task": "x.y", "args": [], "kwargs": {}}; default: one call without arguments.',
)
@click.option(
    "--pools",
    callback=_pools,
    metavar="POOL:CONCURRENCY[+OPTION=VALUE]...,...",
    help="Default: a process per core, threads:16, and gevent:100 if gevent is installed. Options: +workers=2 (each"
    " with that concurrency), +prefetch=4.",
)
@click.option("--seconds", type=click.FloatRange(10), default=120.0, show_default=True, help="How long it may take.")
@click.option(
    "--jobs", type=click.IntRange(1, 100_000), help="In each measurement; default: as many as fit into --seconds."
)
@click.option(
    "--repeat", "--rounds", "repeat", type=click.IntRange(1, 1000), default=3, show_default=True, help="Rounds."
)
@click.option("--arrivals", callback=_arrivals, metavar="RATE/s,...", help="Also latency at these rates of arrival.")
@click.option(
    "--limit",
    type=click.FloatRange(1),
    help="Seconds for one measurement; default: three times what is planned, at least 15.",
)
@click.option("--retries", type=click.IntRange(0, 100), default=0, show_default=True, help="Of a job, at the most.")
@click.option(
    "--allow",
    multiple=True,
    callback=_allowed,
    metavar="HOST[:PORT]",
    help="That tasks may reach, beside loopback. Beyond this machine: there is no network namespace then.",
)
@click.option(
    "--network",
    type=click.Choice(["auto", "namespace", "fence"]),
    default="auto",
    show_default=True,
    help="auto: a namespace without a network where the system has it; namespace: that or nothing; fence: Python's.",
)
@click.option(
    "--noise",
    type=click.FloatRange(0, 1),
    default=0.25,
    show_default=True,
    metavar="SHARE",
    help="Of the CPU, that other programs may use before a measurement does not count; 1: whatever the machine does.",
)
@click.option("--json", type=_PATH, callback=writable, metavar="FILE", help="The run; - is stdout.")
@click.option("-o", "--output", type=_PATH, callback=writable, metavar="FILE.html", help="A page.")
def run_(**options: Any) -> int:
    """Run your tasks on each pool, in rounds, and compare.

    Nothing of the project is changed. Its own worker command runs on a private broker; tasks reach loopback and what
    --allow names, nothing else; tasks that they send are counted and not run. How long it will take is said first.

    Exit codes: 0 every job is done, 1 jobs failed or checks failed, 2 wrong usage, a worker that does not start, or an
    address that is not the private one, 130 interrupted (what was measured is kept).
    """
    from poolbench.tasks.live import BROKER_ERRORS, WorkerError  # noqa: PLC0415 - Celery takes longer than --help
    from poolbench.tasks.session import Session  # noqa: PLC0415

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was measured is kept
    try:
        return Session(**{**options, "app": app_name(options["app"])}).run()
    except BROKER_ERRORS as error:
        raise WorkerError(f"the private broker ended in the middle of the run; run it again ({error})") from error
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return 130


@click.command("record", short_help="Write down calls that wait in a queue.")
@APP
@click.option("--queue", "-Q", required=True, help="In the project's own broker: Redis.")
@click.option("--most", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Calls, oldest first.")
@click.option("-o", "target", required=True, type=_PATH, callback=writable, metavar="FILE.jsonl")
def record_(*, app: str | None, queue: str, most: int, target: Path) -> int:
    """Write the calls that wait in a queue to a file for `poolbench run --args`; the queue stays as it is.

    Exit codes: 0 written, 1 no call could be read, 2 wrong usage or a broker that cannot be read.
    """
    from poolbench.tasks import project  # noqa: PLC0415

    calls, waiting, unreadable = project.record(project.load(app_name(app)), queue, most)
    other = f"; {unreadable} were not JSON" if unreadable else ""
    if not calls:
        click.echo(f"expected calls in the queue {queue}, got {waiting} messages{other}; nothing written", err=True)
        return 1
    project.write_calls(target, calls)
    click.echo(f"{target}: {len(calls)} calls of {waiting} that wait{other}; may hold private data")
    return 0
