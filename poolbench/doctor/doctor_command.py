"""The command ``poolbench doctor``: what it is told, what it says, and with which code it ends."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from poolbench.figures import counted

if TYPE_CHECKING:  # both need Celery, and so the project's environment
    from poolbench.doctor.diagnosis import Check, Diagnosis
    from poolbench.doctor.observed import Observed

SCHEMA = "poolbench.doctor/1"
WIDTH = 100
_PLACES = 5  # shown of one check; --json has all
MEANING = {
    "error": "does not do now what it is set to do",
    "warning": "loses, repeats or stops work when something fails",
    "note": "costs speed, or the sight of what happens",
}


class NoDiagnosis(click.ClickException):
    """Nothing can be asked, and one sentence says why."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(_without_secrets(message))


def _codes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(code.strip().upper() for code in (text or "").split(",") if code.strip())


@click.command("doctor", short_help="Check live Celery workers and their broker.")
@click.option("-A", "--app", "name", envvar="APP", metavar="APP", help="As for celery: shop.celery:app.")
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
@click.pass_context
def doctor_(
    context: click.Context,
    *,
    name: str | None,
    only: Sequence[str],
    skip: Sequence[str],
    timeout: float,
    grace: float | None,
    as_json: bool,
) -> None:
    """Ask the live workers of a Celery project, and their broker, for settings that do not do what they seem to.

    Nothing is changed and no task is sent. Run it where the project can be imported; on the host of the workers, or in
    their container, it sees their command lines too.

    Exit codes: 0 nothing found, 1 findings, 2 it could not ask: the app, the broker or the workers.
    """
    try:
        from poolbench.doctor.diagnosis import checks, diagnose  # noqa: PLC0415 - needs Celery
        from poolbench.doctor.observed import CannotAskError, observe  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise NoDiagnosis(f"expected Celery beside poolbench, in the project's environment; got: {error}") from error
    table = checks()
    if unknown := [code for code in (*only, *skip) if code not in table]:
        raise click.BadParameter(f"expected codes of {', '.join(table)}; got {', '.join(unknown)}")
    try:
        app = _app(name) if name else _app_of(context)
        seen = observe(app, timeout, grace)
    except CannotAskError as error:
        raise NoDiagnosis(str(error)) from error
    asked = [check for code, check in table.items() if code not in skip and (not only or code in only)]
    diagnosis = diagnose(seen, asked)
    if as_json:
        said = json.dumps(as_data(name or app.main, seen, diagnosis, table), indent=1)
    else:
        said = "\n".join(as_text(seen, diagnosis, table))
    click.echo(_without_secrets(said))
    context.exit(1 if diagnosis.found else 0)


def _app_of(context: click.Context) -> Any:
    """The app of ``celery -A shop.celery poolbench doctor``."""
    if (app := getattr(context.obj, "app", None)) is None:
        raise click.UsageError("expected the project's app: -A shop.celery:app", context)
    app.loader.import_default_modules()
    return app


def _app(name: str) -> Any:
    """The project's app with all its tasks; importing runs the project's code, as each of its workers does.

    Raises:
        NoDiagnosis: it cannot be imported, or is no app.
    """
    from celery import Celery  # noqa: PLC0415
    from celery.app.utils import find_app  # noqa: PLC0415

    sys.path[:0] = [str(Path.cwd())]  # a console script has its own folder there
    try:
        app = find_app(name)
        if isinstance(app, Celery):
            app.loader.import_default_modules()
            app.finalize()
    except (Exception, SystemExit) as error:
        raise NoDiagnosis(
            f"the app {name!r} cannot be imported: {type(error).__name__}: {error}; expected what celery -A takes, "
            "e.g. shop.celery:app, in the folder where its workers start"
        ) from error
    if not isinstance(app, Celery):
        raise NoDiagnosis(f"expected a Celery app at {name!r}, got {type(app).__name__}; name it: module:app")
    return app


def _without_secrets(text: str) -> str:
    return re.sub(r"(\w://)[^/@\s\"]*@", r"\1", text)


def as_data(name: str, seen: Observed, diagnosis: Diagnosis, table: Mapping[str, Check]) -> dict[str, Any]:
    words = ("code", "title", "severity", "why", "evidence", "again", "mend")
    return {
        "schema": SCHEMA,
        "app": name,
        "broker": seen.broker.address,
        "workers": [
            {
                "name": worker.name,
                "pool": worker.pool,
                "slots": worker.slots,
                "on_this_host": worker.process is not None,
            }
            for worker in seen.workers
        ],
        "silent": seen.silent,
        "findings": [
            {word: getattr(table[code], word) for word in words} | {"places": [asdict(place) for place in places]}
            for code, places in diagnosis.found.items()
        ],
        "not_checked": {code: [asdict(place) for place in places] for code, places in diagnosis.not_checked.items()},
        "passed": diagnosis.passed,
    }


def as_text(seen: Observed, diagnosis: Diagnosis, table: Mapping[str, Check]) -> Iterator[str]:
    """For people: what is worst comes first."""
    workers = [f"{worker.name} ({worker.pool}, {counted(worker.slots, 'slot')})" for worker in seen.workers]
    yield from _wrapped("", f"Asked at {seen.broker.address}: {', '.join(workers) or 'no worker'}")
    if seen.silent:
        yield from _wrapped("", f"Did not answer all questions in time, so nothing is known: {', '.join(seen.silent)}")
    for severity, meaning in MEANING.items():
        codes = [code for code in diagnosis.found if table[code].severity == severity]
        if codes:
            yield from ("", click.style(f"{severity.upper()}: {meaning}", bold=True))
        for code in codes:
            check, places = table[code], diagnosis.found[code]
            yield from ("", click.style(f"{code}  {check.title}", bold=True))
            yield from _places(places, lambda place: f"{place.where}: {place.found}")
            for word in ("why", "evidence", "mend"):
                yield from _wrapped(f"     {word:10}", getattr(check, word))
            yield from _wrapped(f"     {'again':10}", check.again)
    if diagnosis.not_checked:
        yield from ("", click.style("Not checked", bold=True))
        for code, unseen in diagnosis.not_checked.items():
            yield from ("", f"{code}  {table[code].title}")
            yield from _places(unseen, lambda place: f"{place.where}: {place.why}")
    yield ""
    found = sum(map(len, diagnosis.found.values()))
    passed = f"; nothing found by {', '.join(diagnosis.passed)}" if diagnosis.passed else ""
    yield from _wrapped("", f"{counted(found, 'finding')} by {counted(len(diagnosis.found), 'check')}{passed}")


def _places(places: Sequence[Any], words: Callable[[Any], str]) -> Iterable[str]:
    for place in places[:_PLACES]:
        yield from _wrapped("     - ", words(place))
    if len(places) > _PLACES:
        yield f"     - and {len(places) - _PLACES} more places: --json names all"


def _wrapped(first: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
