"""The report as one page that needs nothing else: no network, no library, readable on a phone, on a desk, on paper.

The answer comes first. Drawings come in two widths, of which one is shown; the timelines are drawn by the page's own
script, and stand in words beside it. The policy in its head forbids the page to load anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from poolbench.advice import recommend
from poolbench.experiment import Experiment
from poolbench.lanes import shown
from poolbench.report import bars, curves
from poolbench.report.answer import Answer, answer
from poolbench.report.drawing import Drawing, templates
from poolbench.report.embedded import as_script, compressed, timelines
from poolbench.report.palette import DARK, DRAWING, LIGHT, look, variables
from poolbench.report.race import drawn, jobs_of, race
from poolbench.report.sheet import Sheet, sheet
from poolbench.report.still import in_words
from poolbench.runfiles import agreeing, pooled

_WIDE, _NARROW = 1040.0, 346.0  # pixels of a drawing of bars, on a desk and on a phone


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its heading and how to read it; two widths of it, or one that fits both."""

    title: str
    reading: str
    wide: Markup
    narrow: Markup | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Runs of one kind."""

    sheet: Sheet
    answer: Answer
    race: Figure
    lanes: tuple[tuple[str, str, str], ...]  # per contestant: name, look, in words
    figures: tuple[Figure, ...]
    curves: tuple[Figure, ...]
    steps: bool  # whether any job shown had one
    failures: bool  # whether any attempt shown failed
    data: Markup
    raw: str


def page(experiments: Sequence[Experiment]) -> str:
    sections = [_section(pooled(group), recommend_of=group) for group in agreeing(experiments)]
    folder = Path(__file__).parent / "templates"
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            sections=sections,
            style=Markup(_style() + (folder / "page.css").read_text()),  # noqa: S704 - ours
            script=Markup((folder / "timeline.js").read_text()),  # noqa: S704 - ours
            light=as_script(dict(LIGHT)),
        )
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
    told = sheet(experiment)
    found = shown(experiment)
    return Section(
        sheet=told,
        answer=answer(recommend(recommend_of, conditions=False), told.summary),
        race=_race(told),
        lanes=tuple((each.contestant.name, look(each.contestant), in_words(each)) for each in found),
        figures=(_split(told),),
        curves=tuple(_curves(told)),
        steps=any(strip.step for each in found for strip in each.chart.strips),
        failures=any(strip.failed for each in found for strip in each.chart.strips),
        data=as_script(timelines(found)),
        raw=compressed(experiment),
    )


def _race(told: Sheet) -> Figure:
    of = race(told.experiment, told.summary)
    how = "One at a time, jobs take their sum; all at once, no less than the longest of them (dashed)."
    if of.own:
        how += " Each contestant has jobs of its own: hatched is their sum, full what they took."
    else:
        how += " A bar is what a contestant took."
        if of.common:
            asked = "the origin was asked to take for each job" if of.common.planned else "the jobs ran"
            how += f" The hatched bar is the sum of what {asked}."
    how += " Whiskers: the interval of the median."
    for row in of.partial:
        how += f" {row.name} ran {jobs_of(told.experiment, row):,} of the jobs and is not drawn."
    return Figure("The sum against the longest", how, *_both(lambda width: drawn(of, width)))


def _split(told: Sheet) -> Figure:
    return Figure(
        "A job's way, and what it costs",
        "Upper bar: a job's way from the submission to its end, on average; thin while it waits, full while it runs,"
        " hatched for the step after the download. Lower bar: what a job cost of the slots' time; hollow is overhead,"
        " in which a slot ran none of our jobs.",
        *_both(lambda width: bars.split(told.summary, width)),
    )


def _curves(told: Sheet) -> Sequence[Figure]:
    few = len(curves.drawn(told.summary)) < len(told.summary.rows)
    which = " Of each pool the fastest is drawn." if few else ""
    spread = f"Higher and further left is faster: the share of jobs that took no longer than so long.{which}"
    found: list[tuple[str, Any, str]] = [
        (title, curves.distribution(told.experiment, told.summary, kind), spread + " Marks: a half, and 95 %.")
        for kind, (title, _) in curves.KINDS.items()
    ]
    reading = {
        "throughput": "A line that turns flat has its knee there: more slots bring nothing more.",
        "memory": "All processes of the worker together, at the peak.",
    }
    found += [
        (title, curves.against_slots(told.summary, kind), reading[kind])
        for kind, (title, *_) in curves.SLOT_KINDS.items()
    ]
    return [Figure(title, how, drawing.svg(alone=False)) for title, drawing, how in found if drawing]


def _both(draw: Any) -> tuple[Markup, Markup]:
    wide: Drawing = draw(_WIDE)
    narrow: Drawing = draw(_NARROW)
    return wide.svg(alone=False), narrow.svg(alone=False)
