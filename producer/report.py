"""``producer report``: what ``producer compare`` measured, as a page, a text, pictures and a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from producer import whole
from producer.comparison import trace
from producer.comparison.experiment import Experiment
from producer.comparison.pooling import agreeing, differences, pooled
from producer.comparison.report import html, markdown, pictures
from producer.errors import ReportError
from producer.runs import read

# The longest first: .trace.json is not a format of its own for .json.
_FORMATS = (".trace.json.gz", ".trace.json", ".html", ".htm", ".md", ".svg", ".png")
_ONE_KIND = (".trace.json.gz", ".trace.json", ".svg", ".png")


@click.command("report", short_help="Show measured runs: page, text, pictures, trace.")
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
    "--trace", "traced", type=click.Path(path_type=Path), metavar="FILE", help="A trace for Perfetto; .gz: compressed."
)
@click.option(
    "--part",
    type=click.Choice(list(pictures.PARTS)),
    help="Of a picture; default: the one after which the file is named, else the timeline.",
)
def report_(*, runs: Sequence[Path], outputs: Sequence[Path], traced: Path | None, part: str | None) -> int:
    """Write what was measured; without -o and --trace, the text on stdout.

    -o report.html is one file that needs nothing else. Runs of the same scenario, machine and versions are taken
    together; others get a part of their own, and pictures and traces are of one kind of runs only.

    Exit codes: 0 written, 2 a file that is not a run, or one that cannot be written.
    """
    suffixes = [_suffix(path) for path in outputs]
    experiments = [read(path) for path in runs]
    if not outputs and traced is None:
        click.echo(markdown.text(experiments), nl=False)
        return 0
    for path, suffix in zip(outputs, suffixes, strict=True):
        _write(path, _made(experiments, path, suffix, part))
    if traced is not None:
        compressed = traced.name.lower().endswith(".gz")
        _write(traced, trace.to_bytes(_one_kind(experiments, traced), compressed=compressed))
    return 0


def _suffix(path: Path) -> str:
    found = next((suffix for suffix in _FORMATS if path.name.lower().endswith(suffix)), None)
    if found is None:
        raise click.BadParameter(f"expected a file that ends in {', '.join(_FORMATS)}; got {str(path)!r}")
    return found


def _made(experiments: Sequence[Experiment], path: Path, suffix: str, part: str | None) -> bytes:
    if suffix in _ONE_KIND:
        experiment = _one_kind(experiments, path)
        if suffix.startswith(".trace"):
            return trace.to_bytes(experiment, compressed=suffix.endswith(".gz"))
        stem = path.name[: -len(suffix)]
        what = part or (stem if stem in pictures.PARTS else "timeline")
        try:
            return pictures.png(experiment, what) if suffix == ".png" else pictures.svg(experiment, what).encode()
        except pictures.PictureError as error:
            raise ReportError(f"{path}: {error}") from error
    return (markdown.text(experiments) if suffix == ".md" else html.page(experiments)).encode()


def _one_kind(experiments: Sequence[Experiment], path: Path) -> Experiment:
    groups = agreeing(experiments)
    if len(groups) > 1:
        why = "; ".join(differences(groups[0][0], groups[1][0]))
        raise ReportError(f"expected runs of one kind for {path}, got {len(groups)} kinds: {why}")
    return pooled(groups[0])


def _write(path: Path, content: bytes) -> None:
    try:
        whole.write(path, content)
    except OSError as error:
        raise ReportError(f"expected to write {path}, got: {error.strerror or error}") from error
    click.echo(f"{path}: {len(content):,} bytes", err=True)
