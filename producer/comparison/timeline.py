"""Who ran when, drawn in text: a lane per real executor, the same time axis for every turn.

Pure: turns in, lines out. Each turn's zero is its own submission, so the lanes of pools that ran one after
the other can be compared. A queue wait shorter than half a column is not drawn; the legend has the longest.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ledger.jobs import Attempt, Executor
from producer.comparison.experiment import MeasuredJob, Turn

MOST_LANES = 16  # of one turn; the rest is counted
_MARGIN = 2
_LABEL_MOST = 34  # "thread 4194304 of pid 4194304" has room
_NAME_LEAST = 8  # columns; a bar with less room carries no name
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)  # seconds between ticks


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One character each."""

    wait: str
    first: str
    run: str
    last: str
    failed: str  # the end of an attempt that failed
    only: str  # an attempt in a single column
    tick: str
    rule: str


UNICODE = Glyphs(wait="┄", first="┣", run="━", last="┫", failed="╳", only="█", tick="┴", rule="─")
ASCII = Glyphs(wait=".", first="[", run="=", last="]", failed="x", only="#", tick="+", rule="-")


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt on a lane; seconds since the turn's submission."""

    queued: float
    started: float
    finished: float
    text: str
    failed: bool


def render(turns: Sequence[Turn], *, width: int = 80, glyphs: Glyphs = UNICODE) -> list[str]:
    """The lines of the timeline, none wider than ``width``."""
    lanes = [(turn, _lanes(turn)) for turn in turns]
    bars = [bar for _, by_label in lanes for found in by_label.values() for bar in found]
    if not bars:
        return []
    labels = [label for _, by_label in lanes for label in by_label]
    label_width = min(max(map(len, labels)), _LABEL_MOST, width // 2)
    scale = _Scale(width - _MARGIN - label_width - 1, max(bar.finished for bar in bars))
    lines = []
    for turn, by_label in lanes:
        lines.append(turn.contestant)
        lines += _drawn(by_label, label_width, scale, glyphs) if by_label else [f"{'':{_MARGIN}}nothing ran"]
    indent = " " * (_MARGIN + label_width + 1)
    lines += [(indent + line).rstrip() for line in scale.axis(glyphs)]
    return lines + textwrap.wrap(_legend(scale, bars, glyphs), width)


def label_of(who: Executor | None) -> str:
    """``pid 123``, ``thread 124 of pid 99``, ``greenlet 3 of pid 98``."""
    if who is None:
        return "lost"
    if who.greenlet is not None:
        return f"greenlet {who.greenlet} of pid {who.pid}"
    return f"thread {who.thread} of pid {who.pid}" if who.thread != who.pid else f"pid {who.pid}"


def _lanes(turn: Turn) -> dict[str, list[Bar]]:
    """Bars by executor, in the order of the jobs: pools that started two jobs a millisecond apart look alike."""
    ran = [attempt.executor for job in turn.jobs for attempt in job.attempts if attempt.executor]
    several = len({who.host for who in ran}) > 1
    lanes: dict[str, list[Bar]] = {}
    for who, bar in _bars(turn):
        label = f"{label_of(who)} @{who.host}" if who and several else label_of(who)
        lanes.setdefault(label, []).append(bar)
    return lanes


def _bars(turn: Turn) -> Iterator[tuple[Executor | None, Bar]]:
    for job in turn.jobs:
        queued = job.queued
        for attempt in job.attempts:
            yield attempt.executor, _bar(job, attempt, queued, turn.submitted)
            queued = attempt.finished


def _bar(job: MeasuredJob, attempt: Attempt, queued: float, zero: float) -> Bar:
    return Bar(
        queued=max(queued - zero, 0.0),
        started=max(attempt.started - zero, 0.0),
        finished=max(attempt.finished - zero, 0.0),
        text=job.filename,
        failed=attempt.kind is not None,
    )


def _drawn(lanes: dict[str, list[Bar]], label_width: int, scale: _Scale, glyphs: Glyphs) -> Iterator[str]:
    for label, bars in list(lanes.items())[:MOST_LANES]:
        cells = [" "] * scale.columns
        for bar in bars:
            scale.wait(cells, bar, glyphs)
        # After all waits: a job that waited for this very lane does not hide what ran there.
        for bar in bars:
            scale.run(cells, bar, glyphs)
        yield f"{'':{_MARGIN}}{_fit(label, label_width):{label_width}} {''.join(cells)}".rstrip()
    if len(lanes) > MOST_LANES:
        yield f"{'':{_MARGIN}}and {len(lanes) - MOST_LANES} more"


@dataclass(frozen=True, slots=True)
class _Scale:
    columns: int
    end: float  # seconds at the right edge

    def at(self, seconds: float) -> int:
        return min(round(seconds / self.end * self.columns), self.columns) if self.end else 0

    def wait(self, cells: list[str], bar: Bar, glyphs: Glyphs) -> None:
        first, stop = self.at(bar.queued), self.at(bar.started)
        cells[first:stop] = glyphs.wait * (stop - first)

    def run(self, cells: list[str], bar: Bar, glyphs: Glyphs) -> None:
        first = min(self.at(bar.started), self.columns - 1)
        length = max(self.at(bar.finished) - first, 1)
        last = glyphs.failed if bar.failed else glyphs.last
        if length == 1:
            cells[first] = glyphs.failed if bar.failed else glyphs.only
            return
        inner = glyphs.run * (length - 2)
        if len(inner) >= _NAME_LEAST + 3:
            inner = f"{glyphs.run} {_fit(bar.text, len(inner) - 3)} ".ljust(len(inner), glyphs.run)
        cells[first : first + length] = glyphs.first + inner + last

    def axis(self, glyphs: Glyphs) -> Iterator[str]:
        """A rule with ticks, and the seconds under them."""
        step = next((step for step in _STEPS if self.end / step <= self.columns / 8), _STEPS[-1])
        rule, numbers = [glyphs.rule] * self.columns, [" "] * self.columns
        second = 0
        while (column := self.at(second)) < self.columns and second <= self.end:
            text = f"{second} s"
            rule[column] = glyphs.tick
            if column + len(text) <= self.columns:
                numbers[column : column + len(text)] = text
            second += step
        yield "".join(rule)
        yield "".join(numbers)


def _legend(scale: _Scale, bars: Sequence[Bar], glyphs: Glyphs) -> str:
    waited = max(bar.started - bar.queued for bar in bars)
    failed = f"{glyphs.run}{glyphs.failed} failed  " if any(bar.failed for bar in bars) else ""
    return (
        f"{glyphs.first}{glyphs.run}{glyphs.last} runs  {failed}{glyphs.wait * 3} waits in the queue"
        f" (longest {waited:.2f} s)  one column is {scale.end / scale.columns:.2f} s"
    )


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."
