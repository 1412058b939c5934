"""The verifier is verified: each kind of mistake, made on purpose, is found."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from chaos import books, findings
from chaos.books import Look, look
from chaos.faults import Disk
from chaos.mix import Planned, plan_batch
from chaos.report import Books, Spread
from chaos.schedule import Kind
from chaos.subject import Blow, Ended, Interruption
from ledger.jobs import Pool
from origin.content import Entity


class Shelf:
    """Ten jobs that went well: files whole, records right, each seen once."""

    def __init__(self, downloads: Path) -> None:
        self.downloads = downloads
        self.jobs = plan_batch(1, "b", Pool.THREADS, 10)
        self.ended = {job.id: Ended("done", successes=1, starts=(1.0,)) for job in self.jobs}
        (downloads / "b").mkdir(parents=True)
        for job in self.jobs:
            self.file(job).write_bytes(Entity(job.filename, job.size).read(0, job.size))
        self.first: dict[str, Look | None] = {job.id: look(self.file(job)) for job in self.jobs}

    def file(self, job: Planned) -> Path:
        return self.downloads / "b" / job.filename

    def books(self, left: tuple[str, ...] = ()) -> Books:
        return books.balance(self.jobs, self.ended, self.downloads, self.first, ({}, left))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "downloads")


def test_books_that_balance(shelf: Shelf) -> None:
    assert shelf.books().wrong == {}
    assert shelf.books().done == 10


def test_a_job_without_an_end_is_lost_and_its_file_is_strange(shelf: Shelf) -> None:
    shelf.ended[shelf.jobs[3].id] = Ended(None)
    assert shelf.books().wrong == {"lost": 1, "strange files": 1}
    assert shelf.books().examples["lost"] == ["b.3"]


def test_two_successful_ends_are_one_too_many(shelf: Shelf) -> None:
    shelf.ended[shelf.jobs[3].id] = Ended("done", successes=2)
    assert shelf.books().wrong == {"done twice": 1}


def test_a_byte_that_differs_a_missing_file_and_a_short_one_are_wrong(shelf: Shelf) -> None:
    first, second, third = (shelf.file(job) for job in shelf.jobs[:3])
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    second.unlink()
    third.write_bytes(b"")
    shelf.first.clear()
    assert shelf.books().wrong == {"wrong files": 3}


def test_an_equal_file_that_replaced_one_is_a_changed_file(shelf: Shelf) -> None:
    file = shelf.file(shelf.jobs[0])
    again = file.with_name("again")
    again.write_bytes(file.read_bytes())
    again.replace(file)
    assert shelf.books().wrong == {"changed files": 1}


def test_temp_files_and_leftovers_in_redis_are_found(shelf: Shelf) -> None:
    (shelf.downloads / ".partial").mkdir()
    (shelf.downloads / ".partial" / "b.3.1.part").touch()
    assert shelf.books(left=("held",)).wrong == {"temp files": 1, "left in Redis": 1}


def test_a_failed_job_is_innocent_unless_it_killed_its_process_and_that_one_must_be_poison(shelf: Shelf) -> None:
    killer, escaped = (plan_batch(1, f"poison-{n}", Pool.THREADS, 1)[0] for n in range(2))
    shelf.jobs += [killer, escaped]
    shelf.ended[killer.id] = Ended("failed", lost=5, kind="poison")
    shelf.ended[escaped.id] = Ended("failed", lost=1, kind="deadline")
    assert shelf.books().wrong == {"innocent failed": 1, "escaped": 1}
    shelf.ended[escaped.id] = shelf.ended[killer.id]
    assert shelf.books().wrong == {}
    shelf.file(shelf.jobs[3]).unlink()
    shelf.ended[shelf.jobs[3].id] = Ended("failed", lost=5, kind="poison")
    assert shelf.books().wrong == {"innocent failed": 1}
    assert shelf.books().examples["innocent failed"] == ["b.3"]


@pytest.mark.parametrize(("malformed", "dead", "wrong"), [(0, 0, 0), (20, 20, 0), (20, 19, 0), (20, 9, 1), (20, 22, 2)])
def test_malformed_messages_are_dead_letters_and_no_other_is(
    shelf: Shelf, malformed: int, dead: int, wrong: int
) -> None:
    left = ({"dead-letters": dead}, ())
    books_ = books.balance(shelf.jobs, shelf.ended, shelf.downloads, shelf.first, left, malformed=malformed)
    assert books_.wrong.get("dead letters", 0) == wrong


def test_the_origin_counts_what_it_sent_to_the_last_byte(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    lines = [
        {"path": "/files/a", "status": 200, "aborted": False},
        {"path": "/files/a", "status": 206, "aborted": False},
        {"path": "/files/a", "status": 200, "aborted": True},
        {"path": "/files/b", "status": 404, "aborted": False},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"path": "/files/a", "sta')
    assert books.whole_fetches(log) == {"/files/a": 2}


def test_times_are_told_by_fault_and_pool() -> None:
    blows = [
        Blow(Kind.WORKER, Pool.GEVENT, 100.0, ("gevent-1",), frozenset({7})),
        Blow(Kind.REDIS, None, 200.0, ("valkey",), frozenset()),
        Blow(Kind.TWO, Pool.GEVENT, 205.0, ("gevent-1", "gevent-2"), frozenset({8, 9})),
    ]
    interruptions = [
        Interruption("b.1", Pool.GEVENT, 0, 5.0, 6.0),
        Interruption("b.2", Pool.GEVENT, 2, 11.0, None),
        Interruption("b.3", Pool.GEVENT, -1, 0.0, 1.0),
    ]
    rows = {row.kind: row for row in findings.rows(blows, interruptions)}
    assert rows[Kind.WORKER].back == Spread(1, 5.0, 5.0, 5.0)
    assert (rows[Kind.TWO].interrupted, rows[Kind.TWO].never_again) == (1, 1)
    assert rows[findings.UNKNOWN].interrupted == 1
    found = findings.overall(blows, interruptions, lambda pool, begin, end: pool is Pool.GEVENT and begin < 210 <= end)
    assert found["back"] == Spread(2, 5.0, 11.0, 11.0)
    assert found["calm back"] == found["lives back"] == Spread(1, 5.0, 5.0, 5.0)
    assert found["none back"] == Spread(1, 11.0, 11.0, 11.0)


@pytest.mark.timeout(30)
def test_a_disk_is_full_when_it_is_as_small_as_what_lies_on_it(tmp_path: Path) -> None:
    (folder := tmp_path / "disk").mkdir()
    if os.geteuid() != 0:
        with pytest.raises(subprocess.CalledProcessError):
            Disk(folder, 2**20)
        return
    disk = Disk(folder, 2**20)
    try:
        (folder / "a").write_bytes(b"x" * 10_000)
        assert disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (folder / "b").write_bytes(b"x" * 10_000)
        disk.free()
        (folder / "b").write_bytes(b"x" * 10_000)
    finally:
        disk.close()
    assert list(folder.iterdir()) == []
