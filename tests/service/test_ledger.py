"""The ledger's promises, on a real Valkey."""

from __future__ import annotations

import math
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.jobs import Attempt, Executor, FailureKind, Job, JobState, Message, Pool, Ref, Result
from ledger.leases import Identity, Renewed
from ledger.ledger import Claim, ConflictError, IncarnationLostError, TotalError
from ledger.redis_client import connect
from ledger.settings import Settings
from tests.ledgers import LedgerWorld
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for

WHO = Executor("threads@here", 7, 8, None)
DONE = Result(size=10, sha256="ab" * 32)
ENDS = {"done": JobState.DONE, "failed": JobState.FAILED, "wait": JobState.WAITING, "back": JobState.QUEUED}


@pytest.fixture
def world(settings: Settings) -> LedgerWorld:
    return LedgerWorld(settings)


def job(number: int) -> Job:
    return Job(f"http://origin/{number}", f"file-{number}")


def message(number: int) -> Message:
    return Message(Ref("b", number, number), Pool.THREADS, (job(number),))


def attempt(kind: FailureKind | None = None) -> Attempt:
    return Attempt(WHO, started=1.0, finished=2.0, bytes=10, status=200, kind=kind)


def test_a_submitted_job_is_queued_and_read_back_as_it_was_asked(world: LedgerWorld) -> None:
    asked = Job("http://origin/a?b=c", "übung/a b.bin", "cd" * 32, 12)
    assert world.ledger.submit([Message(Ref("b", 0, 0), Pool.GEVENT, (asked,))]) == [True]
    record = world.record()
    assert (record.job, record.state, record.pool) == (asked, JobState.QUEUED, Pool.GEVENT)
    assert record.path == "b/übung/a b.bin"


def test_submitting_the_same_jobs_again_changes_nothing(world: LedgerWorld) -> None:
    messages = [message(n) for n in range(3)]
    world.ledger.submit(messages)
    held = world.hold()
    assert world.ledger.submit([*messages, message(3)]) == [False, False, False, True]
    assert world.ledger.standing([held]) == [True]
    world.states()


def test_another_job_at_a_place_that_is_taken_is_a_conflict(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    with pytest.raises(ConflictError, match="already has another job number 0"):
        world.ledger.submit([Message(Ref("b", 0, 0), Pool.THREADS, (job(99),))])


def test_a_batch_is_finished_when_it_is_sealed_and_all_its_jobs_are_final(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    world.ledger.close(world.hold(), JobState.DONE, attempt(), result=DONE)
    assert not world.batch().finished
    world.ledger.seal("b", 1)
    assert world.batch().finished
    assert world.batch().bytes_done[Pool.THREADS] == 10


def test_of_a_message_that_comes_twice_the_second_takes_nothing(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    world.hold()
    assert world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.incarnation) == []


def test_a_run_of_jobs_is_claimed_with_one_message_but_only_what_is_queued(world: LedgerWorld) -> None:
    world.ledger.submit([Message(Ref("b", 0, 3), Pool.THREADS, tuple(job(n) for n in range(4)))])
    world.ledger.cancel(Ref("b", 2, 2))
    taken = world.ledger.claim(Ref("b", 0, 3), Pool.THREADS, world.incarnation)
    assert [each.record.id for each in taken] == ["b.0", "b.1", "b.3"]
    assert {record.id for record in world.ledger.running("b")} == {"b.0", "b.1", "b.3"}
    world.states()


def test_a_claim_whose_answer_got_lost_is_answered_again(world: LedgerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit(1, send=False)
    monkeypatch.setattr("secrets.token_hex", lambda _: "one-call")  # what redis-py does when it repeats a call
    first = world.hold()
    again = world.hold()
    assert (again.record.id, again.number) == (first.record.id, first.number)
    assert world.ledger.close(again, JobState.DONE, attempt(), result=DONE)
    assert world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.incarnation) == []
    world.states()


def test_a_message_for_jobs_that_nobody_knows_takes_nothing(world: LedgerWorld) -> None:
    assert world.ledger.claim(Ref("nobody", 0, 5), Pool.THREADS, world.incarnation) == []


def test_whoever_is_not_alive_claims_nothing(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    with pytest.raises(IncarnationLostError):
        world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, "stranger")
    assert world.record().state is JobState.QUEUED


def test_a_job_that_is_done_says_what_came_of_it(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    held = world.hold()
    assert world.ledger.progress(held, 5, 10)
    for _ in range(2):  # the second as by a client that did not get the answer
        assert world.ledger.note_attempt(held, attempt(FailureKind.RESET))
    came = Result(
        10,
        "ab" * 32,
        ("length: unverified",),
        final_url=f"http://b/{'x' * 600}",
        content_type="text/html; charset=utf-8",
    )
    assert world.ledger.close(held, JobState.DONE, attempt(), result=came)
    record = world.record()
    assert (record.final_url, record.content_type) == ("http://b/" + "x" * 491, "text/html; charset=utf-8")
    assert (record.state, record.bytes, record.sha256) == (JobState.DONE, 10, "ab" * 32)
    assert record.notes == ("length: unverified",)
    assert [each.kind for each in record.attempts] == [FailureKind.RESET, None]
    assert record.attempts[1] == attempt()


def test_closing_twice_with_the_same_claim_is_heard_once_and_harmless(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    held = world.hold()
    assert world.ledger.close(held, JobState.DONE, attempt(), result=DONE)
    assert world.ledger.close(held, JobState.DONE, attempt(), result=DONE)
    record = world.record()
    assert len(record.attempts) == 1
    world.states()


def test_a_final_state_is_never_left(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    held = world.hold()
    world.ledger.close(held, JobState.FAILED, attempt(FailureKind.STATUS))
    world.ledger.close(held, JobState.DONE, attempt(), result=DONE)
    assert world.ledger.cancel(Ref("b", 0, 0)) == (0, 0)
    assert world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.incarnation) == []
    assert world.record().state is JobState.FAILED


def test_a_queued_job_is_cancelled_at_once_and_its_message_takes_nothing(world: LedgerWorld) -> None:
    world.submit(2, send=False)
    assert world.ledger.cancel(Ref("b", 0, 0)) == (1, 0)
    assert world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.incarnation) == []
    assert world.record().state is JobState.CANCELLED
    world.states()


def test_the_holder_of_a_running_job_hears_of_a_cancel_with_its_heartbeat(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    held = world.hold()
    assert world.leases.renew(world.incarnation) == Renewed(1, frozenset())
    assert world.ledger.cancel(Ref("b", 0, 0)) == (0, 1)
    assert world.leases.renew(world.incarnation) == Renewed(1, frozenset({"b.0 1"}))
    world.ledger.close(held, JobState.CANCELLED, attempt())
    assert world.leases.renew(world.incarnation) == Renewed(0, frozenset())
    assert world.record().state is JobState.CANCELLED


@pytest.mark.parametrize("state_", [JobState.QUEUED, JobState.WAITING])
def test_a_cancel_that_comes_late_wins_over_going_round_again(world: LedgerWorld, state_: JobState) -> None:
    world.submit(1, send=False)
    held = world.hold()
    world.ledger.cancel(Ref("b", 0, 0))
    world.ledger.close(held, state_, attempt(), due_in=60)
    assert world.record().state is JobState.CANCELLED


def test_whatever_is_done_to_jobs_in_whatever_order_the_counters_tell_the_truth(world: LedgerWorld) -> None:
    dice = random.Random(7)
    world.ledger.submit([message(n) for n in range(60)])
    held: dict[int, Claim] = {}
    for _ in range(600):
        number = dice.randrange(60)
        action = dice.choice(["claim", "cancel", "progress", *ENDS])
        if action == "claim":
            for taken in world.ledger.claim(Ref("b", number, number), Pool.THREADS, world.incarnation):
                held[number] = taken
        elif action == "cancel":
            world.ledger.cancel(Ref("b", number, number))
        elif number in held:
            if action == "progress":
                world.ledger.progress(held[number], 1, None)
                continue
            into = ENDS[action]
            result = DONE if into is JobState.DONE else None
            world.ledger.close(held[number], into, attempt(), due_in=60, result=result)
    world.states()
    assert {r.id for r in world.ledger.running("b")} == {
        r.id for r in world.ledger.read(f"b.{n}" for n in range(60)) if r.state is JobState.RUNNING
    }


def test_a_batch_is_sealed_only_with_the_number_of_jobs_that_it_has(world: LedgerWorld) -> None:
    world.submit(2, send=False)
    for wrong in (0, 1, 3):
        with pytest.raises(TotalError, match=f"expected batch 'b' to have {wrong} jobs, the ledger knows 2"):
            world.ledger.seal("b", wrong)
    for total in (0, 1):
        with pytest.raises(TotalError):
            world.ledger.seal("nobody", total)
    assert world.batch().total is None
    world.ledger.seal("b", 2)


def test_a_conflict_within_a_message_leaves_the_counters_true(world: LedgerWorld) -> None:
    world.ledger.submit([message(2)])
    with pytest.raises(ConflictError, match="job number 2"):
        world.ledger.submit([Message(Ref("b", 0, 3), Pool.THREADS, (job(0), job(1), job(99), job(3)))])
    world.states()
    assert world.batch().known == 3


def test_the_deadline_counts_from_the_first_claim_whoever_claims_later(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    (first,) = world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.incarnation, deadline=60)
    assert first.record.deadline is not None
    assert first.record.started is not None
    assert first.record.deadline - first.record.started == pytest.approx(60, abs=0.01)
    world.ledger.close(first, JobState.QUEUED, attempt())
    other = world.leases.register(Identity("threads@there", Pool.THREADS, 8))
    (second,) = world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, other, deadline=3600)
    assert second.record.deadline == first.record.deadline
    world.ledger.close(second, JobState.DONE, attempt(), result=DONE)
    record = world.record()
    assert record.deadline is None
    assert not world.ledger.redis.exists("t:deadlines")


def test_where_nobody_sets_a_deadline_there_is_none(world: LedgerWorld) -> None:
    world.submit(1, send=False)
    (held,) = world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.incarnation, deadline=Settings().deadline)
    assert (held.record.deadline, held.ends) == (None, math.inf)
    assert not world.ledger.redis.exists("t:deadlines")
    assert world.ledger.close(held, JobState.DONE, attempt(), result=DONE)


def test_a_batch_may_have_a_deadline_of_its_own(world: LedgerWorld) -> None:
    world.ledger.submit([message(0)], deadline=5)
    (held,) = world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.incarnation, deadline=3600)
    assert held.record.deadline is not None
    assert held.record.deadline - (held.record.started or 0) == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize(("appendonly", "fsync"), [(True, "always"), (True, "everysec"), (False, "everysec")])
def test_a_seal_waits_for_the_disk_where_redis_keeps_a_log(settings: Settings, *, appendonly: bool, fsync: str) -> None:
    with ValkeyProcess(appendonly=appendonly, options={"appendfsync": fsync}) as valkey:
        world = LedgerWorld(settings.model_copy(update={"redis_url": valkey.url}))
        world.submit(1, send=False)
        assert world.ledger.seal("b", 1, durable=5.0) is appendonly
        if not appendonly:
            return
        with valkey.client() as redis:
            assert redis.info("persistence")["aof_pending_bio_fsync"] == 0
        valkey.kill()
        valkey.restart()
        assert world.batch().total == 1
        assert world.record()


def test_a_connection_in_use_is_waited_for_also_by_a_worker_that_stops(settings: Settings) -> None:
    """Given one connection, busy for longer than a second, and a caller whose patience is over."""
    redis = connect(settings, patience=60, connections=1, stop=lambda: True)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(redis.blpop, [f"{settings.key_prefix}nothing"], 1.5)
        wait_for(lambda: connect(settings).info("clients")["blocked_clients"], what="the connection to be in use")
        assert threads.submit(redis.ping).result()
        assert first.result() is None
