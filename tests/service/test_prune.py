"""Removing batches and temp files: what has ended goes, all of it and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from download.tempfile import TempFiles
from ledger.jobs import FailureKind, Job, JobState, Message, Pool, Ref
from ledger.ledger import KeptError, PruningError
from ledger.settings import Settings
from ledger.sweep import Expiry, Sweep
from tests.ledgers import LedgerWorld, attempt
from tests.producer_process import run
from tests.waiting import wait_for
from worker.files import clean_up


class Shelf(LedgerWorld):
    """A ledger with batches, and a holder."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.model_copy(update={"lease": 60.0}))
        assert self.incarnation  # its keys are there from the beginning on
        self.empty = self.keys()

    def add(self, batch: str, count: int, *, done: bool = True) -> None:
        self.submit(count, batch=batch)
        self.ledger.seal(batch, count)
        if done:
            self.ledger.cancel(Ref(batch, 0, count - 1))
            self.redis.delete(self.ledger.keys.queue(Pool.THREADS))

    def keys(self) -> set[str]:
        return set(self.redis.scan_iter(count=1000))

    def age(self, batch: str, seconds: float) -> None:
        """As if all of it had been so long ago."""
        then = int((self.redis.time()[0] - seconds) * 1000)
        self.redis.hset(self.ledger.keys.batch(batch), mapping={"created": then, "ended": then})
        self.redis.zadd(self.ledger.keys.batches, {batch: then})


@pytest.fixture
def shelf(settings: Settings) -> Iterator[Shelf]:
    shelf = Shelf(settings)
    yield shelf
    shelf.redis.close()


def test_a_finished_batch_goes_without_a_trace_and_the_others_stay(shelf: Shelf) -> None:
    shelf.add("stays", 3)
    with_one = shelf.keys()
    shelf.add("goes", 1203)
    said = run(shelf.settings, "prune", "goes")
    assert (said.code, said.out) == (0, "1 batch removed, 1,203 jobs\n")
    assert shelf.keys() == with_one
    assert shelf.ledger.batches() == ["stays"]
    assert run(shelf.settings, "status", "goes").code == 2


def test_a_batch_with_unfinished_jobs_stays_and_says_why(shelf: Shelf) -> None:
    shelf.add("b", 3, done=False)
    before = shelf.keys()
    said = run(shelf.settings, "prune", "b")
    assert (said.code, said.err) == (1, "batch b has not finished; it stays\n")
    assert shelf.keys() == before


def test_a_batch_whose_submission_was_cut_off_stays(shelf: Shelf) -> None:
    shelf.ledger.submit([Message(Ref("b", 0, 0), Pool.THREADS, (Job("http://a/0", "0"),))])
    shelf.ledger.cancel(Ref("b", 0, 0))
    with pytest.raises(KeptError, match="has not finished"):
        list(shelf.ledger.prune("b"))


def test_by_force_everything_goes_and_whoever_runs_a_job_of_it_can_record_nothing(shelf: Shelf) -> None:
    shelf.add("b", 5, done=False)
    held = shelf.hold()
    list(shelf.ledger.prune("b", force=True))
    assert shelf.ledger.standing([held]) == [False]
    assert not shelf.ledger.progress(held, 1, 2)
    assert not shelf.ledger.close(held, JobState.DONE, attempt())
    shelf.redis.delete(shelf.ledger.keys.queue(Pool.THREADS))
    assert shelf.keys() == shelf.empty


def test_force_cancels_before_it_removes(shelf: Shelf) -> None:
    shelf.add("b", 5, done=False)
    assert run(shelf.settings, "prune", "b", "--force").code == 0
    shelf.redis.delete(shelf.ledger.keys.queue(Pool.THREADS))
    assert shelf.keys() == shelf.empty


def test_a_batch_that_is_being_removed_takes_no_jobs_and_its_name_is_free_afterwards(shelf: Shelf) -> None:
    shelf.add("b", 1200)
    removing = shelf.ledger.prune("b")
    assert next(removing) == 700
    with pytest.raises(PruningError, match="is being removed"):
        shelf.ledger.submit([Message(Ref("b", 0, 0), Pool.THREADS, (Job("http://a/0", "0"),))])
    del removing  # whoever removed it died; the next one goes on
    said = run(shelf.settings, "submit", "--name", "b", "http://a/x")
    assert (said.code, "is being removed" in said.err) == (2, True)
    assert list(shelf.ledger.prune("b")) == [700, 200, 0]
    assert run(shelf.settings, "submit", "--name", "b", "http://a/x").code == 0


@pytest.mark.parametrize(
    ("words", "stay"),
    [
        (["--older-than", "2h"], ["new", "two-hours", "unfinished"]),
        (["--keep", "2"], ["new", "unfinished"]),
        (["--older-than", "90m", "--keep", "3"], ["new", "two-hours", "unfinished"]),
        (["--keep", "0"], ["unfinished"]),
    ],
)
def test_batches_go_by_age_and_by_number_but_never_unfinished_ones(
    shelf: Shelf, words: list[str], stay: list[str]
) -> None:
    for name, seconds in [("old", 86_400 * 8), ("day", 86_400), ("two-hours", 7100), ("new", 0)]:
        shelf.add(name, 2)
        shelf.age(name, seconds)
    shelf.add("unfinished", 2, done=False)
    assert run(shelf.settings, "prune", *words).code == 0
    assert sorted(shelf.ledger.batches()) == stay


@pytest.mark.parametrize(
    "words", [[], ["b", "--keep", "1"], ["--older-than", "soon"], ["--force", "--keep", "1"], ["--older-than", "7"]]
)
def test_what_makes_no_sense_is_wrong_usage_and_removes_nothing(shelf: Shelf, words: list[str]) -> None:
    shelf.add("b", 1)
    assert run(shelf.settings, "prune", *words).code == 2
    assert shelf.ledger.batches() == ["b"]


def test_an_expiry_takes_small_steps_past_those_that_stay(shelf: Shelf) -> None:
    for number in range(150):
        shelf.add(f"unfinished-{number}", 1, done=False)
        shelf.age(f"unfinished-{number}", 100_000)
    shelf.add("large", 3000)
    shelf.age("large", 90_000)
    shelf.add("young", 1)
    expiry = Expiry(shelf.ledger, 3600.0)
    steps = 0
    while "large" in shelf.ledger.batches(1000):
        expiry.step(most=10)
        steps += 1
        assert steps < 40
    assert steps > 15
    assert len(shelf.ledger.batches(1000)) == 151


def test_the_sweep_removes_what_the_settings_say_and_nothing_without_them(shelf: Shelf) -> None:
    shelf.add("old", 2)
    shelf.age("old", 100)
    shelf.add("young", 2)
    for _ in range(3):
        assert Sweep(shelf.settings).round().removed == 0
    sweep = Sweep(shelf.settings.model_copy(update={"keep_batches": 50.0}))
    wait_for(lambda: sweep.round().removed, what="the old batch to go")
    assert shelf.ledger.batches() == ["young"]


def test_only_what_belongs_to_ended_jobs_or_is_strange_and_old_is_removed(settings: Settings, tmp_path: Path) -> None:
    world = LedgerWorld(settings)
    world.submit(2, send=False)
    world.submit(1, send=False, batch="b-C")
    assert TempFiles(settings.downloads, "b-C.0", 1).mine.name == "b-~c.0.1.part"  # unlike those of a batch "b-c"
    for name in ("b", "b-C"):
        world.ledger.cancel(Ref(name, 0, 0))
    folder = settings.downloads / ".partial"
    folder.mkdir(parents=True)
    ended = ["b.0.1.part", "b.0.1.part.json", "b.0.12.part", "b.0.2.part.json.new", "b-~c.0.1.part"]
    kept = ["b.1.1.part", "b.1.1.part.json", "other.7.1.part", "b.0.txt"]
    for name in [*ended, *kept, "other.8.1.part"]:
        (folder / name).write_text("x")
    os.utime(folder / "other.8.1.part", (0, 0))
    assert clean_up(settings.downloads, world.ledger, keep=60) == len(ended) + 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)
    assert clean_up(tmp_path / "nowhere", world.ledger, keep=60) == 0


def test_what_a_retry_can_continue_stays_for_a_while(settings: Settings) -> None:
    kinds = (FailureKind.TRUNCATED, FailureKind.DEADLINE, FailureKind.STATUS, FailureKind.CHANGED)
    world = LedgerWorld(settings)
    world.submit(len(kinds), send=False)
    folder = settings.downloads / ".partial"
    folder.mkdir(parents=True)
    for number, kind in enumerate(kinds):
        world.ledger.close(world.hold(number), JobState.FAILED, attempt(kind))
        for name in (f"b.{number}.1.part", f"b.{number}.1.part.json"):
            (folder / name).write_text("x")
    os.utime(folder / "b.0.1.part.json", (0, 0))  # written before the bytes that it vouches for
    clean_up(settings.downloads, world.ledger, keep=60)
    assert sorted({path.name.split(".")[1] for path in folder.iterdir()}) == ["0", "1"]
    assert len(list(folder.iterdir())) == 4
    os.utime(folder / "b.0.1.part", (0, 0))
    assert clean_up(settings.downloads, world.ledger, keep=60) == 2
    assert clean_up(settings.downloads, world.ledger, keep=0) == 2
