"""Small jobs, one per message, run together by themselves; what is not small has its slot to itself as ever."""

from __future__ import annotations

import re

from ledger.dead_letters import DeadLetters
from ledger.jobs import Job, JobRecord, JobState, Pool, Ref
from ledger.switches import Switches
from tests.waiting import wait_for
from tests.world import Begin, World, lasting, pools

SLOTS = 4


running = lasting(slots=SLOTS, lease=5.0, read_timeout=10.0)


def together(world: World, pool: Pool, batch: str) -> list[int]:
    """How many jobs each group of a batch had in the end."""
    text = world.service(f"worker-{pool}").text()
    return [int(each) for each in re.findall(rf"group of job={batch}\.\d+: \d+ of (\d+) done", text)]


def messages(world: World, pool: Pool, batch: str) -> int:
    """How many of a batch's messages became tasks."""
    return len(re.findall(rf"\[{batch}\.[^\]]*\] received", world.service(f"worker-{pool}").text()))


def check(world: World, records: list[JobRecord]) -> None:
    """Each is done, was tried once, and says who did it."""
    assert [record for record in records if (record.state, len(record.attempts)) != (JobState.DONE, 1)] == []
    assert all(record.last and record.last.executor for record in records)
    for record in records:
        assert (world.settings.downloads / record.path).stat().st_size == record.bytes


@pools
def test_a_thousand_small_files_need_few_tasks(running: World, batch: str, pool: Pool) -> None:
    running.warm(pool, f"w-{batch}")
    running.submit(pool, running.small(1000), batch=batch)
    check(running, running.finished(batch, seconds=120))
    groups = together(running, pool, batch)
    assert sum(groups) > 500, groups
    assert max(groups) <= 64
    assert messages(running, pool, batch) < 500


@pools
def test_slow_jobs_after_many_short_ones_have_all_slots(running: World, batch: str, pool: Pool) -> None:
    running.warm(pool, f"w-{batch}")
    running.submit(pool, [running.paced(f"{n}", 3, 50_000) for n in range(20)], batch=batch)
    records = running.finished(batch)
    check(running, records)
    who = {record.last.executor for record in records if record.last}
    assert len(who) >= SLOTS, who


@pools
def test_a_large_file_delays_no_small_ones(begin: Begin, pool: Pool) -> None:
    """Nobody says beforehand that it is large; it comes slowly, and small files wait behind it."""
    world = begin().start(pool, slots=2)
    world.warm(pool)
    large = Job(f"{world.origin.url}/paced/15/large?size=3000000", "large")
    world.submit(pool, [*world.small(20, "a"), large])
    world.submit(pool, world.small(300, "b"))
    records = world.finished(seconds=60)
    check(world, records)
    ends = {record.job.filename: record.last.finished for record in records if record.last}
    assert ends.pop("large") > max(ends.values())


@pools
def test_a_large_file_that_comes_fast_spoils_no_attempt_of_the_small_ones(
    running: World, batch: str, pool: Pool
) -> None:
    running.warm(pool, f"w-{batch}")
    running.submit(pool, [running.file(f"{n}", 2_000_000 if n % 30 == 20 else 1024) for n in range(200)], batch=batch)
    check(running, running.finished(batch))


@pools
def test_files_that_are_there_already_are_looked_at_by_all_slots(running: World, batch: str, pool: Pool) -> None:
    jobs = [running.paced(f"{n}", 0.4, 1000) for n in range(60)]
    running.submit(pool, jobs, batch=batch)
    running.finished(batch)
    assert list(running.ledger.prune(batch))[-1] == 0
    running.warm(pool, f"w-{batch}")
    running.submit(pool, jobs, batch=batch)
    records = running.finished(batch)
    check(running, records)
    who = {record.last.executor for record in records if record.last}
    assert len(who) >= SLOTS, who


@pools
def test_messages_of_many_jobs_stay_as_they_are(running: World, batch: str, pool: Pool) -> None:
    running.warm(pool, f"w-{batch}")
    running.submit(pool, running.small(300), batch=batch, carried=50)
    check(running, running.finished(batch))
    assert together(running, pool, batch) == [50] * 6
    assert messages(running, pool, batch) == 6


@pools
def test_what_is_no_message_stops_no_group_and_is_kept(running: World, batch: str, pool: Pool) -> None:
    letters = DeadLetters(running.ledger.redis, "t:")
    before = letters.counts()[pool]
    running.warm(pool, f"w-{batch}")
    control = Switches(running.ledger)
    control.pause(pool)
    for part in range(5):
        running.submit(pool, running.small(30, f"{part}-"), batch=batch)
        running.ledger.redis.lpush(f"t:{pool.queue}", f'{{"id":"{part}"}}', "garbage")
    control.resume(pool)
    check(running, running.finished(batch))
    wait_for(lambda: letters.counts()[pool] == before + 10, what="the dead letters")


@pools
def test_a_cancel_reaches_the_jobs_of_a_group(running: World, batch: str, pool: Pool) -> None:
    running.warm(pool, f"w-{batch}")
    running.submit(pool, [running.paced(f"{n}", 60) for n in range(40)], batch=batch)
    running.running(SLOTS, batch=batch)
    running.ledger.cancel(Ref(batch, 0, 39))
    assert {record.state for record in running.finished(batch, seconds=30)} == {JobState.CANCELLED}
    folder = running.settings.downloads / batch
    assert not folder.exists() or not list(folder.iterdir())


@pools
def test_a_message_that_is_revoked_on_the_queue_is_cancelled_and_not_taken(
    running: World, batch: str, pool: Pool
) -> None:
    running.warm(pool, f"w-{batch}")
    switches = Switches(running.ledger)
    switches.pause(pool)
    running.submit(pool, running.small(100), batch=batch)
    with running.celery() as app:
        app.control.revoke([f"{batch}.50", f"{batch}.90"])
    wait_for(lambda: running.batch(batch).count(JobState.CANCELLED) == 2, what="the cancels")
    switches.resume(pool)
    states = [record.state for record in running.finished(batch)]
    assert [number for number, state in enumerate(states) if state is JobState.CANCELLED] == [50, 90]
