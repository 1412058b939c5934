"""The comparison on a whole Downpour: real Valkey, origin, sweep and workers of all pools."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ledger.jobs import Executor, FailureKind, JobState, Pool
from ledger.settings import Settings
from producer.comparison import measure
from producer.comparison.measure import Bench
from producer.comparison.offers import OriginError, look_up
from producer.comparison.page import Page
from producer.comparison.rounds import compare
from producer.comparison.runs import Report, from_json, to_json
from producer.comparison.scenarios import Deployment, Options, article, paced
from producer.comparison.verdict import Finding, faults, find
from tests.waiting import wait_for
from tests.worker_process import ROOT, environment_of
from tests.world import World

QUICK = Options(seed=1, size=20_000, seconds=(1, 2))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world.start(*Pool, slots=2)


class Watcher:
    """A page that is kept as text."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.page = Page(Console(file=self._file, width=80))

    @property
    def text(self) -> str:
        return self._file.getvalue()


def producer(settings: Settings, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "producer", "compare", *words],
        cwd=ROOT,
        env=environment_of(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def seen(world: World) -> tuple[Report, str]:
    """One quick comparison: its report and its page."""
    watcher = Watcher()
    report = compare(world.settings, "article", QUICK, watcher.page)
    watcher.page.closes(report.runs[0])
    return report, watcher.text


def test_the_tutorial_in_short(seen: tuple[Report, str]) -> None:
    """Given files of 1 and 2 s, I expect every pool to overlap them, one slot not to, and books that balance."""
    report, page = seen
    (run,) = report.runs
    assert [each.name for each in run.deployments] == ["prefork", "threads", "gevent", "serial"]
    assert all(each.done for each in run.deployments)
    assert run.books_balance, run.books
    *pools, serial = run.deployments
    for each in pools:
        first, second = each.jobs
        assert first.attempts[0].started < second.attempts[0].finished
        assert second.attempts[0].started < first.attempts[0].finished
        assert each.totals.total is not None
        assert each.totals.longest <= each.totals.total < each.totals.sum
    first, second = serial.jobs
    assert second.queued >= first.attempts[0].finished
    assert find(serial) in {Finding.SUM, Finding.SLOWER}
    assert "downloaded in" in page
    assert max(map(len, page.splitlines()[-30:])) <= 80
    assert from_json(to_json(report)) == report


def test_each_job_shows_who_ran_it_and_its_file_arrived(world: World, seen: tuple[Report, str]) -> None:
    """I expect two processes; two threads of one process; two greenlets of one thread; and the origin's bytes."""
    report, _ = seen
    executors: dict[Pool, list[Executor]] = {}
    for each in report.runs[0].deployments[:3]:
        executors[each.pool] = [job.attempts[0].executor for job in each.jobs if job.attempts[0].executor]
        for job in each.jobs:
            path = world.settings.downloads / job.path
            assert path.stat().st_size == job.bytes == QUICK.size
            assert job.sha256 == job.expected_sha256
    one, other = executors[Pool.PREFORK]
    assert one.pid != other.pid
    assert (one.greenlet, other.greenlet) == (None, None)
    one, other = executors[Pool.THREADS]
    assert one.pid == other.pid
    assert one.thread != other.thread
    one, other = executors[Pool.GEVENT]
    assert (one.pid, one.thread) == (other.pid, other.thread)
    assert one.greenlet != other.greenlet


def test_a_failed_job_is_shown_with_kind_and_reason(world: World) -> None:
    """Given a digest that the file does not have, I expect no total, and the failure on the page and in the books."""
    watcher = Watcher()
    bench = Bench(world.ledger, world.publisher, watcher.page, 5.0)
    planned = Deployment("threads", Pool.THREADS, (paced("good.bin", 1, 5000), paced("bad.bin", 1, 5000)))
    good, bad = look_up(world.settings.origin_url, planned.jobs)

    measured = bench.measure(planned, [good, replace(bad, sha256="0" * 64)], "with-a-failure")

    watcher.page.measured(measured)
    assert [job.state for job in measured.jobs] == [JobState.DONE, JobState.FAILED]
    assert measured.totals.total is None
    assert measured.jobs[1].attempts[-1].kind is FailureKind.DIGEST
    assert "bad.bin failed: digest: " in watcher.text
    assert "threads: bad.bin is failed" in faults([measured])


def test_a_pool_without_a_worker_is_noticed_said_and_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a Redis prefix that no worker serves, I expect a word, the jobs cancelled, and no claim of a total."""
    monkeypatch.setattr(measure, "WORRY_AFTER", 0.2)
    monkeypatch.setattr(measure, "GIVE_UP_AFTER", 0.6)
    alone = world.settings.model_copy(update={"key_prefix": "nobody:"})
    watcher = Watcher()

    report = compare(alone, "article", replace(QUICK, pools=(Pool.GEVENT,)), watcher.page)

    assert "no worker serves downloads.gevent: start celery -A worker.app worker -P gevent" in watcher.text
    gevent, serial = report.runs[0].deployments
    for each in (gevent, serial):
        assert [job.state for job in each.jobs] == [JobState.CANCELLED] * 2
        assert each.note
    assert "not known" in report.runs[0].verdict


def test_the_command_writes_its_report_and_ends_with_0(world: World, tmp_path: Path) -> None:
    """Given fast dice, the whole command: page on stderr when the report goes to stdout, exit code 0."""
    file = tmp_path / "report.json"
    # The seconds of a seed are 5 to 10; the seed with the two shortest is the quickest whole run there is.
    seed = min(range(2000), key=lambda seed: sum(job.seconds for job in article(Options(seed))[1].jobs))
    process = producer(
        world.settings, "--seed", str(seed), "--pools", "threads", "--no-serial", "--size", "9000", "--json", str(file)
    )
    out, err = process.communicate(timeout=40)

    assert process.returncode == 0, err
    report = from_json(file.read_text())
    assert report.runs[0].seed == seed
    assert report.runs[0].deployments[0].done
    assert " s · Python_Development_Handbook.pdf " in out  # no silence: progress in plain lines
    assert out.rstrip().endswith(report.runs[0].verdict[-12:])


def test_ctrl_c_cancels_what_is_left(world: World) -> None:
    before = set(world.ledger.batches())
    process = producer(world.settings, "--seed", "1", "--pools", "prefork")
    try:
        (batch,) = wait_for(lambda: set(world.ledger.batches()) - before, what="the batch")
        world.running(2, batch=batch)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)

    assert process.returncode == 130, err
    assert {record.state for record in world.finished(batch, seconds=10)} == {JobState.CANCELLED}


def test_an_origin_that_is_not_there_is_named() -> None:
    with pytest.raises(OriginError, match=re.escape("http://127.0.0.1:9/paced/1/x")):
        look_up("http://127.0.0.1:9", [paced("x", 1, 10)])
