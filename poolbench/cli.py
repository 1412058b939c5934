"""The command ``poolbench``; what reads measured runs is here: a report of them, and the advice that follows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from pydantic import TypeAdapter

from poolbench.advice import Advice, AnswerLimits, recommend
from poolbench.doctor.doctor_command import doctor_
from poolbench.experiment import Experiment
from poolbench.figures import against
from poolbench.report import charts, page
from poolbench.runfiles import ReportError, read, write_whole
from poolbench.statistics import summarise
from poolbench.tasks.commands import record_, run_
from poolbench.tasks.open_loop import keeping_up
from poolbench.tasks.plugin import leave

_FORMATS = (".html", ".md", ".svg", ".png")


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
def report_(*, runs: Sequence[Path], outputs: Sequence[Path]) -> int:
    """Write what was measured; without -o, the text on stdout.

    -o report.html is one file that needs nothing else; each run has a part of its own. A picture is the bars of
    one run.

    Exit codes: 0 written, 2 a file that is not a run, or one that cannot be written.
    """
    if wrong := [str(path) for path in outputs if path.suffix.lower() not in _FORMATS]:
        raise click.BadParameter(f"expected files that end in {', '.join(_FORMATS)}; got {', '.join(wrong)}")
    experiments = [read(path) for path in runs]
    if not outputs:
        click.echo(page.text(experiments), nl=False)
    for path in outputs:
        content = _made(experiments, path)
        write_whole(path, content)
        click.echo(f"{path}: {len(content):,} bytes", err=True)
    return 0


def _made(experiments: Sequence[Experiment], path: Path) -> bytes:
    suffix = path.suffix.lower()
    if suffix in (".md", ".html"):
        return (page.text if suffix == ".md" else page.page)(experiments).encode()
    if len(experiments) > 1:
        raise ReportError(f"expected one run for {path}, got {len(experiments)}")
    drawn = charts.bars(summarise(experiments[0])).svg()
    return charts.png(drawn) if suffix == ".png" else drawn.encode()


# -- recommend

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_ADVICE = TypeAdapter(tuple[Advice, ...])


def _bytes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """``268435456``, ``256M``, ``256MiB``"""
    found = re.fullmatch(r"([1-9][0-9]*)([kmg]?)(i?b)?", text.lower()) if text else None
    if text is not None and not found:
        raise click.BadParameter(f"expected bytes, or a number with K, M or G; got {text!r}")
    return int(found[1]) * _UNITS[found[2]] if found else None


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
    yield f"Scenario {advice.scenario}"
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
        yield from ("", f"{title}:", *(f"  {said}" for said in sentences))


for command in (run_, record_, report_, recommend_, doctor_):
    cli.add_command(command)
