"""The report: one model of it, from which its Markdown and its page are made.

The page: no network, no library, readable on a phone, on a desk, on paper. Its first screen has the answer in one
sentence, the bars and the command; then come the lanes, and all the rest is folded. The bars come in two widths, of
which one is shown; the lanes are drawn by the page's own script, and stand in words beside it. The policy in its head
forbids the page to load anything. Without Altair it has no charts, and says so.
"""

from __future__ import annotations

import json
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
from poolbench.lanes import Lane, Shown, in_words, name_of, render, shown
from poolbench.report import charts, tables
from poolbench.report.charts import Chart
from poolbench.report.palette import DARK, LIGHT, MARKS, variables
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
    for note in experiment.conditions:
        yield "Note", note


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
    sections = [section | _drawn(section) for section in map(_section, experiments)]
    templates = _templates(autoescape=True)
    templates.filters["tied"] = w.tied
    return templates.get_template("page.html.j2").render(
        sections=sections,
        marks=MARKS,
        style=Markup(_style() + (_TEMPLATES / "page.css").read_text()),  # noqa: S704 - ours
        script=Markup((_TEMPLATES / "lanes.js").read_text()),  # noqa: S704 - ours
        light=as_script(dict(LIGHT)),
        no_charts="" if charts.drawable() else charts.MISSING,
    )


def _style() -> str:
    light, dark = variables(LIGHT), variables(DARK)
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"@media print{{:root{{color-scheme:light;{light}}}}}"
    )


def _drawn(section: dict[str, Any]) -> dict[str, Any]:
    """What only the page has: charts, lanes for the script."""
    summary, drawable = section["summary"], charts.drawable()
    spans = [span for each in section["shown"] for span in each.chart.spans]
    throughput = charts.throughput(summary) if drawable else None
    return {
        "bars": _figure(charts.bars(summary), charts.bars(summary, charts.NARROW)) if drawable else None,
        "throughput": _figure(throughput) if throughput else None,
        "bytes": any(span.first_byte is not None for span in spans),
        "steps": any(span.step for span in spans),
        "failures": any(span.failed for span in spans),
        "data": as_script(timelines(section["shown"])),
    }


def _figure(wide: Chart, narrow: Chart | None = None) -> dict[str, Any]:
    drawn = [Markup(each.svg(alone=False)) for each in (wide, narrow) if each]  # noqa: S704 - escaped where drawn
    return {"title": wide.title, "reading": wide.reading, "drawn": drawn}


# -- what the script of the page gets

_TICK = 1e-4  # seconds: moments are whole tenths of milliseconds, shorter than as fractions


def timelines(shown: Sequence[Shown]) -> dict[str, Any]:
    """Per deployment its groups of lanes; an attempt is a row of numbers, its file a place in ``names``.

    On a packed lane it also has its executor, which the lane does not tell.
    """
    names: dict[str, int] = {}
    found = [
        {
            "name": each.name,
            "look": each.deployment.look,
            "end": _ticks(each.chart.end),
            "groups": [
                {
                    "label": group.label,
                    "executors": group.executors,
                    "lanes": [
                        {"label": lane.label, "spans": list(_rows(lane, names, packed=group.packed))}
                        for lane in group.lanes
                    ],
                }
                for group in each.chart.groups
            ],
        }
        for each in shown
    ]
    return {"tick": _TICK, "names": list(names), "deployments": found}


def _rows(lane: Lane, names: dict[str, int], *, packed: bool) -> Iterator[list[Any]]:
    for span in lane.spans:
        file = names.setdefault(span.job.filename, len(names))
        moments = (span.queued, span.received, span.started, span.first_byte, span.finished, span.step)
        row: list[Any] = [file, *map(_ticks, moments)]
        if packed or span.failed:
            row.append(name_of(span.executor) if packed and span.executor else None)
        yield [*row, span.failed] if span.failed else row


def _ticks(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds / _TICK)


def as_script(value: Any) -> Markup:
    """JSON inside of a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped
