"""The ledger's promises, on a real Valkey."""

from __future__ import annotations

import math
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.jobs import Attempt, Executor, FailureKind, Job, JobState, Message, Pool, Ref, Result
from ledger.leases import Identity, Leases, Renewed
from ledger.ledger import Claim, ConflictError, IncarnationLostError, Ledger, TotalError
from ledger.redis_client import connect
from ledger.settings import Settings
from tests.ledgers import states_of
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for

WHO = Executor("threads@here", 7, 8, None)
DONE = Result(size=10, sha256="ab" * 32)


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    return Ledger(connect(settings), settings.key_prefix)


@pytest.fixture
def leases(settings: Settings) -> Leases:
    return Leases(connect(settings), settings.key_prefix, settings.lease)


@pytest.fixture
def incarnation(leases: Leases) -> str:
    return leases.register(Identity("threads@here", Pool.THREADS, 7))


def job(number: int) -> Job:
    return Job(f"http://origin/{number}", f"file-{number}")


def message(number: int, batch: str = "b", pool: Pool = Pool.THREADS) -> Message:
    return Message(Ref(batch, number, number), pool, (job(number),))


def attempt(kind: FailureKind | None = None) -> Attempt:
    return Attempt(WHO, started=1.0, finished=2.0, bytes=10, status=200, kind=kind)


def claim(ledger: Ledger, incarnation: str, number: int = 0) -> Claim:
    (taken,) = ledger.claim(Ref("b", number, number), Pool.THREADS, incarnation)
    return taken


def state(ledger: Ledger, id_: str = "b.0") -> JobState:
    (record,) = ledger.read([id_])
    return record.state


def test_a_submitted_job_is_queued_and_read_back_as_it_was_asked(ledger: Ledger) -> None:
    asked = Job("http://origin/a?b=c", "übung/a b.bin", "cd" * 32, 12)
    assert ledger.submit([Message(Ref("b", 0, 0), Pool.GEVENT, (asked,))]) == [True]
    (record,) = ledger.read(["b.0"])
    assert (record.job, record.state, record.pool) == (asked, JobState.QUEUED, Pool.GEVENT)
    assert record.path == "b/übung/a b.bin"


def test_submitting_the_same_jobs_again_changes_nothing(ledger: Ledger, incarnation: str) -> None:
    messages = [message(n) for n in range(3)]
    ledger.submit(messages)
    held = claim(ledger, incarnation)
    assert ledger.submit([*messages, message(3)]) == [False, False, False, True]
    assert ledger.standing([held]) == [True]
    states_of(ledger)


def test_another_job_at_a_place_that_is_taken_is_a_conflict(ledger: Ledger) -> None:
    ledger.submit([message(0)])
    with pytest.raises(ConflictError, match="already has another job number 0"):
        ledger.submit([Message(Ref("b", 0, 0), Pool.THREADS, (job(99),))])


def test_a_batch_is_finished_when_it_is_sealed_and_all_its_jobs_are_final(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([message(0)])
    ledger.close(claim(ledger, incarnation), JobState.DONE, attempt(), result=DONE)
    unsealed = ledger.batch("b")
    ledger.seal("b", 1)
    sealed = ledger.batch("b")
    assert unsealed is not None
    assert not unsealed.finished
    assert sealed is not None
    assert sealed.finished
    assert sealed.bytes_done[Pool.THREADS] == 10


def test_of_a_message_that_comes_twice_the_second_takes_nothing(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([message(0)])
    claim(ledger, incarnation)
    assert ledger.claim(Ref("b", 0, 0), Pool.THREADS, incarnation) == []


def test_a_run_of_jobs_is_claimed_with_one_message_but_only_what_is_queued(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([Message(Ref("b", 0, 3), Pool.THREADS, tuple(job(n) for n in range(4)))])
    ledger.cancel(Ref("b", 2, 2))
    taken = ledger.claim(Ref("b", 0, 3), Pool.THREADS, incarnation)
    assert [each.record.id for each in taken] == ["b.0", "b.1", "b.3"]
    assert {record.id for record in ledger.running("b")} == {"b.0", "b.1", "b.3"}
    states_of(ledger)


def test_a_claim_whose_answer_got_lost_is_answered_again(
    ledger: Ledger, incarnation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.submit([message(0)])
    monkeypatch.setattr("secrets.token_hex", lambda _: "one-call")  # what redis-py does when it repeats a call
    first = claim(ledger, incarnation)
    again = claim(ledger, incarnation)
    assert (again.record.id, again.number) == (first.record.id, first.number)
    assert ledger.close(again, JobState.DONE, attempt(), result=DONE)
    assert ledger.claim(Ref("b", 0, 0), Pool.THREADS, incarnation) == []
    states_of(ledger)


def test_a_message_for_jobs_that_nobody_knows_takes_nothing(ledger: Ledger, incarnation: str) -> None:
    assert ledger.claim(Ref("nobody", 0, 5), Pool.THREADS, incarnation) == []


def test_whoever_is_not_alive_claims_nothing(ledger: Ledger) -> None:
    ledger.submit([message(0)])
    with pytest.raises(IncarnationLostError):
        ledger.claim(Ref("b", 0, 0), Pool.THREADS, "stranger")
    assert state(ledger) is JobState.QUEUED


def test_a_job_that_is_done_says_what_came_of_it(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([message(0)])
    held = claim(ledger, incarnation)
    assert ledger.progress(held, 5, 10)
    assert ledger.note_attempt(held, attempt(FailureKind.RESET))
    came = Result(
        10,
        "ab" * 32,
        ("length: unverified",),
        final_url=f"http://b/{'x' * 600}",
        content_type="text/html; charset=utf-8",
    )
    assert ledger.close(held, JobState.DONE, attempt(), result=came)
    (record,) = ledger.read(["b.0"])
    assert (record.final_url, record.content_type) == ("http://b/" + "x" * 491, "text/html; charset=utf-8")
    assert (record.state, record.bytes, record.sha256) == (JobState.DONE, 10, "ab" * 32)
    assert record.notes == ("length: unverified",)
    assert [each.kind for each in record.attempts] == [FailureKind.RESET, None]
    assert record.attempts[1] == attempt()


def test_closing_twice_with_the_same_claim_is_heard_once_and_harmless(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([message(0)])
    held = claim(ledger, incarnation)
    assert ledger.close(held, JobState.DONE, attempt(), result=DONE)
    assert ledger.close(held, JobState.DONE, attempt(), result=DONE)
    (record,) = ledger.read(["b.0"])
    assert len(record.attempts) == 1
    states_of(ledger)


def test_a_final_state_is_never_left(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([message(0)])
    held = claim(ledger, incarnation)
    ledger.close(held, JobState.FAILED, attempt(FailureKind.STATUS))
    ledger.close(held, JobState.DONE, attempt(), result=DONE)
    assert ledger.cancel(Ref("b", 0, 0)) == (0, 0)
    assert ledger.claim(Ref("b", 0, 0), Pool.THREADS, incarnation) == []
    assert state(ledger) is JobState.FAILED


def test_a_queued_job_is_cancelled_at_once_and_its_message_takes_nothing(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([message(0), message(1)])
    assert ledger.cancel(Ref("b", 0, 0)) == (1, 0)
    assert ledger.claim(Ref("b", 0, 0), Pool.THREADS, incarnation) == []
    assert state(ledger) is JobState.CANCELLED
    states_of(ledger)


def test_the_holder_of_a_running_job_hears_of_a_cancel_with_its_heartbeat(
    ledger: Ledger, leases: Leases, incarnation: str
) -> None:
    ledger.submit([message(0)])
    held = claim(ledger, incarnation)
    assert leases.renew(incarnation) == Renewed(1, frozenset())
    assert ledger.cancel(Ref("b", 0, 0)) == (0, 1)
    assert leases.renew(incarnation) == Renewed(1, frozenset({"b.0 1"}))
    ledger.close(held, JobState.CANCELLED, attempt())
    assert leases.renew(incarnation) == Renewed(0, frozenset())
    assert state(ledger) is JobState.CANCELLED


@pytest.mark.parametrize("state_", [JobState.QUEUED, JobState.WAITING])
def test_a_cancel_that_comes_late_wins_over_going_round_again(
    ledger: Ledger, incarnation: str, state_: JobState
) -> None:
    ledger.submit([message(0)])
    held = claim(ledger, incarnation)
    ledger.cancel(Ref("b", 0, 0))
    ledger.close(held, state_, attempt(), due_in=60)
    assert state(ledger) is JobState.CANCELLED


def test_whatever_is_done_to_jobs_in_whatever_order_the_counters_tell_the_truth(
    ledger: Ledger, leases: Leases, incarnation: str
) -> None:
    dice = random.Random(7)
    ledger.submit([message(n) for n in range(60)])
    held: dict[int, Claim] = {}
    for _ in range(600):
        number = dice.randrange(60)
        action = dice.choice(["claim", "done", "failed", "wait", "back", "cancel", "progress"])
        if action == "claim":
            for taken in ledger.claim(Ref("b", number, number), Pool.THREADS, incarnation):
                held[number] = taken
        elif action == "cancel":
            ledger.cancel(Ref("b", number, number))
        elif number in held:
            if action == "progress":
                ledger.progress(held[number], 1, None)
                continue
            into = {
                "done": JobState.DONE,
                "failed": JobState.FAILED,
                "wait": JobState.WAITING,
                "back": JobState.QUEUED,
            }[action]
            ledger.close(held[number], into, attempt(), due_in=60, result=DONE if into is JobState.DONE else None)
    states_of(ledger)
    assert {r.id for r in ledger.running("b")} == {
        r.id for r in ledger.read(f"b.{n}" for n in range(60)) if r.state is JobState.RUNNING
    }


def test_a_batch_is_sealed_only_with_the_number_of_jobs_that_it_has(ledger: Ledger) -> None:
    ledger.submit([message(0), message(1)])
    for wrong in (0, 1, 3):
        with pytest.raises(TotalError, match=f"expected batch 'b' to have {wrong} jobs, the ledger knows 2"):
            ledger.seal("b", wrong)
    for total in (0, 1):
        with pytest.raises(TotalError):
            ledger.seal("nobody", total)
    found = ledger.batch("b")
    assert found is not None
    assert found.total is None
    ledger.seal("b", 2)


def test_a_conflict_within_a_message_leaves_the_counters_true(ledger: Ledger) -> None:
    ledger.submit([message(2)])
    with pytest.raises(ConflictError, match="job number 2"):
        ledger.submit([Message(Ref("b", 0, 3), Pool.THREADS, (job(0), job(1), job(99), job(3)))])
    states_of(ledger)
    found = ledger.batch("b")
    assert found is not None
    assert found.known == 3


def test_the_deadline_counts_from_the_first_claim_whoever_claims_later(
    ledger: Ledger, leases: Leases, incarnation: str
) -> None:
    ledger.submit([message(0)])
    (first,) = ledger.claim(Ref("b", 0, 0), Pool.THREADS, incarnation, deadline=60)
    assert first.record.deadline is not None
    assert first.record.started is not None
    assert first.record.deadline - first.record.started == pytest.approx(60, abs=0.01)
    ledger.close(first, JobState.QUEUED, attempt())
    other = leases.register(Identity("threads@there", Pool.THREADS, 8))
    (second,) = ledger.claim(Ref("b", 0, 0), Pool.THREADS, other, deadline=3600)
    assert second.record.deadline == first.record.deadline
    ledger.close(second, JobState.DONE, attempt(), result=DONE)
    (record,) = ledger.read(["b.0"])
    assert record.deadline is None
    assert not ledger.redis.exists("t:deadlines")


def test_where_nobody_sets_a_deadline_there_is_none(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([message(0)])
    (held,) = ledger.claim(Ref("b", 0, 0), Pool.THREADS, incarnation, deadline=Settings().deadline)
    assert (held.record.deadline, held.ends) == (None, math.inf)
    assert not ledger.redis.exists("t:deadlines")
    assert ledger.close(held, JobState.DONE, attempt(), result=DONE)


def test_a_batch_may_have_a_deadline_of_its_own(ledger: Ledger, incarnation: str) -> None:
    ledger.submit([message(0)], deadline=5)
    (held,) = ledger.claim(Ref("b", 0, 0), Pool.THREADS, incarnation, deadline=3600)
    assert held.record.deadline is not None
    assert held.record.deadline - (held.record.started or 0) == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize(("appendonly", "fsync"), [(True, "always"), (True, "everysec"), (False, "everysec")])
def test_a_seal_waits_for_the_disk_where_redis_keeps_a_log(settings: Settings, *, appendonly: bool, fsync: str) -> None:
    with ValkeyProcess(appendonly=appendonly, options={"appendfsync": fsync}) as valkey:
        ledger = Ledger(connect(settings.model_copy(update={"redis_url": valkey.url})), settings.key_prefix)
        ledger.submit([message(0)])
        assert ledger.seal("b", 1, durable=5.0) is appendonly
        if not appendonly:
            return
        with valkey.client() as redis:
            assert redis.info("persistence")["aof_pending_bio_fsync"] == 0
        valkey.kill()
        valkey.restart()
        kept = ledger.batch("b")
        assert kept is not None
        assert kept.total == 1
        assert list(ledger.read_batch(kept))


def test_a_connection_in_use_is_waited_for_also_by_a_worker_that_stops(settings: Settings) -> None:
    """Given one connection, busy for longer than a second, and a caller whose patience is over."""
    redis = connect(settings, patience=60, connections=1, stop=lambda: True)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(redis.blpop, [f"{settings.key_prefix}nothing"], 1.5)
        wait_for(lambda: connect(settings).info("clients")["blocked_clients"], what="the connection to be in use")
        assert threads.submit(redis.ping).result()
        assert first.result() is None
