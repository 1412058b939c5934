"""The command ``poolbench``; what reads measured runs is here: a report of them, and the advice that follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import click
from pydantic import TypeAdapter

from poolbench.advice import Advice, AnswerLimits, recommend
from poolbench.doctor.doctor_command import doctor_
from poolbench.experiment import Experiment
from poolbench.figures import against, tick_seconds, tick_size
from poolbench.report import page
from poolbench.runfiles import ReportError, read, write_whole
from poolbench.tasks.commands import record_, run_
from poolbench.tasks.open_loop import keeping_up
from poolbench.tasks.plugin import leave

_FORMATS = (".html", ".htm", ".md", ".svg", ".png")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="poolbench")
def cli() -> None:
    """Which Celery pool, with what concurrency? Measured on your own tasks."""


cli.result_callback()(leave)


def main() -> None:
    cli(prog_name="poolbench")


@click.command("report", short_help="Show measured runs: page, text, pictures.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN.json...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"What to write, by its suffix: {', '.join(_FORMATS)}. May be repeated.",
)
@click.option(
    "--part",
    type=click.Choice(list(page.PARTS)),
    help="Of a picture; default: the one after which the file is named, else the bars.",
)
def report_(*, runs: Sequence[Path], outputs: Sequence[Path], part: str | None) -> int:
    """Write what was measured; without -o, the text on stdout.

    -o report.html is one file that needs nothing else; each run has a part of its own. A picture is of one run.

    Exit codes: 0 written, 2 a file that is not a run, or one that cannot be written.
    """
    wanted = [(path, _suffix(path)) for path in outputs]
    experiments = [read(path) for path in runs]
    if not wanted:
        click.echo(page.text(experiments), nl=False)
    for path, suffix in wanted:
        content = _made(experiments, path, suffix, part)
        try:
            write_whole(path, content)
        except OSError as error:
            raise ReportError(f"expected to write {path}, got: {error.strerror or error}") from error
        click.echo(f"{path}: {len(content):,} bytes", err=True)
    return 0


def _suffix(path: Path) -> str:
    found = next((suffix for suffix in _FORMATS if path.name.lower().endswith(suffix)), None)
    if found is None:
        raise click.BadParameter(f"expected a file that ends in {', '.join(_FORMATS)}; got {str(path)!r}")
    return found


def _made(experiments: Sequence[Experiment], path: Path, suffix: str, part: str | None) -> bytes:
    if suffix == ".md":
        return page.text(experiments).encode()
    if suffix in (".html", ".htm"):
        return page.page(experiments).encode()
    if len(experiments) > 1:
        raise ReportError(f"expected one run for {path}, got {len(experiments)}")
    stem = path.name[: -len(suffix)]
    what = part or (stem if stem in page.PARTS else "bars")
    try:
        return page.png(experiments[0], what) if suffix == ".png" else page.svg(experiments[0], what).encode()
    except ReportError as error:
        raise ReportError(f"{path}: {error}") from error


# -- recommend

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_ADVICE = TypeAdapter(tuple[Advice, ...])


def _bytes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """``268435456``, ``256M``, ``256MiB``"""
    if text is None:
        return None
    number = text.lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:].isalpha() else ""
    digits = number.removesuffix(unit)
    if unit not in _UNITS or not (digits.isascii() and digits.isdigit()) or int(digits) == 0:
        raise click.BadParameter(f"expected bytes, or a number with K, M or G; got {text!r}")
    return int(digits) * _UNITS[unit]


@click.command("recommend", short_help="Say which pool, with what concurrency, from measured runs.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN.json...", type=click.Path(path_type=Path))
@click.option("--memory-limit", callback=_bytes, metavar="BYTES", help="At the peak, all processes; e.g. 256M.")
@click.option(
    "--p99", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="From the submission to a job's end."
)
@click.option("--json", "as_json", is_flag=True, help="The advice as JSON on stdout: a list, one per run.")
def recommend_(*, runs: Sequence[Path], memory_limit: int | None, p99: float | None, as_json: bool) -> int:
    """Say which pool to deploy, with what concurrency, for the work that was measured, and why.

    Exit codes: 0 an answer, 1 cannot tell (one of several is enough), 2 a file that cannot be used.
    """
    limits = AnswerLimits(memory_limit, p99)
    advices = tuple(recommend(keeping_up(read(path))[0], limits) for path in runs)
    if as_json:
        click.echo(_ADVICE.dump_json(advices, indent=1).decode())
    else:
        click.echo("\n\n".join("\n".join(lines(advice)) for advice in advices))
    return 1 if any(advice.answer is None for advice in advices) else 0


def lines(advice: Advice) -> Iterator[str]:
    """The advice for people."""
    limits = advice.limits
    memory = f", at most {tick_size(limits.memory)}" if limits.memory else ""
    yield f"Scenario {advice.scenario}{memory}{f', p99 at most {tick_seconds(limits.p99)}' if limits.p99 else ''}"
    yield f"  {advice.headline}"
    if advice.answer:
        yield f"  Confidence: {advice.confidence}"
        yield f"    {advice.command}"
    elif advice.compared:
        yield "  No answer yet."
    if advice.beside:
        yield from ("", f"{advice.beside[0].a} beside the others, by jobs per second:")
        yield from (f"  {each.b}: {against(each)}" for each in advice.beside)
    for title, sentences in advice.lists:
        numbers = (f"{n}. " for n in range(1, len(sentences) + 1)) if sentences is advice.reasoning else repeat("")
        yield from ("", f"{title}:", *(f"  {number}{said}" for number, said in zip(numbers, sentences, strict=False)))


for command in (run_, record_, report_, recommend_, doctor_):
    cli.add_command(command)
