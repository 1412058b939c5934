"""An experiment on a terminal: progress while it runs, and a summary at the end.

On a terminal one line is live; elsewhere it becomes a line every two seconds. Without UTF-8 everything is ASCII.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from poolbench import checks
from poolbench.advice import recommend, totals, verdict
from poolbench.experiment import Deployment, Experiment, MeasuredJob, MeasuredState, Measurement, Scenario
from poolbench.figures import NONE, bars, counted, printable
from poolbench.lanes import PLAIN, Shown, render, shown
from poolbench.report.tables import brief, known
from poolbench.statistics import summarise
from poolbench.workload import Running

WIDTH = 80  # of what is read at the end, at the most
PLAIN_EVERY = 2.0  # seconds between two lines of progress where nothing can be overwritten
_FILES_SHOWN = 3  # by name, in the live line
_PLAIN = PLAIN | str.maketrans({"·": "|", "–": "-", "÷": "/", "…": "...", "×": "x", "±": "+-", "µ": "u"})


class Page:
    """The ``Display`` of a person who looks on."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self.utf8 = console.encoding.lower().replace("-", "").startswith("utf")
        self._live: Progress | None = None
        self._said = self._clock()
        self._where = ""  # which measurement is on
        self._left: float | None = None  # seconds until the end, about, when it began
        self._show = True  # every job by name; not in an experiment of many

    def say(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(self.fit(text), style), soft_wrap=True)
        self._said = self._clock()

    def paragraph(self, text: str, style: str = "") -> None:
        for line in textwrap.wrap(text, self.width):
            self.say(line, style)
        self.say()

    def table(self, titles: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
        first, *others = map(self.fit, titles)
        table = Table(Column(first, no_wrap=True), *(Column(title, justify="right") for title in others))
        for cells in rows:
            table.add_row(*("\n".join(map(self.fit, cell.split("\n"))) for cell in cells))
        self._console.print(table)

    def says(self, text: str) -> None:
        self.say(f"  {text}", "dim")

    def opens(
        self,
        scenario: Scenario,
        deployments: Sequence[Deployment],
        repeat: int,
        origin_url: str | None,
        *,
        warm_up: bool = False,
    ) -> None:
        self._show = repeat == 1 and scenario.jobs <= _FILES_SHOWN
        seed = "" if scenario.seed is None else f", seed {scenario.seed}"
        size = "" if scenario.bytes is None else f", {scenario.bytes:,} bytes"
        self.say(f"{scenario.name}{seed}: {scenario.title}")
        names = ", ".join(each.name for each in deployments)
        rounds = counted(repeat, "round") + (" and a warm-up" if warm_up else "")
        origin = f" from {origin_url}" if origin_url else ""
        self.say(f"{scenario.jobs:,} jobs{size}{origin}; {rounds} of {names}")

    def begins(self, deployment: Deployment, turn: str, jobs: Sequence[str], left: float | None) -> None:
        self._left, self._said = left, self._clock()
        if not self._show:
            self._where = f"{turn} · {deployment.name} · "
            self._show_live(f"  {self._where}starting", 0, None)
            return
        serial = f"{', then '.join(jobs)}, one at a time on {deployment.pool}"
        self.say()
        self.say(f"{deployment.name}: {serial if deployment.serial else ' and '.join(jobs)}", "bold")

    @contextmanager
    def watching(self) -> Iterator[None]:
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        with Progress(text, BarColumn(20), console=self._console, transient=True, refresh_per_second=8) as live:
            live.add_task("")
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def _show_live(self, text: str, done: int, jobs: int | None) -> None:
        if self._live:
            task = self._live.task_ids[0]
            self._live.update(task, description=self.fit(text), completed=done, total=jobs, refresh=True)

    def progress(self, elapsed: float, done: int, jobs: int, running: Sequence[Running]) -> None:
        if elapsed < PLAIN_EVERY / 4:
            self._said = self._clock()  # the jobs have only just begun
        rate = f" · {done / elapsed:.1f}/s" if elapsed > 0.5 and done else ""
        now = _now(running) if running and self._show else f"{done:,} of {jobs:,} jobs{rate}"
        ends = "" if self._left is None else f" · about {max(0.0, self._left - elapsed):.0f} s left"
        text = self.fit(f"  {self._where}{elapsed:4.1f} s · {now}{ends}")
        if self._live:
            self._show_live(text, done, jobs)
        elif self._clock() - self._said >= PLAIN_EVERY:
            self.say(text)

    def ended(self, job: MeasuredJob) -> None:
        last = job.attempts[-1] if job.attempts else None
        if job.state is not MeasuredState.DONE or not last:
            why = f": {last.kind}: {last.reason}" if last and last.kind else ""
            self.say(f"  {job.filename} {job.state}{why}  {_who(job)}", "red")
        elif self._show:
            took = round(last.finished - job.attempts[0].started, 1)
            unit = "second" if took == 1 else "seconds"
            self.say(f"  {job.filename} downloaded in {took:g} {unit}  {_who(job)}")

    def measured(self, measurement: Measurement, note: str | None) -> None:
        if note:
            self.say(f"  {note}", "red")
        elif measurement.wall is None:
            self.say("  no total: not every job is done", "red")
            for fault in measurement.checks.faults:
                self.say(f"    {fault}", "red")
        elif self._show:
            self.say(f"  total {measurement.wall:.2f} s")
        else:
            done, wall = measurement.checks.done, measurement.wall
            self.say(f"  {self._where}{done:,} jobs in {wall:.2f} s · {done / wall:.1f}/s")
        for reason in measurement.excluded:
            self.say(f"  does not count: {reason}", "yellow")

    @property
    def width(self) -> int:
        return min(self._console.width, WIDTH)

    def fit(self, text: str) -> str:
        """The text in what this terminal can show, and nothing that could steer it."""
        text = printable(text)
        return text if self.utf8 else text.translate(_PLAIN).encode("ascii", "replace").decode()


def _now(running: Sequence[Running]) -> str:
    done = ((each, each.state if each.share is None else f"{int(100 * each.share)} %") for each in running)
    return " · ".join(f"{each.name} {share}" for each, share in done)


def _who(job: MeasuredJob) -> str:
    who = job.attempts[-1].executor if job.attempts else None
    if who is None:
        return "never ran"
    return f"pid {who.pid} · thread {who.thread} · greenlet {NONE if who.greenlet is None else who.greenlet}"


# -- the summary


_LEGEND = (
    "total: from just before the submission to the last file's finish, by Redis' clock; sum and longest: of the seconds"
    " for which the origin paces the files, so everything else counts as overhead."
)


def close(page: Page, experiment: Experiment) -> None:
    page.say()
    (_demonstration if experiment.scenario.demonstration else _deployments)(page, experiment)
    page.paragraph(checks.said(experiment), "red" if checks.failed(experiment) else "")
    for note in experiment.notes:
        page.paragraph(f"Note: {note}.", "dim")


def _demonstration(page: Page, experiment: Experiment) -> None:
    found = shown(experiment)
    page.table(["pool", "sum", "longest", "total", "total ÷ longest"], map(_total_cells, found))
    page.paragraph(_LEGEND, "dim")
    for line in render(experiment, width=page.width):
        page.say(line)
    page.say()
    page.paragraph(verdict(found), "bold")


def _total_cells(each: Shown) -> Iterator[str]:
    found = totals(each.measurement)
    yield f"serial, on {each.deployment.pool}" if each.deployment.serial else each.name
    yield f"{found.sum:g} s"
    yield f"{found.longest:g} s"
    yield NONE if found.total is None else f"{found.total:.2f} s"
    yield f"{found.total / found.longest:.3f}" if found.total and found.longest else NONE


def _deployments(page: Page, experiment: Experiment) -> None:
    summary, advice = summarise(experiment), recommend(experiment)
    if not summary.rounds:
        page.paragraph("Nothing was measured yet: only measurements of the warm-up have ended, and they do not count.")
        return
    page.paragraph(advice.headline, "bold")
    for line in bars([(row.name, row.wall.median) for row in summary.whole if row.wall], page.width):
        page.say(line)
    page.say()
    if advice.answer or advice.next:
        page.say(f"Confidence: {advice.confidence}. To deploy it:" if advice.answer else "No answer yet. To find out:")
        page.say(advice.command or advice.next[0])
        page.say()
    table = known(brief(summary))
    # An option per line: the figures need the width.
    cells = ([line.name.replace("+", "\n+"), *map(str, line.cells)] for line in table.lines)
    page.table(["", *table.columns[1:]], cells)
    page.paragraph(table.reading, "dim")
    if cores := experiment.cores:
        page.paragraph(f"{cores.effective:.2f} of {cores.nominal} cores were really ours, in the median.", "dim")
