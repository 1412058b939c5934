"""Results, status and watch, over jobs that an incarnation really claimed and closed."""

from __future__ import annotations

import csv
import io
import json
import re
import threading

import pytest

from ledger.jobs import Attempt, Executor, FailureKind, Job, JobState, Message, Pool, Ref, Result
from ledger.settings import Settings
from tests.ledgers import LedgerWorld
from tests.producer_process import run, start

WHO = Executor("threads@here", 7, 8, None)
START = 1_700_000_000.25
REFUSED = "404 from http://user:hunter2@a/1?token=abc\x1b[31m"


def attempt(kind: FailureKind | None = None, reason: str | None = None) -> Attempt:
    return Attempt(WHO, START, START + 1.5, START + 0.125, 10, 200 if kind is None else 404, kind, reason)


class Desk(LedgerWorld):
    """Jobs whose URLs have secrets, and a process that moves them on."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.model_copy(update={"lease": 600.0}))

    def fill(self, count: int) -> None:
        jobs = [Job(f"http://user:hunter2@a/{n}?token=abc&v={n}", f"f{n}") for n in range(count)]
        self.ledger.submit([Message(Ref("b", n, n), Pool.THREADS, (job,)) for n, job in enumerate(jobs)])
        self.ledger.seal("b", count)

    def done(self, number: int) -> None:
        notes, date = ("length: unverified",), "Tue, 15 Nov 1994 12:45:26 GMT"
        result = Result(
            1000 + number, "ab" * 32, notes, 'W/"v1"', date, final_url="http://b/1;token=abc", content_type="text/plain"
        )
        assert self.ledger.close(self.hold(number), JobState.DONE, attempt(), result=result)

    def failed(self, number: int) -> None:
        claim = self.hold(number)
        assert self.ledger.note_attempt(claim, attempt(FailureKind.RESET, "reset"))
        assert self.ledger.close(claim, JobState.FAILED, attempt(FailureKind.STATUS, REFUSED))


@pytest.fixture
def desk(settings: Settings) -> Desk:
    return Desk(settings)


def test_results_tell_who_did_what_when(desk: Desk, settings: Settings) -> None:
    desk.fill(4)
    desk.done(0)
    desk.failed(1)
    desk.hold(2)
    said = run(settings, "results", "b", "--format", "jsonl")
    assert said.code == 1
    assert "hunter2" not in said.out
    assert "abc" not in said.out
    done, failed, running, queued = [json.loads(line) for line in said.out.splitlines()]
    moments = {"started": "22:13:20.250Z", "first_byte": "22:13:20.375Z", "finished": "22:13:21.750Z"}
    times = {name: f"2023-11-14T{moment}" for name, moment in moments.items()}
    who = {"worker": "threads@here", "pid": 7, "thread": 8, "greenlet": None}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ", done.pop("queued"))
    assert done == {
        "id": "b.0",
        "url": "http://***@a/0?token=***&v=0",
        "pool": "threads",
        **who,
        "attempts": 1,
        **times,
        "bytes": 1000,
        "length": 1000,
        "sha256": "ab" * 32,
        "etag": 'W/"v1"',
        "last_modified": "Tue, 15 Nov 1994 12:45:26 GMT",
        "path": "b/f0",
        "outcome": "done",
        "kind": None,
        "reason": None,
        "notes": "length: unverified",
        "final_url": "http://b/1;token=***",
        "content_type": "text/plain",
        "attempt_list": [{**who, **times, "seconds": 1.5, "bytes": 10, "status": 200, "kind": None, "reason": None}],
    }
    assert (failed["outcome"], failed["attempts"], failed["kind"], failed["path"]) == ("failed", 2, "status", None)
    assert [each["kind"] for each in failed["attempt_list"]] == ["reset", "status"]
    assert (running["outcome"], running["attempts"], running["finished"]) == ("running", 1, None)
    assert (queued["outcome"], queued["attempts"], queued["started"]) == ("queued", 0, None)


def test_csv_has_the_same_fields_and_only_selects(desk: Desk, settings: Settings) -> None:
    desk.fill(3)
    desk.done(0)
    desk.failed(1)
    said = run(settings, "results", "b", "--format", "csv", "--only", "failed")
    (row,) = csv.DictReader(io.StringIO(said.out))
    assert (row["id"], row["outcome"], row["attempts"]) == ("b.1", "failed", "2")
    assert row["reason"] == "404 from http://***@a/1?***"
    everything = list(csv.DictReader(io.StringIO(run(settings, "results", "b", "--format", "csv").out)))
    assert [row["outcome"] for row in everything] == ["done", "failed", "queued"]


def test_the_exit_code_is_zero_only_when_every_job_is_done(desk: Desk, settings: Settings) -> None:
    desk.fill(2)
    desk.done(0)
    assert run(settings, "results", "b").code == 1
    desk.done(1)
    for words in (("results", "b"), ("watch", "b")):
        assert run(settings, *words).code == 0


def test_results_of_many_jobs_come_from_several_processes_in_order(desk: Desk, settings: Settings) -> None:
    jobs = 20_500  # as many as make more processes worth their start
    desk.fill(jobs)
    rows = run(settings, "results", "b", "--format", "jsonl").out.splitlines()
    assert [json.loads(row)["id"] for row in rows] == [f"b.{number}" for number in range(jobs)]
    table = run(settings, "results", "b", "--format", "csv").out.splitlines()
    assert [line.partition(",")[0] for line in table] == ["id", *(f"b.{number}" for number in range(jobs))]
    assert run(settings, "results", "b", "--only", "done", "--format", "jsonl").out == ""
    desk.ledger.redis.delete(desk.ledger.keys.job("b.20400"))
    assert "expected 20500 records, Redis has 20499" in run(settings, "results", "b", "--format", "csv").err


def test_records_that_redis_lost_are_said(desk: Desk, settings: Settings) -> None:
    desk.fill(2)
    desk.done(0)
    desk.done(1)
    desk.ledger.redis.delete(desk.ledger.keys.job("b.1"))
    said = run(settings, "results", "b")
    assert said.code == 1
    assert "expected 2 records, Redis has 1" in said.err


def test_status_counts(desk: Desk, settings: Settings) -> None:
    desk.fill(5)
    desk.done(0)
    desk.failed(1)
    desk.hold(2)
    (line,) = run(settings, "status").out.splitlines()
    assert line.startswith("b  ")
    assert line.endswith("1/5 done, 1 failed, 1 running, 2 queued, 1.0 kB")
    said = run(settings, "status", "b", "--json").json
    assert (said["total"], said["known"], said["finished"], said["bytes"]) == (5, 5, False, 1000)
    assert said["pools"]["threads"]["queued"] == 2
    assert run(settings, "status", "--json").json == [said]
    assert run(settings, "status", "nope").code == 2


def test_watch_tells_each_change_in_lines_and_ends_with_the_batch(desk: Desk, settings: Settings) -> None:
    desk.fill(3)
    with start(settings, "watch", "b", "--every", "0.1") as process:
        try:
            assert process.stdout is not None
            assert "b: 0/3 done, 3 queued, 0 bytes" in process.stdout.readline()
            claim = desk.hold(0)
            assert "0/3 done, 1 running, 2 queued" in process.stdout.readline()
            desk.ledger.progress(claim, 500, 1000, WHO)
            assert ", 500 bytes" in process.stdout.readline()
            assert process.stdout.readline() == "  f0: 500 bytes of 1.0 kB, thread 8 of pid 7\n"
            desk.ledger.close(claim, JobState.DONE, attempt(), result=Result(1000, "ab" * 32))
            assert "1/3 done, 2 queued, 1.0 kB" in process.stdout.readline()
            desk.done(1)
            desk.done(2)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert out.splitlines()[-1] == "b: 3/3 done, 3.0 kB"
    assert (process.returncode, err) == (0, "")


def test_submit_wait_exits_by_the_outcome(desk: Desk, settings: Settings) -> None:
    def fail_it() -> None:
        while (batch := desk.ledger.batch("b")) is None or batch.total is None:
            if stop.wait(0.02):
                return
        desk.failed(0)

    stop = threading.Event()
    worker = threading.Thread(target=fail_it)
    worker.start()
    try:
        said = run(settings, "submit", "--name", "b", "--wait", "--json", "http://a/x")
    finally:
        stop.set()
        worker.join(10)
    assert said.code == 1
    assert said.json == {"batch": "b", "jobs": 1, "new": 1, "bad_lines": 0}
    assert "b: 0/1 done, 1 failed" in said.err
    assert said.err.splitlines()[-3:] == [
        "1 failed, status:",
        "  404 from http://***@a/1?token=***",
        "next: `producer results b --only failed` lists them, `producer retry b` tries them again",
    ]


def test_watch_says_why_jobs_failed_by_kind_and_which_setting_would_allow_them(desk: Desk, settings: Settings) -> None:
    desk.fill(9)
    for number, (kind, reason) in enumerate(
        [
            *[(FailureKind.REFUSED, "10.0.0.1 is private")] * 3,
            (FailureKind.REFUSED, "port 22 is not allowed"),
            *[(FailureKind.REFUSED, "a zone")] * 2,
            (FailureKind.REFUSED, "metadata"),
            (FailureKind.STATUS, "404 Not Found"),
        ]
    ):
        assert desk.ledger.close(desk.hold(number), JobState.FAILED, attempt(kind, reason))
    desk.done(8)
    said = run(settings, "watch", "b")
    assert said.code == 1
    assert said.out.splitlines()[1:] == [
        "7 failed, refused:",
        "  10.0.0.1 is private (3 jobs)",
        "  a zone (2 jobs)",
        "  port 22 is not allowed",
        "  reasons beside these: 1",
        "  DOWNPOUR_ALLOW_HOSTS, DOWNPOUR_ALLOW_NETWORKS and DOWNPOUR_ALLOW_PORTS of the workers allow more",
        "1 failed, status:",
        "  404 Not Found",
        "next: `producer results b --only failed` lists them, `producer retry b` tries them again",
    ]


def test_who_runs_a_job_is_known_while_it_runs_and_not_after_it_went_back(desk: Desk, settings: Settings) -> None:
    desk.fill(1)
    claim = desk.hold(0)
    assert desk.ledger.progress(claim, 1, None, WHO)
    (running,) = desk.ledger.running("b")
    assert running.executor == WHO
    assert json.loads(run(settings, "results", "b", "--format", "jsonl").out)["thread"] == 8
    assert desk.ledger.close(claim, JobState.QUEUED, attempt())
    desk.hold(0)
    (running,) = desk.ledger.running("b")
    assert running.executor is None
