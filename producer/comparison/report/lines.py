"""The timeline as text: a lane per line, the same axis for all; of many lanes some, and what the others are."""

from __future__ import annotations

from collections.abc import Iterator

from producer.comparison.experiment import Experiment
from producer.comparison.lanes import Lane, shown
from producer.comparison.report.bars import fit
from producer.comparison.report.still import said
from producer.comparison.report.wording import tick_seconds

_COLUMNS, _LABEL, _WIDEST, _MOST = 60, 16, 32, 12
_WAITS, _RUNS, _STEP, _FAILED = "┄━▒╳"
LEGEND = f"{_WAITS} waits in the queue  {_RUNS} runs  {_STEP} its step  {_FAILED} fails"


def timeline(experiment: Experiment) -> Iterator[str]:
    found = shown(experiment)
    end = max((each.chart.end for each in found), default=0.0) or 1.0
    longest = max((len(lane.label) for each in found for lane in each.chart.lanes[:_MOST]), default=0)
    width = min(max(longest, _LABEL), _WIDEST)  # host names are long
    for each in found:
        yield said(each)
        lanes = each.chart.lanes
        for lane in lanes[:_MOST]:
            yield f"{fit(lane.label, width):>{width}} {_lane(lane, end)}".rstrip()
        if len(lanes) > _MOST:
            yield f"{'':{width}} and {len(lanes) - _MOST:,} lanes more"
        yield ""
    if found:
        yield f"{LEGEND}  one column is {tick_seconds(float(f'{end / _COLUMNS:.2g}'))}"


def _lane(lane: Lane, end: float) -> str:
    cells = [" "] * _COLUMNS

    def fill(since: float, until: float, sign: str, least: int) -> None:
        first = min(int(since / end * _COLUMNS), _COLUMNS - 1)
        stop = min(max(int(until / end * _COLUMNS), first + least), _COLUMNS)
        cells[first:stop] = sign * (stop - first)

    for strip in lane.strips:
        fill(strip.queued, strip.started, _WAITS, 0)
    # After all waits: a job that waited for this very lane does not hide what ran there.
    for strip in lane.strips:
        fill(strip.started, strip.finished, _FAILED if strip.failed else _RUNS, 1)
        if strip.step:
            fill(strip.finished - strip.step, strip.finished, _STEP, 0)
    return "".join(cells)
