"""The report: one model of it, from which its Markdown and its page are made.

The page: no network, no library, readable on a phone, on a desk, on paper. Its first screen has the answer in one
sentence, the bars and the command; then come the lanes, and all the rest is folded. The bars come in two widths, of
which one is shown; the lanes are drawn by the page's own script, and stand in words beside it. The policy in its head
forbids the page to load anything. Without Altair it has no charts, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from poolbench import checks
from poolbench import figures as w
from poolbench.advice import recommend
from poolbench.experiment import Experiment
from poolbench.lanes import Shown, Span, in_words, name_of, render, shown
from poolbench.report import charts, tables
from poolbench.report.palette import DARK, LIGHT, MARKS
from poolbench.statistics import METHOD, Summary, summarise
from poolbench.tasks import open_loop


def _section(experiment: Experiment) -> dict[str, Any]:
    """What a report says of a run, by the names that both templates use."""
    advice = recommend(experiment)
    summary, kept, demonstration = summarise(experiment), shown(experiment), experiment.scenario.demonstration
    title = experiment.scenario.title or experiment.scenario.name
    found = (tables.speed(summary, advice.beside), tables.arrivals(experiment), tables.cost(summary))
    return {
        "experiment": experiment,
        "summary": summary,
        "shown": kept,
        "advice": advice,
        "demonstration": demonstration,
        "lists": [] if demonstration else advice.lists,
        "title": title[:1].upper() + title[1:],
        "took": w.bars([(row.name, row.wall.median) for row in summary.whole if row.wall], 80),
        "about": _about(experiment, summary),
        "arrivals": open_loop.sentence(experiment.open_loop) if experiment.open_loop else "",
        "tables": [tables.known(table) for table in found if table.lines],
        "lanes": [(each.name, each.deployment.look, in_words(each)) for each in kept],
        "excluded": [f"{row.name} {why}" for row in summary.rows for why in row.excluded],
        "checks": checks.said(experiment),
        "conditions": list(_conditions(experiment)),
    }


def _about(experiment: Experiment, summary: Summary) -> str:
    jobs, deployments = experiment.scenario.jobs, len(experiment.deployments)
    each = f"{w.counted(jobs, 'job')} for each of {w.counted(deployments, 'deployment')}"
    return f"{each}, {w.counted(summary.rounds, 'round')}; {_moment(experiment.started)}"


def _conditions(experiment: Experiment) -> Iterator[tuple[str, str]]:
    yield "Command", experiment.command
    yield "When", f"{_moment(experiment.started)} to {_moment(experiment.finished)}"
    machine = experiment.machine | {"memory": w.size(float(experiment.machine.get("memory") or 0))}
    yield "Machine", ", ".join(f"{name} {machine[name]}" for name in experiment.machine)
    if cores := experiment.cores:
        probes = ", ".join(f"{probe:.2f}" for probe in cores.probes)
        yield "Cores", f"{cores.nominal} by name, {cores.effective:.2f} really given (probes: {probes})"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in experiment.versions.items())
    for each in experiment.deployments:
        yield each.name, "was running already" if each.running else each.command or ""
    yield "Method", METHOD
    yield from (("Note", note) for note in experiment.notes if note not in experiment.caveats)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# -- as Markdown and as a page

_TEMPLATES = Path(__file__).parent / "templates"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|&#~])")


def _templates(**how: Any) -> Environment:
    loader = FileSystemLoader(_TEMPLATES)
    return Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, **how)  # noqa: S701


def text(experiments: Sequence[Experiment]) -> str:
    """As Markdown: nothing that others wrote is markup, or steers a terminal."""
    templates = _templates(finalize=lambda value: value if isinstance(value, Markup) else _plain(str(value)))
    templates.filters["code"] = _code
    sections = [_section(experiment) for experiment in experiments]
    for section in sections:
        section["timeline"] = render(section["experiment"], width=100)
    return templates.get_template("report.md.j2").render(sections=sections)


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", w.printable(text))


def _code(lines: Sequence[str]) -> Markup:
    """A block whose lines cannot end it."""
    text = "\n".join(map(w.printable, lines))
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return Markup(f"{fence}\n{text}\n{fence}")  # noqa: S704 - as code


def page(experiments: Sequence[Experiment]) -> str:
    templates = _templates(autoescape=True)
    templates.filters["tied"] = w.tied
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return templates.get_template("page.html.j2").render(
        sections=[section | _drawn(section) for section in map(_section, experiments)],
        marks=MARKS,
        light=dict(LIGHT),
        dark=dict(DARK),
        no_charts="" if charts.drawable() else charts.MISSING,
    )


def _drawn(section: dict[str, Any]) -> dict[str, Any]:
    """What only the page has: charts, lanes for the script."""
    summary, drawable = section["summary"], charts.drawable()
    spans = [span for each in section["shown"] for span in each.chart.spans]
    return {
        "bars": charts.bars(summary) if drawable else None,
        "narrow": charts.bars(summary, charts.NARROW) if drawable else None,
        "throughput": charts.throughput(summary) if drawable else None,
        "bytes": any(span.first_byte is not None for span in spans),
        "steps": any(span.step for span in spans),
        "failures": any(span.failed for span in spans),
        "data": timelines(section["shown"]),
    }


# -- what the script of the page gets

_TICK = 1e-4  # seconds: moments are whole tenths of milliseconds, shorter than as fractions


def timelines(shown: Sequence[Shown]) -> dict[str, Any]:
    """Per deployment its groups of lanes; an attempt is a row of numbers, its file a place in ``names``.

    On a packed lane it also has its executor, which the lane does not tell.
    """
    names: dict[str, int] = {}
    found = [
        {"name": each.name, "look": each.deployment.look, "end": _ticks(each.chart.end), "groups": [
            {"label": group.label, "executors": group.executors, "lanes": [
                {"label": lane.label, "spans": [_row(span, names, packed=group.packed) for span in lane.spans]}
                for lane in group.lanes
            ]} for group in each.chart.groups
        ]} for each in shown
    ]  # fmt: skip
    return {"tick": _TICK, "names": list(names), "deployments": found}


def _row(span: Span, names: dict[str, int], *, packed: bool) -> list[Any]:
    file = names.setdefault(span.job.filename, len(names))
    moments = (span.queued, span.received, span.started, span.first_byte, span.finished, span.step)
    who = name_of(span.executor) if packed and span.executor else None
    row = [file, *map(_ticks, moments), *([who] if packed or span.failed else [])]
    return [*row, span.failed] if span.failed else row


def _ticks(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds / _TICK)
