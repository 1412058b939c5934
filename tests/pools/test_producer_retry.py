"""``producer retry``: the failed ones again, in place, with their history, and nothing else."""

from __future__ import annotations

import pytest

from ledger.jobs import Attempt, FailureKind, Job, JobState, Pool, Result
from ledger.settings import Settings
from ledger.sweep import Sweep
from tests.ledgers import LedgerWorld
from tests.producer_process import run
from tests.waiting import wait_for
from tests.world import Begin, pools

ENDS = [
    (JobState.DONE, None),
    (JobState.FAILED, FailureKind.SERVER),
    (JobState.FAILED, FailureKind.STATUS),
    (JobState.CANCELLED, None),
    (JobState.WAITING, FailureKind.RESET),
    (JobState.RUNNING, None),
]


@pytest.fixture
def book(settings: Settings) -> LedgerWorld:
    """A batch with one job of each state; the last one is still queued."""
    world = LedgerWorld(settings)
    world.submit(len(ENDS) + 1, send=False)
    world.ledger.seal("b", len(ENDS) + 1)
    for n, (state, kind) in enumerate(ENDS):
        claim = world.hold(n)
        if state is not JobState.RUNNING:
            result = Result(10, "ab" * 32) if state is JobState.DONE else None
            end = Attempt(None, started=claim.record.queued, finished=claim.record.queued + 1, kind=kind)
            world.ledger.close(claim, state, end, due_in=600, result=result)
    return world


@pytest.mark.parametrize(
    ("words", "after", "queued"),
    [
        ((), "dqqcwrq", 2),
        (("--kind", "status"), "dfqcwrq", 1),
        (("--kind", "status", "--kind", "server"), "dqqcwrq", 2),
        (("--kind", "dns"), "dffcwrq", 0),
        (("--cancelled",), "dqqqwrq", 3),
        (("--cancelled", "--kind", "server"), "dqfqwrq", 2),
        (("--all",), "qqqqwrq", 4),
    ],
)
def test_only_the_jobs_asked_for_are_queued_again_and_asking_twice_adds_none(
    book: LedgerWorld, settings: Settings, words: tuple[str, ...], after: str, queued: int
) -> None:
    assert book.states() == "dffcwrq"
    said = run(settings, "retry", "b", *words, "--json")
    assert (said.code, said.json) == (0, {"batch": "b", "queued": queued})
    assert book.states() == after
    messages = book.ledger.redis.llen(book.ledger.keys.queue(Pool.THREADS))
    again = run(settings, "retry", "b", *words, "--json")
    assert (again.code, again.json["queued"]) == (0, 0)
    assert book.states() == after
    assert book.ledger.redis.llen(book.ledger.keys.queue(Pool.THREADS)) == messages == queued


def test_the_history_stays_and_the_losses_are_forgotten(book: LedgerWorld, settings: Settings) -> None:
    book.ledger.redis.hset(book.ledger.keys.job("b.1"), "l", 4)
    run(settings, "retry", "b")
    record = book.record(1)
    assert [attempt.kind for attempt in record.attempts] == [FailureKind.SERVER]
    assert record.before == 1
    assert not book.ledger.redis.hexists(book.ledger.keys.job("b.1"), "l")


def test_a_retry_that_dies_before_it_sends_is_ended_by_the_sweep(
    book: LedgerWorld, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("ledger.messages.Publisher.send", lambda *_, **__: (_ for _ in ()).throw(OSError("died")))
        assert run(settings, "retry", "b").code != 0
    queue = book.ledger.keys.queue(Pool.THREADS)
    assert book.ledger.redis.llen(queue) == 0
    sweep = Sweep(settings)

    def sent() -> bool:
        sweep.round()
        return book.ledger.redis.llen(queue) >= 2

    wait_for(sent, what="the sweep to send the messages")


def test_a_batch_that_nobody_knows_is_said_so(settings: Settings) -> None:
    said = run(settings, "retry", "nobody")
    assert (said.code, "expected the name of a batch" in said.err) == (2, True)


@pools
@pytest.mark.parametrize("carried", [1, 2])
def test_an_attempt_that_brings_the_file_further_is_free(begin: Begin, pool: Pool, carried: int) -> None:
    """Given a server that cuts nine times and two attempts; I expect the file, and attempts without a kind."""
    size = 2**25
    world = begin(max_attempts=2).start(pool)
    url = f"{world.origin.url}/faults/resume?times=9&size={size}"
    world.submit(pool, [Job(f"{url}&key={n}", f"{n}") for n in range(2)], carried=carried)
    records = world.finished()
    for record in records:
        assert (record.state, record.bytes) == (JobState.DONE, size)
        assert [each.kind for each in record.attempts] == [FailureKind.TRUNCATED, *[None] * 9]
        assert [each.status for each in record.attempts] == [200, *[206] * 9]
        assert all("truncated: expected" in (each.reason or "") for each in record.attempts[1:9])
    world.check_files(records)


@pools
def test_a_retry_goes_on_where_the_last_attempt_stopped(begin: Begin, pool: Pool) -> None:
    world = begin(max_attempts=1).start(pool)
    url = f"{world.origin.url}/faults/resume?times=1&key=k&size=300000&name=f"
    world.ledger.redis.hset(world.ledger.keys.batch("b"), "deadline", 2000)
    world.submit(pool, [Job(url, "f"), world.paced("slow", 8, 800_000)])
    cut, late = world.finished()
    assert [each.last.kind for each in (cut, late) if each.last] == [FailureKind.TRUNCATED, FailureKind.DEADLINE]
    assert world.files() != []
    world.ledger.redis.hdel(world.ledger.keys.batch("b"), "deadline")
    assert run(world.settings, "retry", "b", "--json").json["queued"] == 2
    cut, late = world.finished()
    assert "resumed from byte 150000" in cut.notes
    assert any(note.startswith("resumed from byte") for note in late.notes)
    world.check_files([cut, late])


@pools
def test_a_worker_gives_a_retried_job_all_its_attempts_again(begin: Begin, pool: Pool) -> None:
    world = begin(max_attempts=2).start(pool)
    url = f"{world.origin.url}/faults/flaky/503?times=3&key=k&size=99"
    world.submit(pool, [Job(url, "f"), world.file("good.bin")])
    (failed, _) = world.finished()
    assert (failed.state, len(failed.attempts)) == (JobState.FAILED, 2)
    assert run(world.settings, "retry", "b", "--json").json["queued"] == 1
    (done, _) = world.finished()
    assert done.state is JobState.DONE
    assert [each.kind for each in done.attempts] == [FailureKind.SERVER] * 3 + [None]
    world.check_files(world.records())
