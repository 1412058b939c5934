"""What a comparison looks like while it runs. On a terminal one line is live; elsewhere it becomes a line every two
seconds. Without UTF-8 everything is ASCII. What is read at the end: ``closing``."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ledger.jobs import JobRecord, JobState, Pool
from producer.comparison.contestants import command
from producer.comparison.experiment import Contestant, Scenario, Turn
from producer.comparison.rounds import Position
from producer.comparison.verdict import totals
from producer.results import printable

WIDTH = 80  # of what is read at the end, at the most
PLAIN_EVERY = 2.0  # seconds between two lines of progress where nothing can be overwritten
_FILES_SHOWN = 3  # by name, in the live line
_PLAIN = str.maketrans({"·": "|", "–": "-", "÷": "/", "…": "...", "×": "x", "±": "+-", "µ": "u"})


class Page:
    """The ``Stage`` of a person who looks on."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self.utf8 = console.encoding.lower().replace("-", "").startswith("utf")
        self._live: Live | None = None
        self._said = self._clock()
        self._position: Position | None = None
        self._show = True  # every job by name; not in an experiment of many

    def say(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(self.fit(text), style), soft_wrap=True)
        self._said = self._clock()

    def paragraph(self, text: str, style: str = "") -> None:
        for line in textwrap.wrap(text, self.width):
            self.say(line, style)
        self.say()

    def table(self, table: Table) -> None:
        self._console.print(table)

    def says(self, text: str) -> None:
        self.say(f"  {text}", "dim")

    def opens(
        self,
        scenario: Scenario,
        contestants: Sequence[Contestant],
        repeat: int,
        origin_url: str | None,
        *,
        warm_up: bool = False,
    ) -> None:
        self._show = repeat == 1 and scenario.jobs <= _FILES_SHOWN
        seed = "" if scenario.seed is None else f", seed {scenario.seed}"
        size = "" if scenario.bytes is None else f", {scenario.bytes:,} bytes"
        self.say(f"{scenario.name}{seed}: {scenario.title}")
        names = ", ".join(each.name for each in contestants)
        rounds = f"{repeat} round{'s' if repeat > 1 else ''}{' and a warm-up' if warm_up else ''}"
        origin = f" from {origin_url}" if origin_url else ""
        self.say(f"{scenario.jobs:,} jobs{size}{origin}; {rounds} of {names}")

    def begins(self, position: Position) -> None:
        self._position, self._said = position, self._clock()
        if not self._show:
            if self._live:
                self._live.update(Text(self.fit(f"  {self._where()}starting")))
            return
        contestant = position.contestant
        share = position.work.share(contestant)
        files = [
            job.filename if seconds is None else f"{job.filename} ({seconds:g} s)"
            for job, seconds in zip(share.jobs, share.nominal, strict=True)
        ]
        if contestant.serial:
            text = f"{', then '.join(files)}, one at a time on {contestant.pool}"
        else:
            text = " and ".join(files)
        self.say()
        self.say(f"{contestant.name}: {text}", "bold")

    @contextmanager
    def watching(self) -> Iterator[None]:
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        with Live(Text(), console=self._console, transient=True, refresh_per_second=8) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def progress(self, elapsed: float, done: int, jobs: int, records: Sequence[JobRecord]) -> None:
        if elapsed < PLAIN_EVERY / 4:
            self._said = self._clock()  # the jobs have only just begun
        rate = f" · {done / elapsed:.1f}/s" if elapsed > 0.5 and done else ""
        now = _now(records) if records and self._show else f"{done:,} of {jobs:,} jobs{rate}"
        text = self.fit(f"  {self._where()}{elapsed:4.1f} s · {now}{self._left(elapsed)}")
        if self._live:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis" if self.utf8 else "crop"))
        elif self._clock() - self._said >= PLAIN_EVERY:
            self.say(text)

    def _where(self) -> str:
        position = self._position
        if position is None or self._show:
            return ""
        number = f"round {position.round} of {position.rounds}" if position.round else "warm-up"
        return f"{number} · {position.contestant.name} · "

    def _left(self, elapsed: float) -> str:
        left = self._position.left if self._position else None
        return "" if left is None else f" · about {max(0.0, left - elapsed):.0f} s left"

    def ended(self, record: JobRecord) -> None:
        if not self._show and record.state is JobState.DONE:
            return
        if record.state is JobState.DONE:
            attempts = record.attempts
            took = round(attempts[-1].finished - attempts[0].started, 1)
            unit = "second" if took == 1 else "seconds"
            self.say(f"  {record.job.filename} downloaded in {took:g} {unit}  {_who(record)}")
            return
        last = record.last
        why = f": {last.kind}: {last.reason}" if last and last.kind else ""
        self.say(f"  {record.job.filename} {record.state}{why}  {_who(record)}", "red")

    def unserved(self, pool: Pool) -> None:
        self.say(f"  no worker serves {pool.queue}{self._start(pool, ': ')}", "yellow")

    def measured(self, contestant: Contestant, turn: Turn, note: str | None) -> None:
        if note:
            self.say(f"  {note}{self._start(contestant.pool, '; ')}", "red")
        elif turn.wall is None:
            self.say("  no total: not every file is there", "red")
            for fault in turn.books.faults:
                self.say(f"    {fault}", "red")
        elif self._show:
            self._total(turn)
        else:
            self._turn(turn)
        for reason in turn.excluded:
            self.say(f"  does not count: {reason}", "yellow")

    def _start(self, pool: Pool, after: str) -> str:
        """What a person can do; workers that were started for the comparison are not theirs to start."""
        position = self._position
        ours = position is not None and position.contestant.command is not None
        return "" if ours else f"{after}start {command(pool, 2)}"

    def _turn(self, turn: Turn) -> None:
        assert turn.wall is not None  # noqa: S101 - the caller has looked
        rate = turn.books.done / turn.wall
        self.say(f"  {self._where()}{turn.books.done:,} jobs in {turn.wall:.2f} s · {rate:.1f}/s")

    def _total(self, turn: Turn) -> None:
        numbers = totals(turn)
        paced = f"; longest {numbers.longest:g} s, sum {numbers.sum:g} s" if numbers.longest else ""
        self.say(f"  total {turn.wall:.2f} s{paced}")

    @property
    def width(self) -> int:
        return min(self._console.width, WIDTH)

    def fit(self, text: str) -> str:
        """The text in what this terminal can show, and nothing that could steer it."""
        text = printable(text)
        return text if self.utf8 else text.translate(_PLAIN).encode("ascii", "replace").decode()


def _now(records: Sequence[JobRecord]) -> str:
    if len(records) > _FILES_SHOWN:
        running = sum(record.state is JobState.RUNNING for record in records)
        return f"{running} running, {len(records) - running} to go"
    return " · ".join(f"{record.job.filename} {_progress(record)}" for record in records)


def _progress(record: JobRecord) -> str:
    size = record.total or record.job.size
    return f"{100 * record.bytes // size} %" if record.state is JobState.RUNNING and size else record.state.value


def _who(record: JobRecord) -> str:
    who = record.last.executor if record.last else None
    if who is None:
        return "never ran"
    greenlet = "–" if who.greenlet is None else who.greenlet
    return f"pid {who.pid} · thread {who.thread} · greenlet {greenlet}"
