"""The sweep's promises, on a real Valkey and real queues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from ledger.jobs import Attempt, FailureKind, Job, JobRecord, JobState, Message, Pool, Ref
from ledger.leases import End, Identity, Leases, Renewed
from ledger.ledger import Claim, Ledger
from ledger.messages import Envelope, Publisher
from ledger.redis_client import connect
from ledger.settings import Settings
from ledger.sweep import Sweep, Swept
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for


class World:
    """A ledger, its sweep, and what lies on the queues."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis = connect(settings)
        self.ledger = Ledger(self.redis, settings.key_prefix)
        self.leases = Leases(self.redis, settings.key_prefix, settings.lease)
        self.sweep = Sweep(settings)
        self.sweep.round()  # it has seen this Redis

    def submit(self, count: int, *, send: bool = True, pool: Pool = Pool.THREADS) -> None:
        jobs = [Job(f"http://origin/{n}", f"f{n}") for n in range(count)]
        self.ledger.submit([Message(Ref("b", n, n), pool, (job,)) for n, job in enumerate(jobs)])
        if send:
            Publisher(self.settings).send(Envelope(f"b.{n}", pool, f"f{n}") for n in range(count))

    def queue(self, pool: Pool = Pool.THREADS) -> list[str]:
        """The refs on a queue, oldest first."""
        messages = self.redis.lrange(self.settings.key_prefix + pool.queue, 0, -1)
        return [json.loads(message)["headers"]["id"] for message in reversed(messages)]

    def pop(self, pool: Pool = Pool.THREADS) -> None:
        """What a worker does that dies between taking a message and noting it."""
        assert self.redis.rpop(self.settings.key_prefix + pool.queue)

    def claim(self, incarnation: str, number: int = 0, pool: Pool = Pool.THREADS) -> Claim:
        (taken,) = self.ledger.claim(Ref("b", number, number), pool, incarnation)
        return taken

    def register(self) -> str:
        return self.leases.register(Identity("threads@here", Pool.THREADS, 7))

    def record(self, number: int = 0) -> JobRecord:
        (record,) = self.ledger.read([f"b.{number}"])
        return record

    def expire(self, incarnation: str) -> None:
        """Wait for the lease to expire, as it does when nobody renews."""
        wait_for(lambda: not self.alive(incarnation), what="the lease to expire")

    def alive(self, incarnation: str) -> bool:
        return any(lease.alive for lease in self.leases.known() if lease.incarnation == incarnation)

    def skip(self, seconds: float) -> None:
        """Redis' clock jumps by so much, or nothing was asked of Redis for so long: for the ledger it is the same."""
        self.redis.hincrby(f"{self.settings.key_prefix}clock", "shift", round(1000 * seconds))

    def sweep_until(self, condition: Callable[[], object], what: str) -> None:
        def look() -> bool:
            self.sweep.round()
            return bool(condition())

        wait_for(look, what=what)


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


def attempt(kind: FailureKind | None = None) -> Attempt:
    return Attempt(None, started=1.0, finished=2.0, kind=kind)


def why(record: JobRecord) -> FailureKind | None:
    """What kind of failure its last attempt was."""
    return record.last.kind if record.last else None


def test_with_nothing_amiss_a_round_does_nothing(world: World) -> None:
    world.submit(3)
    world.claim(world.register())
    assert world.sweep.round() == Swept()
    assert world.queue() == ["b.0", "b.1", "b.2"]


def test_a_dead_holders_job_is_queued_again_with_a_message_and_a_lost_attempt(world: World) -> None:
    world.submit(1)
    dead = world.register()
    world.claim(dead)
    world.pop()
    world.expire(dead)
    assert world.sweep.round() == Swept(orphans=1, sent=1)
    assert world.queue() == ["b.0"]
    assert (world.record().state, why(world.record())) == (JobState.QUEUED, FailureKind.LOST)


def test_a_child_that_its_parent_knows_to_be_dead_is_taken_over_at_once_and_nobody_else(world: World) -> None:
    world.submit(4)
    children = [
        world.leases.register(Identity("prefork@here", Pool.PREFORK, pid, family))
        for pid, family in ((7, "mine"), (8, "mine"), (7, "another"), (7, ""))
    ]
    for number, child in enumerate(children):
        world.claim(child, number)
        world.pop()
    assert world.leases.end_children("mine", {7, 9}) == [children[0]]
    assert world.sweep.round() == Swept(orphans=1, sent=1)
    assert world.queue() == ["b.0"]
    assert world.leases.end_children("mine", {7, 9}) == []


def test_the_dead_one_that_returns_can_change_nothing(world: World) -> None:
    world.submit(1)
    dead = world.register()
    void = world.claim(dead)
    world.expire(dead)
    world.sweep.round()
    new = world.claim(world.register())
    assert world.leases.renew(dead) is None
    assert not world.ledger.holds(void)
    assert not world.ledger.progress(void, 5, 10)
    assert not world.ledger.note_attempt(void, attempt())
    assert not world.ledger.close(void, JobState.DONE, attempt())
    assert world.ledger.holds(new)
    assert world.record().state is JobState.RUNNING


def test_the_dead_one_that_returns_before_anybody_claimed_can_change_nothing_either(world: World) -> None:
    world.submit(1)
    dead = world.register()
    void = world.claim(dead)
    world.expire(dead)
    world.sweep.round()
    assert not world.ledger.close(void, JobState.DONE, attempt())
    assert world.record().state is JobState.QUEUED


def test_a_holder_that_renews_is_left_alone(world: World) -> None:
    world.submit(1)
    alive, other = world.register(), world.register()
    held = world.claim(alive)
    world.leases.renew(alive)
    world.expire(other)
    world.leases.renew(alive)
    world.sweep.round()
    assert world.ledger.holds(held)


def test_a_cancelled_job_of_a_dead_holder_ends_cancelled(world: World) -> None:
    world.submit(1)
    dead = world.register()
    world.claim(dead)
    world.ledger.cancel(Ref("b", 0, 0))
    world.expire(dead)
    world.sweep.round()
    assert world.record().state is JobState.CANCELLED


def test_a_job_whose_holder_dies_again_and_again_ends_as_poison(world: World) -> None:
    world.submit(1)
    for _ in range(world.settings.max_losses):
        dead = world.register()
        world.claim(dead)
        world.leases.end(dead, End.DIED)
        world.sweep.round()
    assert world.record().state is JobState.FAILED
    assert why(world.record()) is FailureKind.POISON
    assert world.sweep.round() == Swept()


def test_two_sweeps_at_once_put_a_job_back_once(world: World) -> None:
    world.submit(50)
    dead = world.register()
    for number in range(50):
        world.claim(dead, number)
        world.pop()
    world.leases.end(dead)
    rounds = [sweep.round() for sweep in (Sweep(world.settings), world.sweep)]
    assert sum(done.orphans for done in rounds) == 50
    assert sorted(world.queue()) == sorted(f"b.{n}" for n in range(50))


def test_a_retry_waits_until_it_is_due_and_is_then_sent(world: World) -> None:
    world.submit(1)
    held = world.claim(world.register())
    world.pop()
    world.ledger.close(held, JobState.WAITING, attempt(FailureKind.SERVER), due_in=0.3)
    assert world.sweep.round() == Swept()
    assert world.queue() == []
    world.sweep_until(world.queue, "the message of the due job")
    assert world.record().state is JobState.QUEUED


def test_a_job_that_was_handed_back_is_sent_at_once(world: World) -> None:
    world.submit(1)
    held = world.claim(world.register())
    world.pop()
    world.ledger.close(held, JobState.QUEUED, attempt())
    assert world.sweep.round() == Swept(sent=1)
    assert world.queue() == ["b.0"]


def test_a_message_that_was_never_sent_is_sent(world: World) -> None:
    world.submit(3, send=False)
    world.sweep_until(lambda: len(world.queue()) == 3, "all three messages")
    assert world.queue() == ["b.0", "b.1", "b.2"]


def test_a_message_that_vanished_is_found_behind_a_backlog_and_nothing_else_is_sent(world: World) -> None:
    world.submit(100)
    world.pop()
    world.sweep_until(lambda: len(world.queue()) == 100, "the vanished message")
    assert world.queue() == [f"b.{n}" for n in range(100)], "it waits in front, not behind the backlog"
    assert world.sweep.round() == Swept()


def test_a_message_in_a_workers_hand_is_not_sent_again_while_the_worker_says_so(world: World) -> None:
    world.submit(1)
    world.pop()
    since = world.redis.time()[0]
    touches = 0
    while world.redis.time()[0] < since + 2 * world.settings.message_grace:
        world.leases.touch(Pool.THREADS, ["b.0"])
        touches += 1
        assert world.sweep.round() == Swept()
    assert touches > 1
    world.sweep_until(world.queue, "the message, once nobody has it in hand any more")


def test_messages_that_wait_long_are_not_sent_again_while_others_are_in_a_workers_hand(world: World) -> None:
    world.submit(100)
    for _ in range(10):
        world.pop()
    since = world.redis.time()[0]
    while world.redis.time()[0] < since + 2 * world.settings.message_grace:
        world.leases.touch(Pool.THREADS, [f"b.{n}" for n in range(10)])
        assert world.sweep.round() == Swept()
    assert world.queue() == [f"b.{n}" for n in range(10, 100)]


def test_a_message_whose_record_is_gone_is_forgotten(world: World) -> None:
    world.submit(2, send=False)
    world.redis.delete(f"{world.settings.key_prefix}job:b.0")
    world.sweep_until(world.queue, "the other message")
    assert world.queue() == ["b.1"]
    assert world.redis.zcard(f"{world.settings.key_prefix}hand:threads") == 0


def test_every_pool_has_its_own_queue(world: World) -> None:
    world.submit(1, send=False, pool=Pool.GEVENT)
    world.sweep_until(lambda: world.queue(Pool.GEVENT), "the message")
    assert world.queue(Pool.GEVENT) == ["b.0"]
    assert world.queue(Pool.THREADS) == world.queue(Pool.PREFORK) == []


def test_time_in_which_nothing_was_asked_of_redis_is_left_out_of_every_lease(world: World) -> None:
    world.submit(1)
    holder = world.register()
    held = world.claim(holder)
    # Given that Redis was away, or its machine asleep, for much longer than a lease
    world.skip(60)
    # I expect that the process is not judged, and can renew
    assert world.sweep.round().orphans == 0
    assert world.leases.renew(holder) == Renewed(1, frozenset())
    assert world.sweep.round().orphans == 0
    assert world.ledger.holds(held)
    # If it does not renew again, it is judged as ever
    world.expire(holder)
    assert world.sweep.round().orphans == 1


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_of_redis_that_is_set_moves_no_lease_no_deadline_and_no_due_time(world: World, seconds: int) -> None:
    world.submit(3)
    holder = world.register()
    (running,) = world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, holder, deadline=60)
    (waiting,) = world.ledger.claim(Ref("b", 1, 1), Pool.THREADS, holder)
    world.pop()
    world.pop()
    world.ledger.close(waiting, JobState.WAITING, attempt(FailureKind.SERVER), due_in=0.5)
    # When its clock jumps
    world.skip(seconds)
    # I expect that nothing is over yet
    assert world.sweep.round() == Swept()
    assert world.ledger.holds(running)
    assert world.record(1).state is JobState.WAITING
    # and that what is due comes when it is due
    world.sweep_until(lambda: "b.1" in world.queue(), "the message of the due job")
    # and that time goes on as ever for deadlines and leases
    world.leases.renew(holder)
    (again,) = world.ledger.claim(Ref("b", 1, 1), Pool.THREADS, holder)
    assert 86_000 < again.ends - time.monotonic() <= 86_400
    world.expire(holder)
    assert world.sweep.round().orphans == 2


def test_a_restart_of_redis_is_noticed_and_nothing_is_lost(settings: Settings) -> None:
    with ValkeyProcess(appendonly=True) as valkey:
        world = World(settings.model_copy(update={"redis_url": valkey.url}))
        world.submit(2)
        held = world.claim(holder := world.register())
        world.pop()
        valkey.kill()
        valkey.restart()
        world.redis = connect(world.settings)
        world.skip(60)  # it was away for as long
        assert world.sweep.round().orphans == 0
        world.leases.renew(holder)
        assert world.sweep.round().orphans == 0
        assert world.ledger.holds(held)
        assert world.queue() == ["b.1"]


def test_a_restart_of_redis_delays_a_takeover_by_no_more_than_redis_was_away(settings: Settings) -> None:
    with ValkeyProcess(appendonly=True) as valkey:
        world = World(settings.model_copy(update={"redis_url": valkey.url, "lease": 60.0}))
        world.submit(1)
        dead = world.register()
        world.claim(dead)
        # Given a holder whose lease has a tenth of a second left when Redis goes, and a minute to begin with
        world.redis.hincrby(f"{settings.key_prefix}leases", dead, 100 - 60_000)
        world.sweep.round()
        valkey.kill()
        valkey.restart()
        world.sweep_until(lambda: world.record().state is JobState.QUEUED, "the takeover, long before a lease is over")


def test_a_sweep_that_is_replaced_delays_nobody(world: World) -> None:
    world.submit(1)
    dead = world.register()
    world.claim(dead)
    world.pop()
    world.expire(dead)
    assert Sweep(world.settings).round() == Swept(orphans=1, sent=1)


def test_a_job_whose_time_is_used_up_while_it_is_queued_or_waits_ends_as_failed(world: World) -> None:
    world.submit(2)
    holder = world.register()
    for number, state in enumerate((JobState.QUEUED, JobState.WAITING)):
        (held,) = world.ledger.claim(Ref("b", number, number), Pool.THREADS, holder, deadline=0.2)
        world.pop()
        world.ledger.close(held, state, attempt(), due_in=60)
    ended = 0

    def both() -> bool:
        nonlocal ended
        ended += world.sweep.round().overdue
        return ended == 2

    wait_for(both, what="both to end")
    for number in range(2):
        record = world.record(number)
        assert (record.state, why(record), record.deadline) == (JobState.FAILED, FailureKind.DEADLINE, None)
    batch = world.ledger.batch("b")
    assert batch is not None
    assert (batch.count(JobState.FAILED), batch.known) == (2, 2)
    assert not world.redis.exists("t:due", "t:deadlines", "t:hand:threads", "t:sent:threads")


def test_a_job_whose_time_is_used_up_is_not_claimed(world: World) -> None:
    world.submit(1)
    (held,) = world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.register(), deadline=0.001)
    world.ledger.close(held, JobState.QUEUED, attempt())
    since = world.redis.time()
    wait_for(lambda: world.redis.time() > (since[0], since[1] + 2000), what="two milliseconds")
    assert world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, world.register()) == []


def test_a_dead_holders_job_whose_time_is_used_up_ends_as_failed_and_is_not_run_again(world: World) -> None:
    world.submit(1)
    dead = world.register()
    world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, dead, deadline=0.1)
    world.pop()
    world.expire(dead)
    world.sweep.round()
    record = world.record()
    assert (record.state, why(record)) == (JobState.FAILED, FailureKind.DEADLINE)
    assert world.sweep.round() == Swept()
    assert world.queue() == []


def test_a_running_job_whose_time_is_used_up_is_left_to_its_holder(world: World) -> None:
    world.submit(1)
    holder = world.register()
    (held,) = world.ledger.claim(Ref("b", 0, 0), Pool.THREADS, holder, deadline=0.001)
    world.pop()
    since = world.redis.time()
    wait_for(lambda: world.redis.time() > (since[0], since[1] + 2000), what="two milliseconds")
    assert world.sweep.round() == Swept()
    assert world.ledger.holds(held)
    assert world.ledger.close(held, JobState.FAILED, attempt(FailureKind.DEADLINE))
    assert not world.redis.exists("t:deadlines")
