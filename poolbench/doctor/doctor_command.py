"""The command ``poolbench doctor``: what it is told, what it says, and with which code it ends."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from poolbench.figures import counted
from poolbench.tasks.commands import APP, app_name

if TYPE_CHECKING:  # both import Celery, which takes longer than --help
    from poolbench.doctor.diagnosis import Diagnosis
    from poolbench.doctor.observed import Observation

SCHEMA = "poolbench.doctor/1"
WIDTH = 100
_PLACES = 5  # shown of one check; --json has all
_WORDS = ("code", "title", "severity", "why", "evidence", "again", "mend")


def _codes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(code.strip().upper() for code in (text or "").split(",") if code.strip())


@click.command("doctor", short_help="Check live Celery workers and their broker.")
@APP
@click.option("--only", callback=_codes, metavar="CODE,...", help="Make these checks only.")
@click.option("--skip", callback=_codes, metavar="CODE,...", help="Do not make these checks.")
@click.option(
    "--timeout",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="That a worker, and the broker, may take to answer.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Between SIGTERM and SIGKILL on your platform: Docker 10, Kubernetes 30, systemd 90.",
)
@click.option("--json", "as_json", is_flag=True, help="The diagnosis as JSON on stdout.")
def doctor_(
    *, app: str | None, only: Sequence[str], skip: Sequence[str], timeout: float, grace: float | None, as_json: bool
) -> int:
    """Ask the live workers of a Celery project, and their broker, for settings that do not do what they seem to.

    Nothing is changed and no task is sent. Run it where the project can be imported; on the host of the workers, or in
    their container, it sees their command lines too.

    Exit codes: 0 nothing found, 1 findings, 2 it could not ask: the app, the broker or the workers.
    """
    from poolbench.doctor.diagnosis import CHECKS, diagnose  # noqa: PLC0415
    from poolbench.doctor.observed import observe, without_secrets  # noqa: PLC0415
    from poolbench.tasks.project import load  # noqa: PLC0415

    if unknown := [code for code in (*only, *skip) if code not in CHECKS]:
        raise click.BadParameter(f"expected codes of {', '.join(CHECKS)}; got {', '.join(unknown)}")
    name = app_name(app)
    seen = observe(load(name), timeout, grace)
    diagnosis = diagnose(
        seen, [check for code, check in CHECKS.items() if code not in skip and (not only or code in only)]
    )
    text = json.dumps(as_data(name, seen, diagnosis), indent=1) if as_json else "\n".join(as_text(seen, diagnosis))
    click.echo(without_secrets(text))
    return 1 if diagnosis.found else 0


def as_data(name: str, seen: Observation, diagnosis: Diagnosis) -> dict[str, Any]:
    from poolbench.doctor.diagnosis import CHECKS  # noqa: PLC0415

    workers = [
        {"name": each.name, "pool": each.pool, "slots": each.slots, "on_this_host": each.process.seen}
        for each in seen.workers
    ]
    said = asdict(diagnosis)
    findings = [
        {word: getattr(CHECKS[code], word) for word in _WORDS} | {"places": places}
        for code, places in said.pop("found").items()
    ]
    about = {"schema": SCHEMA, "app": name, "broker": seen.broker.address, "workers": workers, "silent": seen.silent}
    return {**about, "findings": findings, **said}


def as_text(seen: Observation, diagnosis: Diagnosis) -> Iterator[str]:
    """For people: what is worst comes first."""
    from poolbench.doctor.diagnosis import CHECKS, SEVERITIES  # noqa: PLC0415

    workers = [f"{worker.name} ({worker.pool}, {counted(worker.slots, 'slot')})" for worker in seen.workers]
    yield from _wrapped("", f"Asked at {seen.broker.address}: {', '.join(workers) or 'no worker'}")
    if seen.silent:
        yield from _wrapped("", f"Did not answer all questions in time, so nothing is known: {', '.join(seen.silent)}")
    for severity, meaning in SEVERITIES.items():
        codes = [code for code in diagnosis.found if CHECKS[code].severity == severity]
        if codes:
            yield from ("", click.style(f"{severity.upper()}: {meaning}", bold=True))
        for code in codes:
            yield from ("", click.style(f"{code}  {CHECKS[code].title}", bold=True))
            yield from _places([f"{place.where}: {place.found}" for place in diagnosis.found[code]])
            for word in ("why", "evidence", "mend", "again"):
                yield from _wrapped(f"     {word:10}", getattr(CHECKS[code], word))
    if diagnosis.not_checked:
        yield from ("", click.style("Not checked", bold=True))
    for code, unseen in diagnosis.not_checked.items():
        yield from ("", f"{code}  {CHECKS[code].title}")
        yield from _places([f"{place.where}: {place.why}" for place in unseen])
    yield ""
    found = sum(map(len, diagnosis.found.values()))
    passed = f"; nothing found by {', '.join(diagnosis.passed)}" if diagnosis.passed else ""
    yield from _wrapped("", f"{counted(found, 'finding')} by {counted(len(diagnosis.found), 'check')}{passed}")


def _places(places: Sequence[str]) -> Iterator[str]:
    for place in places[:_PLACES]:
        yield from _wrapped("     - ", place)
    if len(places) > _PLACES:
        yield f"     - and {len(places) - _PLACES} more places: --json names all"


def _wrapped(first: str, text: str) -> list[str]:
    later = " " * len(first)
    return textwrap.TextWrapper(WIDTH, first, later, break_long_words=False, break_on_hyphens=False).wrap(text)
