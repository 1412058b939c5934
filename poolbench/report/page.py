"""The report as Markdown, as one page that needs nothing else, and as pictures.

The page: no network, no library, readable on a phone, on a desk, on paper. The answer comes first. Charts come in two
widths, of which one is shown; the lanes are drawn by the page's own script, and stand in words beside it. The policy in
its head forbids the page to load anything. Without Altair it has no charts, and says so.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from poolbench import figures as w
from poolbench.advice import Advice, Confidence, recommend
from poolbench.choice import WITHIN_NOISE
from poolbench.experiment import Experiment, Measurement, to_json
from poolbench.lanes import Lane, Shown, name_of, render, shown
from poolbench.report import charts, lanes_svg
from poolbench.report.charts import Chart
from poolbench.report.lanes_svg import Drawing, in_words, said
from poolbench.report.palette import DARK, DRAWING, LIGHT, look, variables
from poolbench.report.tables import Cell, ReportData, Table, bars_data, jobs_of, report_data
from poolbench.runfiles import ReportError, agreeing, pooled
from poolbench.statistics import Summary, summarise

_SURE = {
    Confidence.HIGH: "nothing that was measured limits it",
    Confidence.MODERATE: "one or two things limit it",
    Confidence.LOW: "several things limit it",
    Confidence.NONE: "so no pool is recommended",
}


@dataclass(frozen=True, slots=True)
class Answer:
    sentence: str
    confidence: str  # "high", ..., "cannot tell"
    means: str
    advice: Advice

    @property
    def lists(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What else there is to say, by its heading."""
        of = self.advice
        found = (
            ("What limits the confidence" if of.answer else "Why not", of.because),
            ("The runner-up", (f"{of.runner_up}, {of.runner_up_rate}",) if of.runner_up else ()),
            ("What it gives up", of.gives_up),
            ("What would change the answer", of.would_change),
            ("What would make it surer", of.next),
            ("How it was found", of.reasoning),
        )
        return tuple((heading, lines) for heading, lines in found if lines)


def answer(advice: Advice, summary: Summary) -> Answer:
    return Answer(_sentence(advice, summary), advice.confidence.value, _SURE[advice.confidence], advice)


def _sentence(advice: Advice, summary: Summary) -> str:
    if advice.answer is None:
        return "These measurements cannot tell which deployment is best."
    rate = summary.row(advice.answer).jobs_per_second
    did = f" did {w.significant(rate.median)} jobs per second" if rate else " is the one to take"
    if advice.tied:
        others = _and(advice.tied)
        decided = advice.criterion if advice.criterion != WITHIN_NOISE else None
        return f"{advice.answer}{did}, no slower than {others}" + (f" and with {decided}." if decided else ".")
    found = summary.compare(advice.answer, advice.runner_up).ratio if advice.runner_up else None
    if found is None:
        return f"{advice.answer}{did}."
    if found.median < 1:
        return f"{advice.answer}{did}: {w.percent(found.median)} of {advice.runner_up}, at a lower concurrency."
    return f"{advice.answer}{did}, {w.times(found.median)} as many as {advice.runner_up}."


def _and(names: tuple[str, ...]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


# -- as text

_WIDTH = 100  # columns of the timeline
_SPECIAL = re.compile(r"([\\`*_\[\]<>|&#~])")


def text(experiments: Sequence[Experiment]) -> str:
    lines: list[str] = []
    for group in agreeing(experiments):
        experiment = pooled(group)
        told = report_data(experiment)
        lines += [*_section_in_words(told, answer(recommend(group, conditions=False), told.summary)), ""]
    return "\n".join(lines)


def _section_in_words(told: ReportData, answered: Answer) -> Iterator[str]:
    advice = answered.advice
    yield f"# {plain(answered.sentence)}"
    yield ""
    yield f"**{'Confidence: ' if advice.answer else ''}{answered.confidence}** ({answered.means})"
    if advice.command:
        yield from ("", *_code([advice.command]))
    yield from ("", f"**{plain(told.title)}** {plain(told.about)}.")
    for heading, lines in answered.lists:
        yield from ("", f"**{heading}**", "", *(f"- {plain(line)}" for line in lines))
    yield from ("", "## The figures")
    for table in told.tables:
        yield from ("", *_table(table))
    yield from ("", "## Who ran when", "", *(f"- {plain(said(each))}" for each in shown(told.experiment)))
    yield from ("", *_code(render(told.experiment, width=_WIDTH)))
    yield from ("", "## Can it be trusted?", "")
    if told.excluded:
        yield from _table(told.excluded)
    else:
        yield "Every turn counts; none was left out but the warm-up."
    yield from ("", *_table(told.checks), "", "## Conditions", "")
    yield from (f"- {plain(term)}: {plain(said)}" for term, said in told.conditions)


def _table(table: Table) -> Iterator[str]:
    yield f"**{table.caption}** {table.reading}"
    yield ""
    yield _row(table.columns)
    yield _row(["---", *["---:"] * (len(table.columns) - 1)])
    for line in table.lines:
        yield _row([plain(line.name), *(_cell(cell) for cell in line.cells)])


def _cell(cell: Cell) -> str:
    return plain(cell.text) + (f" ({plain(cell.note)})" if cell.note else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    """A block whose lines cannot end it."""
    found = [_printable(line) for line in lines]
    fence = "`" * max([3, *(len(run) + 1 for line in found for run in re.findall("`+", line))])
    yield from (fence, *found, fence)


def plain(said: str) -> str:
    """Text that others wrote, as text: nothing in it is markup, or steers a terminal."""
    return _SPECIAL.sub(r"\\\1", _printable(said))


def _printable(said: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in said)


# -- as a page


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its heading and how to read it; two widths of it, or one that fits both."""

    title: str
    reading: str
    wide: Markup
    narrow: Markup | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Runs of one kind."""

    sheet: ReportData
    answer: Answer
    race: Figure | None
    lanes: tuple[tuple[str, str, str], ...]  # per deployment: name, look, in words
    figures: tuple[Figure, ...]
    curves: tuple[Figure, ...]
    steps: bool  # whether any job shown had one
    failures: bool  # whether any attempt shown failed
    data: Markup
    raw: str


def page(experiments: Sequence[Experiment]) -> str:
    sections = [_section(pooled(group), recommend_of=group) for group in agreeing(experiments)]
    folder = Path(__file__).parent / "templates"
    templates = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.filters["tied"] = w.tied
    return templates.get_template("page.html.j2").render(
        sections=sections,
        style=Markup(_style() + (folder / "page.css").read_text()),  # noqa: S704 - ours
        script=Markup((folder / "lanes.js").read_text()),  # noqa: S704 - ours
        light=as_script(dict(LIGHT)),
        no_charts="" if charts.drawable() else charts.MISSING,
    )


def _style() -> str:
    light, dark = variables(LIGHT), variables(DARK)
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"@media print{{:root{{color-scheme:light;{light}}}}}"
        f"{DRAWING}"
    )


def _section(experiment: Experiment, *, recommend_of: Sequence[Experiment]) -> Section:
    told = report_data(experiment)
    found = shown(experiment)
    drawable = charts.drawable()
    return Section(
        sheet=told,
        answer=answer(recommend(recommend_of, conditions=False), told.summary),
        race=_race(told) if drawable else None,
        lanes=tuple((each.deployment.name, look(each.deployment), in_words(each)) for each in found),
        figures=(_split(told),) if drawable else (),
        curves=tuple(_curves(told)) if drawable else (),
        steps=any(span.step for each in found for span in each.chart.spans),
        failures=any(span.failed for each in found for span in each.chart.spans),
        data=as_script(timelines(found)),
        raw=compressed(experiment),
    )


def _race(told: ReportData) -> Figure:
    of = bars_data(told.experiment, told.summary)
    how = "One at a time, jobs take their sum; all at once, no less than the longest of them (the upright line)."
    if of.own:
        how += " Each deployment has jobs of its own: the outline is their sum, the bar what they took."
    else:
        how += " A bar is what a deployment took."
        if of.common:
            asked = "the origin was asked to take for each job" if of.common.planned else "the jobs ran"
            how += f" The outlined bar is the sum of what {asked}."
    how += " Whiskers: the interval of the median."
    for row in of.partial:
        how += f" {row.name} ran {jobs_of(told.experiment, row):,} of the jobs and is not drawn."
    return _figure(how, *(charts.bars(told.experiment, told.summary, width) for width in (charts.WIDE, charts.NARROW)))


def _split(told: ReportData) -> Figure:
    how = (
        "Upper bar: a job's way from the submission to its end, on average; thin while it waits, full while it runs,"
        " with a dark foot for the step after the download. Lower bar: what a job cost of the slots' time; hollow is"
        " overhead, in which a slot ran none of our jobs."
    )
    return _figure(how, *(charts.split(told.experiment, told.summary, width) for width in (charts.WIDE, charts.NARROW)))


def _curves(told: ReportData) -> Iterator[Figure]:
    few = len(charts.drawn(told.summary)) < len(told.summary.rows)
    which = " Of each pool the fastest is drawn." if few else ""
    spread = f"Higher and further left is faster: the share of jobs that took no longer than so long.{which}"
    for kind in charts.KINDS:
        if chart := charts.distribution(told.experiment, told.summary, kind):
            yield _figure(f"{spread} Marks: a half, and 95 %.", chart)
    reading = {
        "throughput": "Where a line turns flat is its saturation point: a higher concurrency brings nothing more.",
        "memory": "All processes of the worker together, at the peak.",
    }
    for kind, how in reading.items():
        if chart := charts.against_concurrency(told.summary, kind):
            yield _figure(how, chart)


def _figure(how: str, wide: Chart, narrow: Chart | None = None) -> Figure:
    in_page = [Markup(each.svg(alone=False)) for each in (wide, narrow) if each]  # noqa: S704 - escaped by who drew it
    return Figure(wide.title, how, *in_page)


# -- what the script of the page gets

# 10 µs: of ten thousand jobs' moments, the digits behind would be most of the page.
_FRACTION = re.compile(r"(\.\d{5})\d+(?=,?$)", re.MULTILINE)
_INDENT = re.compile(r"^ +", re.MULTILINE)
_TICK = 1e-4  # seconds: moments are whole tenths of milliseconds, shorter than as fractions


def timelines(shown: Sequence[Shown]) -> dict[str, Any]:
    """Per deployment its groups of lanes; an attempt is a row of numbers, its file a place in ``names``.

    On a packed lane it also has its executor, which the lane does not tell.
    """
    names: dict[str, int] = {}
    found = [_deployment(each, names) for each in shown]
    return {"tick": _TICK, "names": list(names), "deployments": found}


def _deployment(shown: Shown, names: dict[str, int]) -> dict[str, Any]:
    measurement = shown.measurement
    groups = [
        {
            "label": group.label,
            "executors": group.executors,
            "lanes": [_lane(lane, measurement, names, packed=group.packed) for lane in group.lanes],
        }
        for group in shown.chart.groups
    ]
    name = shown.deployment.name
    return {"name": name, "look": look(shown.deployment), "end": _ticks(shown.chart.end), "groups": groups}


def _lane(lane: Lane, measurement: Measurement, names: dict[str, int], *, packed: bool) -> dict[str, Any]:
    rows: list[list[Any]] = []
    for span in lane.spans:
        job = measurement.jobs[span.job]
        row: list[Any] = [
            names.setdefault(job.filename, len(names)),
            _ticks(span.queued),
            None if span.received is None else _ticks(span.received),
            _ticks(span.started),
            None if span.first_byte is None else _ticks(span.first_byte),
            _ticks(span.finished),
            _ticks(span.step),
        ]
        if packed or span.failed:
            row.append(name_of(span.executor) if packed and span.executor else None)
        if span.failed:
            row.append(span.failed)
        rows.append(row)
    return {"label": lane.label, "spans": rows}


def _ticks(seconds: float) -> int:
    return round(seconds / _TICK)


def as_script(value: Any) -> Markup:
    """JSON inside of a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped


def compressed(experiment: Experiment) -> str:
    """The experiment's JSON, without indents and with fractions cut after five digits; gzip, base64.

    One value stands on each line, and a text ends with its quotation mark: only numbers are cut.
    """
    text = _INDENT.sub("", _FRACTION.sub(r"\1", to_json(experiment)))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


# -- as pictures

Part = Callable[[Experiment, Summary], Chart | Drawing | None]
PARTS: Mapping[str, Part] = {
    "timeline": lambda experiment, _: lanes_svg.timeline(experiment),
    "table": lanes_svg.table,
    "bars": charts.bars,
    "split": charts.split,
    "latency": lambda experiment, summary: charts.distribution(experiment, summary, "latency"),
    "run": lambda experiment, summary: charts.distribution(experiment, summary, "run"),
    "throughput": lambda _, summary: charts.against_concurrency(summary, "throughput"),
    "memory": lambda _, summary: charts.against_concurrency(summary, "memory"),
}


def svg(experiment: Experiment, part: str) -> str:
    """
    Raises:
        ReportError: the experiment has nothing to show in this part, or what draws it is not installed.
    """
    drawing = PARTS[part](experiment, summarise(experiment))
    if drawing is None:
        missing = {"timeline": "no turn's jobs were kept", "latency": "no turn counts", "run": "no turn counts"}
        why = missing.get(part, "no pool was measured at several concurrencies")
        raise ReportError(f"expected something to draw for {part}, got none: {why}")
    return drawing.svg()


def png(experiment: Experiment, part: str) -> bytes:
    """Twice as many pixels as the drawing has, for screens and paper.

    Raises:
        ReportError: nothing to draw, or what draws it is not installed.
    """
    return charts.png(svg(experiment, part))
