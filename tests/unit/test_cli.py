"""The command line without Redis: usage, and what a watch shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ledger.jobs import Batch, Executor, Job, JobRecord, JobState, Pool
from ledger.settings import Settings
from producer.cli import run
from producer.results import exit_code
from producer.watch import Lines, Snapshot, panel


def batch(total: int | None = 10, **states: int) -> Batch:
    counts = {pool: dict.fromkeys(JobState, 0) for pool in Pool}
    counts[Pool.THREADS] |= {JobState(name): count for name, count in states.items()}
    return Batch("b", 1.7e9, total, counts, dict.fromkeys(Pool, 0))


def snapshot(of: Batch, *, quiet_s: float = 0.0, away: str | None = None, rate: float = 0.5) -> Snapshot:
    who = Executor("gevent@here", 7, 7, 140_000_000_000_001)
    record = JobRecord(
        "b.1", Job("http://a/x", "x\x1b[2J"), Pool.THREADS, JobState.RUNNING, 1.0, bytes=5, total=10, executor=who
    )
    running = (record,) * of.count(JobState.RUNNING)
    return Snapshot(of, running, 5, rate, 100.0, quiet_s, away)


@pytest.mark.parametrize(
    "words",
    [
        ["submit"],
        ["submit", "http://a/x", "-i", "-"],
        ["submit", "-i", "/no/such/file"],
        ["submit", "http://a/x", "--name", "../x"],
        ["submit", "http://a/x", "--pool", "fibers"],
        ["submit", "http://a/x", "--per-message", "0"],
        ["submit", "--strict", "nonsense"],
        ["results", "b", "--format", "xml"],
        ["results"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_code_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err


def test_the_version_is_that_of_the_user_agent(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    version = capsys.readouterr().out.strip().removeprefix("Downpour, version ")
    assert Settings.model_fields["user_agent"].default == f"Downpour/{version}"


@pytest.mark.parametrize(
    ("of", "code"),
    [
        (batch(done=10), 0),
        (batch(done=9, failed=1), 1),
        (batch(done=9, cancelled=1), 1),
        (batch(done=9, running=1), 1),
        (batch(total=None, done=10), 1),
    ],
)
def test_exit_code_by_outcome(of: Batch, code: int) -> None:
    assert exit_code(of) == code


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (snapshot(batch(queued=10), quiet_s=1), None),
        (snapshot(batch(queued=10), quiet_s=60), "is a worker running for threads"),
        (snapshot(batch(running=10), quiet_s=60), "nothing has changed for 60 s"),
        (snapshot(batch(total=None, queued=7), quiet_s=60), "the submission was cut off after 7 jobs"),
        (snapshot(batch(done=10), quiet_s=60), None),
        (snapshot(batch(queued=10), away="no answer"), "no answer; still trying"),
    ],
)
def test_a_watch_says_why_nothing_moves(seen: Snapshot, said: str | None) -> None:
    assert (seen.remark is None) if said is None else (said in (seen.remark or ""))


def test_plain_lines_come_on_a_change_every_few_seconds_and_at_the_end() -> None:
    now = 0.0
    lines = Lines(5.0, lambda: now)
    assert lines.of(snapshot(batch(queued=10))) == [
        "b: 0/10 done, 10 queued, 5 bytes, 0.5 jobs/s, 100 bytes/s, about 0:00:20 left"
    ]
    now = 1.0
    assert lines.of(snapshot(batch(queued=9, done=1))) == []
    now = 6.0
    assert len(lines.of(snapshot(batch(queued=8, done=2)))) == 1
    now = 60.0
    assert lines.of(snapshot(batch(queued=8, done=2))) == []
    assert len(lines.of(snapshot(batch(queued=8, done=2), quiet_s=50))) == 1
    assert lines.of(snapshot(batch(queued=8, done=2), quiet_s=51)) == []
    assert lines.of(snapshot(batch(done=10))) == ["b: 10/10 done, 5 bytes"]


def test_a_rate_of_nothing_gives_no_time_left() -> None:
    assert "left" not in snapshot(batch(queued=10), rate=0.0).line


def test_the_panel_has_a_row_per_pool_and_a_bar_per_running_file() -> None:
    screen = Console(file=io.StringIO(), width=140, force_terminal=False)
    screen.print(panel(snapshot(batch(running=12, done=3, total=20, queued=5))))
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert "3/20 done, 12 running, 5 queued" in text
    assert "x\N{REPLACEMENT CHARACTER}[2J" in text
    assert "5 bytes of 10 bytes, greenlet 140000000000001 of pid 7" in text
    assert "and 2 more" in text
    assert "gevent" not in text
