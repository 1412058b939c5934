"""Who ran when, as text: a lane per executor, and one axis of time for all contestants.

Each contestant's zero is its own submission, so the lanes of pools that ran one after the other can be compared. A
queue wait shorter than half a column is not drawn; the legend has the longest.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from producer.comparison.experiment import Experiment
from producer.comparison.lanes import Lane, Shown, Strip, shown
from producer.comparison.wording import seconds, tick_seconds

MOST_LANES = 16  # of one contestant; the rest is counted
_MARGIN = 2
_LABEL_MOST = 34  # "thread 4194304 of pid 4194304" has room
_NAME_LEAST = 8  # columns; a bar with less room carries no name
_STEPS = (  # seconds between ticks
    *(digit * 10.0**power for power in range(-5, 0) for digit in (1, 2, 5)),
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600),
)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One character each."""

    wait: str
    first: str
    run: str
    step: str  # what was done with the file, at the end of a run
    last: str
    failed: str  # the end of an attempt that failed
    only: str  # an attempt in a single column
    tick: str
    rule: str


UNICODE = Glyphs(wait="┄", first="┣", run="━", step="▒", last="┫", failed="╳", only="█", tick="┴", rule="─")
ASCII = Glyphs(wait=".", first="[", run="=", step=":", last="]", failed="x", only="#", tick="+", rule="-")


def render(experiment: Experiment, *, width: int = 80, glyphs: Glyphs = UNICODE) -> list[str]:
    """The lines of the timeline, none wider than ``width``; none at all if nothing ran."""
    found = shown(experiment)
    labels = [label_of(lane) for each in found for lane in each.chart.lanes]
    if not labels:
        return []
    label_width = min(max(map(len, labels)), _LABEL_MOST, width // 2)
    scale = _Scale(width - _MARGIN - label_width - 1, max(each.chart.end for each in found))
    lines = []
    for each in found:
        ran = "; ".join(group.executors for group in each.chart.groups) or "nothing ran"
        lines += textwrap.wrap(f"{each.contestant.name}: {ran}", width)
        lines += _drawn(each, scale, label_width, glyphs)
    indent = " " * (_MARGIN + label_width + 1)
    lines += [(indent + line).rstrip() for line in scale.axis(glyphs)]
    strips = [strip for each in found for strip in each.chart.strips]
    return lines + textwrap.wrap(_legend(scale, strips, glyphs), width)


def label_of(lane: Lane) -> str:
    """``pid 123``, ``thread 124 of pid 99``, ``greenlet 3 of pid 98``, ``slot 1 of pid 98 @host``."""
    if lane.pid is None or lane.label.startswith("pid"):
        return lane.label
    who, at, host = lane.label.partition(" @")
    return f"{who} of pid {lane.pid}{at}{host}"


def _drawn(of: Shown, scale: _Scale, label_width: int, glyphs: Glyphs) -> Iterator[str]:
    lanes = of.chart.lanes
    for lane in lanes[:MOST_LANES]:
        cells = [" "] * scale.columns
        for strip in lane.strips:
            scale.wait(cells, strip, glyphs)
        # After all waits: a job that waited for this very lane does not hide what ran there.
        for strip in lane.strips:
            scale.run(cells, strip, of.turn.jobs[strip.job].filename, glyphs)
        yield f"{'':{_MARGIN}}{_fit(label_of(lane), label_width):{label_width}} {''.join(cells)}".rstrip()
    if len(lanes) > MOST_LANES:
        yield f"{'':{_MARGIN}}and {len(lanes) - MOST_LANES:,} more"


@dataclass(frozen=True, slots=True)
class _Scale:
    columns: int
    end: float  # seconds at the right edge

    def at(self, seconds: float) -> int:
        return min(round(seconds / self.end * self.columns), self.columns) if self.end else 0

    def wait(self, cells: list[str], strip: Strip, glyphs: Glyphs) -> None:
        first, stop = self.at(strip.queued), self.at(strip.started)
        cells[first:stop] = glyphs.wait * (stop - first)

    def run(self, cells: list[str], strip: Strip, name: str, glyphs: Glyphs) -> None:
        first = min(self.at(strip.started), self.columns - 1)
        length = max(self.at(strip.finished) - first, 1)
        if length == 1:
            mostly_step = strip.step > (strip.finished - strip.started) / 2
            cells[first] = glyphs.failed if strip.failed else glyphs.step if mostly_step else glyphs.only
            return
        step = min(self.at(strip.finished) - self.at(strip.finished - strip.step), length - 1)
        last = glyphs.failed if strip.failed else glyphs.last
        inner = glyphs.run * (length - 1 - max(step, 1))
        if len(inner) >= _NAME_LEAST + 3:
            inner = f"{glyphs.run} {_fit(name, len(inner) - 3)} ".ljust(len(inner), glyphs.run)
        cells[first : first + length] = glyphs.first + inner + (glyphs.step * step or last)

    def axis(self, glyphs: Glyphs) -> Iterator[str]:
        """A rule with ticks, and the seconds under them."""
        step = next((step for step in _STEPS if self.end / step <= self.columns / 8), _STEPS[-1])
        rule, numbers = [glyphs.rule] * self.columns, [" "] * self.columns
        tick = 0
        while (column := self.at(tick * step)) < self.columns and tick * step <= self.end:
            text = tick_seconds(tick * step)
            rule[column] = glyphs.tick
            if column + len(text) <= self.columns:
                numbers[column : column + len(text)] = text
            tick += 1
        yield "".join(rule)
        yield "".join(numbers)


def _legend(scale: _Scale, strips: Sequence[Strip], glyphs: Glyphs) -> str:
    parts = [f"{glyphs.first}{glyphs.run}{glyphs.last} runs"]
    if any(strip.step for strip in strips):
        parts.append(f"{glyphs.step} its step")
    if any(strip.failed for strip in strips):
        parts.append(f"{glyphs.run}{glyphs.failed} failed")
    waited = max(strip.waited for strip in strips)
    parts.append(f"{glyphs.wait * 3} waits in the queue (longest {seconds(waited)})")
    parts.append(f"one column is {tick_seconds(float(f'{scale.end / scale.columns:.2g}'))}")
    return "  ".join(parts)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."
