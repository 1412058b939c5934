"""The sum of the jobs against the longest of them, between which every schedule lies, and what each contestant took.

Where all contestants have the same jobs, sum and longest are drawn once. In the tutorial each has files of its own;
then they stand in its own row. A contestant that ran only some of the jobs (the yardstick, where they are many) is not
drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from poolbench.experiment import Experiment
from poolbench.figures import bounds, seconds
from poolbench.report.bars import BAR, Plan
from poolbench.report.drawing import Drawing
from poolbench.report.palette import look
from poolbench.statistics import Row, Summary, paced

_GAP = 4  # a bar is cut if it is longer than so many times the longest that matters


@dataclass(frozen=True, slots=True)
class Ends:
    """Seconds."""

    sum: float
    longest: float
    planned: bool  # as the origin paced them; otherwise as they ran


@dataclass(frozen=True, slots=True)
class Race:
    rows: tuple[Row, ...]  # of those that ran all jobs
    common: Ends | None  # of all of them
    own: tuple[Ends | None, ...]  # of each, where they differ; empty: they do not
    partial: tuple[Row, ...]  # those that ran some of the jobs

    @property
    def ends(self) -> Sequence[Ends]:
        return [ends for ends in (self.common, *self.own) if ends]


def race(experiment: Experiment, summary: Summary) -> Race:
    ran = {row.name: jobs_of(experiment, row) for row in summary.rows if row.wall}
    all_jobs = max(ran.values(), default=0)
    rows = tuple(row for row in summary.rows if row.wall and ran[row.name] == all_jobs)
    partial = tuple(row for row in summary.rows if row.wall and ran[row.name] < all_jobs)
    own = tuple(_planned(experiment, row) for row in rows)
    if len({(round(ends.sum, 3), round(ends.longest, 3)) if ends else None for ends in own}) > 1:
        return Race(rows, None, own, partial)
    common = own[0] if own and own[0] else _ran(experiment, (*partial, *rows), all_jobs)
    return Race(rows, common, (), partial)


def jobs_of(experiment: Experiment, row: Row) -> int:
    return max((turn.books.jobs for turn in experiment.of(row.name)), default=0)


def _planned(experiment: Experiment, row: Row) -> Ends | None:
    nominal = paced(experiment, row.contestant)
    return Ends(sum(nominal), max(nominal), planned=True) if nominal else None


def _ran(experiment: Experiment, rows: Sequence[Row], jobs: int) -> Ends | None:
    """As they ran on the yardstick, or else on the first contestant; of some of the jobs, as many times as they are."""
    for row in sorted(rows, key=lambda row: not row.contestant.serial):
        spans = [turn.spans.ran for turn in experiment.of(row.name) if turn.spans.ran]
        if spans:
            return Ends(median(sum(ran) * jobs / len(ran) for ran in spans), median(map(max, spans)), planned=False)
    return None


def drawn(of: Race, width: float) -> Drawing:
    highs = [ends[1] for row in of.rows if (ends := bounds(row.wall))] + [ends.longest for ends in of.ends]
    most = max(highs, default=1.0)
    cut = bool(of.common and of.common.sum > _GAP * most)
    if not cut:
        most = max([most, *(ends.sum for ends in of.ends)])
    first = 1 if of.common else 0
    labels = [*(["all jobs, one by one"] if of.common else []), *(row.name for row in of.rows)]
    plan = Plan(width, labels, most, room=112 if of.own else 72)
    says = "; ".join(f"{row.name} took {seconds(row.wall.median)}" for row in of.rows if row.wall)
    drawing = Drawing("The sum against the longest", says, width, plan.height + (34 if of.common else 8))
    plan.zero(drawing)
    if of.common:
        y = plan.row(drawing, 0, "all jobs, one by one", "")
        _sum(drawing, plan, y, of.common.sum, cut=cut)
        drawing.text(_end(plan, of.common.sum, cut=cut) + 6, y + 11, seconds(of.common.sum))
    for n, row in enumerate(of.rows):
        y = plan.row(drawing, n + first, row.name, look(row.contestant))
        _row(drawing, plan, y, row, of.own[n] if of.own else None)
    if of.common:
        _longest(drawing, plan, of.common.longest)
    return drawing


def _end(plan: Plan, value: float, *, cut: bool) -> float:
    return plan.scale.stop if cut else plan.scale.at(value)


def _sum(drawing: Drawing, plan: Plan, y: float, value: float, *, cut: bool = False) -> None:
    end = _end(plan, value, cut=cut)
    drawing.rect(plan.scale.start, y, end - plan.scale.start, BAR, "hollow")
    drawing.hatch(plan.scale.start, y, end - plan.scale.start, BAR, "rule")
    if cut:
        middle = (plan.scale.start + end) / 2
        drawing.path(f"M{middle - 5} {y - 3}l6 7l-6 6l6 7h7l-6 -7l6 -6l-6 -7z", "paper")
        drawing.path(f"M{middle - 5} {y - 3}l6 7l-6 6l6 7M{middle + 2} {y - 3}l6 7l-6 6l6 7", "axis")


def _row(drawing: Drawing, plan: Plan, y: float, row: Row, own: Ends | None) -> None:
    if row.wall is None:
        return
    start, end = plan.scale.start, plan.scale.at(row.wall.median)
    low, high = map(plan.scale.at, bounds(row.wall) or (row.wall.low, row.wall.high))
    middle, text, right = y + BAR / 2, seconds(row.wall.median), max(end, high)
    if own:
        _sum(drawing, plan, y, own.sum)
        text, right = f"{text} of {seconds(own.sum)}", max(right, plan.scale.at(own.sum))
    inset = 3 if own else 0
    drawing.rect(start, y + inset, max(end - start, 1), BAR - 2 * inset, look(row.contestant))
    drawing.path(f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8", "ink")
    drawing.text(right + 6, y + 11, text)
    if own:
        drawing.path(f"M{plan.scale.at(own.longest):.1f} {y - 4}v{BAR + 8}", "limit")


def _longest(drawing: Drawing, plan: Plan, value: float) -> None:
    x = plan.scale.at(value)
    drawing.path("".join(f"M{x:.1f} {y - 4}v{BAR + 8}" for y in plan.bars), "limit")
    drawing.line(x, plan.height - 4, x, plan.height + 8, "limit")
    left = x < drawing.width / 2
    text = f"longest job {seconds(value)}"
    drawing.text(x + (5 if left else -5), plan.height + 26, text, "strong" if left else "strong end")
