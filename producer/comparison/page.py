"""What a comparison looks like: lines while it runs, then table, timeline and verdict. On a terminal one line is live;
elsewhere it becomes a line every two seconds. Without UTF-8 everything is ASCII."""

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
from producer.comparison.runs import MeasuredDeployment, Run
from producer.comparison.scenarios import Deployment, Options
from producer.comparison.timeline import ASCII, UNICODE, render
from producer.results import printable

WIDTH = 80  # of what is read at the end, at the most
PLAIN_EVERY = 2.0  # seconds between two lines of progress where nothing can be overwritten
_LEGEND = (
    "total: from just before the submission to the last file's finish, by Redis' clock; sum and longest: of the seconds"
    " for which the origin paces the files, so everything else counts as overhead."
)
_FILES_SHOWN = 3  # by name, in the live line
_PLAIN = str.maketrans({"·": "|", "–": "-", "÷": "/", "…": "...", "×": "x"})


class Page:
    """The ``Stage`` of a person who looks on."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._utf8 = console.encoding.lower().replace("-", "").startswith("utf")
        self._live: Live | None = None
        self._said = self._clock()

    def say(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(self._fit(text), style), soft_wrap=True)
        self._said = self._clock()

    def paragraph(self, text: str, style: str = "") -> None:
        for line in textwrap.wrap(text, self._width):
            self.say(line, style)
        self.say()

    def opens(self, scenario: str, options: Options, origin_url: str) -> None:
        low, high = options.seconds
        files = f"files of {options.size:,} bytes, {low} to {high} s each, from {origin_url}"
        self.say(f"{scenario}, seed {options.seed}: {files}")

    def begins(self, deployment: Deployment) -> None:
        files = [f"{job.filename} ({job.seconds:g} s)" for job in deployment.jobs]
        if deployment.one_at_a_time:
            text = f"{', then '.join(files)}, one at a time on {deployment.pool}"
        else:
            text = " and ".join(files) if len(files) < 4 else f"{len(files)} files"
        self.say()
        self.say(f"{deployment.name}: {text}", "bold")

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

    def progress(self, elapsed: float, records: Sequence[JobRecord]) -> None:
        text = self._fit(f"  {elapsed:4.1f} s · {_now(records)}")
        if self._live:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis" if self._utf8 else "crop"))
        elif self._clock() - self._said >= PLAIN_EVERY:
            self.say(text)

    def ended(self, record: JobRecord) -> None:
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
        self.say(f"  no worker serves {pool.queue}: start {_command(pool)}", "yellow")

    def measured(self, deployment: MeasuredDeployment) -> None:
        numbers = deployment.totals
        if deployment.note:
            self.say(f"  {deployment.note}; start {_command(deployment.pool)}", "red")
        elif numbers.total is None:
            self.say("  no total: not every file is there", "red")
        else:
            self.say(f"  total {numbers.total:.2f} s; longest {numbers.longest:g} s, sum {numbers.sum:g} s")

    def closes(self, run: Run) -> None:
        self.say()
        self._console.print(self._table(run.deployments))
        self.paragraph(_LEGEND, "dim")
        for line in render(run.deployments, width=self._width, glyphs=UNICODE if self._utf8 else ASCII):
            self.say(line)
        self.say()
        self.paragraph(run.books, "" if run.books_balance else "red")
        self.paragraph(run.verdict, "bold")

    @property
    def _width(self) -> int:
        return min(self._console.width, WIDTH)

    def _table(self, deployments: Sequence[MeasuredDeployment]) -> Table:
        table = Table()
        table.add_column("pool")
        for title in ("sum", "longest", "total", self._fit("total ÷ longest")):
            table.add_column(title, justify="right")
        for deployment in deployments:
            numbers = deployment.totals
            name = f"serial, on {deployment.pool}" if deployment.one_at_a_time else deployment.name
            total = self._fit("–") if numbers.total is None else f"{numbers.total:.2f} s"
            ratio = self._fit("–") if numbers.ratio is None else f"{numbers.ratio:.3f}"
            table.add_row(name, f"{numbers.sum:g} s", f"{numbers.longest:g} s", total, ratio)
        return table

    def _fit(self, text: str) -> str:
        """The text in what this terminal can show, and nothing that could steer it."""
        text = printable(text)
        return text if self._utf8 else text.translate(_PLAIN).encode("ascii", "replace").decode()


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


def _command(pool: Pool) -> str:
    return f"celery -A worker.app worker -P {pool} -Q {pool.queue} -n {pool}@%h -c 2 -E"
