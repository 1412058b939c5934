"""The sweep's promises, on a real Valkey and real queues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from ledger.jobs import FailureKind, JobRecord, JobState, Pool, Ref
from ledger.leases import End, Identity, Renewed
from ledger.redis_client import connect
from ledger.settings import Settings
from ledger.sweep import Sweep, Swept
from ledger.switches import Switches
from poolbench.workers import events
from tests.ledgers import LedgerWorld, attempt
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for


class World(LedgerWorld):
    """A ledger, its sweep, and what lies on the queues."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.sweep = Sweep(settings)
        self.sweep.round()  # it has seen this Redis

    def queue(self, pool: Pool = Pool.THREADS) -> list[str]:
        """The refs on a queue, oldest first."""
        messages = self.redis.lrange(self.ledger.keys.queue(pool), 0, -1)
        return [json.loads(message)["headers"]["id"] for message in reversed(messages)]

    def pop(self, pool: Pool = Pool.THREADS) -> None:
        """What a worker does that dies between taking a message and noting it."""
        assert self.redis.rpop(self.ledger.keys.queue(pool))

    def expire(self, incarnation: str) -> None:
        """Wait for the lease to expire, as it does when it is not renewed."""
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


def why(record: JobRecord) -> FailureKind | None:
    """What kind of failure its last attempt was."""
    return record.last.kind if record.last else None


def two_milliseconds_pass(world: World) -> None:
    since = world.redis.time()
    wait_for(lambda: world.redis.time() > (since[0], since[1] + 2000), what="two milliseconds")


def test_with_nothing_amiss_a_round_does_nothing(world: World) -> None:
    world.submit(3)
    world.claim(world.register())
    assert world.sweep.round() == Swept()
    assert world.queue() == ["b.0", "b.1", "b.2"]


@pytest.mark.parametrize("replaced", [False, True], ids=["the same sweep", "a sweep that is new"])
def test_a_dead_holders_job_is_queued_again_with_a_message_and_a_lost_attempt(world: World, *, replaced: bool) -> None:
    world.submit(1)
    dead = world.register()
    world.claim(dead)
    world.pop()
    world.expire(dead)
    sweep = Sweep(world.settings) if replaced else world.sweep
    assert sweep.round() == Swept(orphans=1, trials=1, sent=1)
    assert world.queue() == ["b.0"]
    assert (world.record().state, why(world.record())) == (JobState.QUEUED, FailureKind.LOST)


def test_a_child_that_its_parent_knows_to_be_dead_is_taken_over_at_once_and_nobody_else(world: World) -> None:
    world.submit(4)
    children = [
        world.register(Pool.PREFORK, pid, family) for pid, family in ((7, "mine"), (8, "mine"), (7, "another"), (7, ""))
    ]
    for number, child in enumerate(children):
        world.claim(child, number)
        world.pop()
    assert world.leases.end_children("mine", {7, 9}) == [children[0]]
    assert world.sweep.round() == Swept(orphans=1, trials=1, sent=1)
    assert world.queue() == ["b.0"]
    assert world.leases.end_children("mine", {7, 9}) == []


@pytest.mark.parametrize("claimed", [True, False], ids=["claimed again", "queued again"])
def test_the_dead_one_that_returns_can_change_nothing(world: World, *, claimed: bool) -> None:
    world.submit(1)
    dead = world.register()
    void = world.claim(dead)
    world.expire(dead)
    world.sweep.round()
    new = world.claim(world.register()) if claimed else None
    assert world.leases.renew(dead) is None
    assert world.ledger.standing([void]) == [False]
    assert not world.ledger.progress(void, 5, 10)
    assert not world.ledger.note_attempt(void, attempt())
    assert not world.ledger.close(void, JobState.DONE, attempt())
    assert new is None or world.ledger.standing([new]) == [True]
    assert world.states() == ("r" if claimed else "q")


def test_a_holder_that_renews_is_left_alone(world: World) -> None:
    world.submit(1)
    alive, other = world.register(), world.register()
    held = world.claim(alive)
    world.leases.renew(alive)
    world.expire(other)
    world.leases.renew(alive)
    world.sweep.round()
    assert world.ledger.standing([held]) == [True]


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


@pytest.mark.parametrize(("count", "taken"), [(1, 1), (100, 10)])
def test_messages_in_a_workers_hand_are_not_sent_again_nor_those_that_wait_behind_them(
    world: World, count: int, taken: int
) -> None:
    world.submit(count)
    for _ in range(taken):
        world.pop()
    since, touches = world.redis.time()[0], 0
    while world.redis.time()[0] < since + 2 * world.settings.message_grace:
        world.leases.touch(Pool.THREADS, [f"b.{n}" for n in range(taken)])
        touches += 1
        assert world.sweep.round() == Swept()
    assert touches > 1
    assert world.queue() == [f"b.{n}" for n in range(taken, count)]
    world.sweep_until(lambda: len(world.queue()) == count, "the messages, once no worker has them in hand any more")


def test_a_message_whose_record_is_gone_is_forgotten(world: World) -> None:
    world.submit(2, send=False)
    world.redis.delete(world.ledger.keys.job("b.0"))
    world.sweep_until(world.queue, "the other message")
    assert world.queue() == ["b.1"]
    assert world.redis.zcard(world.ledger.keys.hand(Pool.THREADS)) == 0


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
    assert world.ledger.standing([held]) == [True]
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
    assert world.ledger.standing([running]) == [True]
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
        assert world.ledger.standing([held]) == [True]
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
    two_milliseconds_pass(world)
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
    two_milliseconds_pass(world)
    assert world.sweep.round() == Swept()
    assert world.ledger.standing([held]) == [True]
    assert world.ledger.close(held, JobState.FAILED, attempt(FailureKind.DEADLINE))
    assert not world.redis.exists("t:deadlines")


def test_each_round_tells_flower_how_many_jobs_there_are_and_which_processes_live(world: World) -> None:
    world.submit(3)
    world.redis.hset(world.ledger.keys.batch("b"), "sealed", 4)  # one of them was lost, whatever could do that
    world.claim(world.register())
    world.expire(world.leases.register(Identity("gevent@here", Pool.GEVENT, 8, "gone")))
    world.leases.register(Identity("prefork@here", Pool.PREFORK, 9, "family"))
    none = dict.fromkeys(JobState, 0)
    with world.redis.pubsub() as heard:  # type: ignore[no-untyped-call]
        heard.subscribe(world.ledger.keys.events("task.multi", 0))
        world.sweep.round()
        messages = iter(lambda: heard.get_message(timeout=1.0), None)
        told = [event for message in messages if message["type"] == "message" for event in events(message["data"])]
    assert told[-1] == {
        "type": "ledger-totals",
        "hostname": "sweep",
        "jobs": {"prefork": none, "threads": none | {"queued": 3}, "gevent": none},
        "submitted": 4,
        "batches": 1,
        "counted": 1,
        "processes": [["prefork@here", "prefork", "family", 9, 0]],
    }


IDENTITY = '{"worker": "w@there", "pool": "threads", "pid": 3, "family": "f"}'
NEWER = '{"worker": "w@there", "pool": "asyncio", "pid": 3, "family": "f"}'


@pytest.mark.parametrize(
    ("identity", "lease", "stays"),
    [
        ("{garbage", "1", False),
        ("[1]", "1", False),
        ('{"worker": "w@there"}', "1", False),
        (IDENTITY, "garbage", False),
        (NEWER, "1", False),
        (NEWER, "9e15", True),
        ("{garbage", "9e15", True),
    ],
)
def test_a_process_that_cannot_be_read_stops_no_recovery(
    world: World, identity: str, lease: str, *, stays: bool
) -> None:
    """It is taken over when its lease has passed; until then it may be one of a newer version."""
    world.submit(3)
    lead, lost = world.register(), world.register(pid=8)
    leader = world.claim(lead)
    world.claim(lost, 1)
    world.leases.end(lost)
    world.redis.hset("t:incarnations", "strange", identity)
    world.redis.hset("t:leases", "strange", lease)
    world.redis.set("t:held:strange", "no set")
    world.redis.hset("t:unwell", "w@there", "{garbage")
    workers = Switches(world.ledger).workers()
    assert "threads@here" in [worker.name for worker in workers]
    swept = world.sweep.round()
    assert swept.orphans == 1
    assert world.record(1).state is JobState.QUEUED
    assert world.redis.hexists("t:incarnations", "strange") is stays
    assert world.sweep.round() == Swept()
    assert world.redis.scard("t:dead") == 0
    while world.queue() != ["b.2"]:
        world.pop()
    assert len(world.ledger.take(leader, Pool.THREADS, 9)) == 1
    Switches(world.ledger).forget_faults_of_the_gone(["w@there"])
    assert Switches(world.ledger).faults().keys() <= {"w@there"}
