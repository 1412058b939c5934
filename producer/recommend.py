"""``producer recommend``: which pool and how many slots, from what ``producer compare`` measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from pydantic import TypeAdapter

from producer.comparison.advice import Advice, recommend
from producer.comparison.pooling import agreeing, differences
from producer.comparison.reasons import Limits
from producer.comparison.wording import tick_seconds, tick_size
from producer.runs import read

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


@click.command("recommend", short_help="Say which pool and how many slots, from measured runs.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN.json...", type=click.Path(path_type=Path))
@click.option("--memory-limit", callback=_bytes, metavar="BYTES", help="At the peak, all processes; e.g. 256M.")
@click.option(
    "--p99", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="From the submission to a job's end."
)
@click.option("--json", "as_json", is_flag=True, help="The advice as JSON on stdout: a list, one per kind of run.")
def recommend_(*, runs: Sequence[Path], memory_limit: int | None, p99: float | None, as_json: bool) -> int:
    """Say which pool and how many slots to deploy for the work that was measured, and why.

    Runs of the same scenario, machine and versions are taken together; others are answered one by one.

    Exit codes: 0 an answer, 1 cannot tell (one of several is enough), 2 a file that cannot be used.
    """
    groups = agreeing([read(path) for path in runs])
    for group in groups[1:]:
        why = "; ".join(differences(groups[0][0], group[0]))
        click.echo(f"not taken together with {groups[0][0].scenario.name}, because they differ: {why}", err=True)
    advices = tuple(recommend(group, Limits(memory_limit, p99)) for group in groups)
    if as_json:
        click.echo(_ADVICE.dump_json(advices, indent=1).decode())
    else:
        click.echo("\n\n".join("\n".join(lines(advice)) for advice in advices))
    return 1 if any(advice.answer is None for advice in advices) else 0


def lines(advice: Advice) -> Iterator[str]:
    """The advice for people."""
    yield f"Scenario {advice.scenario}{_limits(advice.limits)}"
    if advice.answer is None:
        yield "  Cannot tell."
    else:
        yield f"  {advice.answer}"
        yield f"    {advice.command}"
        if advice.tied:
            yield f"  A tie: {', '.join(advice.tied)} did as well; chosen for {advice.criterion}."
        if advice.runner_up:
            yield f"  Runner-up: {advice.runner_up}, {advice.runner_up_rate}"
        yield f"  Confidence: {advice.confidence}"
    yield from _listed("Why not more confidence" if advice.answer else "Why", advice.because)
    yield from _listed("What it gives up", advice.gives_up)
    yield from _listed("What would change it", advice.would_change)
    yield from _listed("How this was found", [f"{n}. {line}" for n, line in enumerate(advice.reasoning, 1)])
    yield from _listed("What to measure next, with --json FILE to keep it", advice.next)


def _limits(limits: Limits) -> str:
    parts = [
        f"at most {tick_size(limits.memory)}" if limits.memory else "",
        f"p99 at most {tick_seconds(limits.p99)}" if limits.p99 else "",
    ]
    return "".join(f", {part}" for part in parts if part)


def _listed(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield ""
        yield f"{title}:"
        yield from (f"  {sentence}" for sentence in sentences)
