"""Real workers of all pools and a host with limits: the origin's log is the witness."""

from __future__ import annotations

import re
import signal
import socket
import time
from typing import Any

import pytest

from ledger.host_limits import HostLimits
from ledger.jobs import FailureKind, Job, JobState, Pool, Ref
from tests.producer_process import run
from tests.unit.download_kit import Reciter, ok, reciting
from tests.waiting import wait_for
from tests.world import Begin, World, pools


def requests(world: World, part: str = "") -> list[dict[str, Any]]:
    """The origin's requests in the order in which they came."""
    return sorted((each for each in world.origin.requests() if part in each["path"]), key=lambda each: each["t"])


def most_at_once(found: list[dict[str, Any]]) -> int:
    moments = [(each["t"], 1) for each in found] + [(each["t"] + each["seconds"], -1) for each in found]
    level = most = 0
    for _, step in sorted(moments, key=lambda moment: (moment[0], moment[1])):
        level += step
        most = max(most, level)
    return most


def elsewhere(world: World, job: Job) -> Job:
    """The same job by another name of the same machine: another host to us."""
    return Job(job.url.replace("127.0.0.1", "localhost"), job.filename, job.sha256, job.size)


def test_the_limit_of_a_host_holds_over_all_pools_together_and_its_slots_are_used(begin: Begin) -> None:
    world = begin(per_host=3, sweep_every=5.0).start(*Pool)  # waking by the sweep alone would take 40 s
    for pool in Pool:
        world.submit(pool, [world.paced(f"{pool}-{n}.bin", 0.4) for n in range(8)], batch=str(pool))
    records = [record for pool in Pool for record in world.done(str(pool))]
    assert {len(record.attempts) for record in records} == {1}, "waiting for a host is no attempt"
    found = requests(world, "/paced/")
    assert (len(found), most_at_once(found)) == (24, 3)
    took = max(each["t"] + each["seconds"] for each in found) - found[0]["t"]
    assert took < 20, "a freed slot is taken at once, not at the next sweep"
    world.check_files(records)


@pools
def test_a_host_with_a_limit_does_not_starve_the_others(begin: Begin, pool: Pool) -> None:
    """Given two worker slots, a slow host with one slot and a long line, when another host's jobs come last in the
    queue, then they are done long before the line is."""
    world = begin(per_host=1).start(pool, slots=2)
    world.submit(pool, [world.paced(f"slow-{n}.bin", 1.0) for n in range(6)], batch="slow")
    world.submit(pool, [elsewhere(world, world.file(f"quick-{n}.bin")) for n in range(10)], batch="quick")
    world.finished("quick")
    assert world.batch("slow").count(JobState.DONE) <= 3
    world.done("slow")
    assert most_at_once(requests(world, "slow-")) == 1


@pools
def test_a_killed_worker_takes_no_slot_with_it(begin: Begin, pool: Pool) -> None:
    world = begin(per_host=2)
    doomed = world.worker(pool, name="doomed").wait_until_ready()
    world.submit(pool, [world.paced(f"{n}.bin", 20) for n in range(2)], batch="held")
    world.running(2, batch="held", with_bytes=True)
    doomed.kill()
    world.start(pool)
    world.submit(pool, [world.file(f"{n}.bin") for n in range(4)], batch="next")
    world.running(2, batch="held", with_bytes=True)
    world.ledger.cancel(Ref("held", 0, 1))
    world.done("next")
    assert {record.state for record in world.finished("held")} == {JobState.CANCELLED}
    assert world.ledger.redis.zcard("t:host:127.0.0.1:slots") == 0


def test_a_worker_that_is_stopped_hands_its_slots_back(begin: Begin) -> None:
    world = begin(per_host=1, grace=0.5).start(Pool.THREADS)
    world.submit(Pool.THREADS, [world.paced("a.bin", 4)])
    world.running(1, with_bytes=True)
    world.service("worker-threads").signal(signal.SIGTERM)
    world.worker(Pool.THREADS, name="second").wait_until_ready()
    world.done()
    assert world.ledger.redis.zcard("t:host:127.0.0.1:slots") == 0


def test_a_rate_holds_over_all_pools_together(begin: Begin) -> None:
    world = begin(per_host_rate=5.0).start(*Pool)
    for pool in Pool:
        world.submit(pool, [world.file(f"{pool}-{n}.bin") for n in range(6)], batch=str(pool))
    for pool in Pool:
        world.done(str(pool))
    times = [each["t"] for each in requests(world, "/files/")]
    assert len(times) == 18
    for first in times:  # in any stretch: what a second brings, and one second's worth at once
        for last in times:
            if last > first:
                count = sum(first <= t <= last for t in times)
                assert count <= 5 * (last - first) + 5 + 3, "three may be late on their way"
    assert times[-1] - times[0] < 10


@pools
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_host_that_asks_for_quiet_is_left_alone_by_all(begin: Begin, pool: Pool, form: str) -> None:
    world = begin(per_host=4, retry_cap=30.0).start(pool)
    world.submit(
        pool, [Job(f"{world.origin.url}/faults/retry-after/3?status=429&form={form}&key=k&size=99", "busy")], batch="a"
    )
    world.origin.wait_for_request(lambda each: each["status"] == 429)
    wait_for(lambda: world.ledger.redis.hget("t:host:127.0.0.1", "cool"), what="the wish to be passed on")
    world.submit(pool, [world.file(f"{n}.bin") for n in range(5)], batch="b")
    world.submit(pool, [elsewhere(world, world.file(f"else-{n}.bin")) for n in range(5)], batch="c")
    world.done("c")
    assert not requests(world, "/files/0.bin"), "the others are served, this host is left alone"
    (busy,) = world.finished("a")
    world.finished("b")
    asked, *later = [each["t"] for each in requests(world) if "else-" not in each["path"]]
    assert len(later) == 6
    assert min(later) - asked > (2.9 if form == "seconds" else 2.0)
    assert [attempt.kind for attempt in busy.attempts] == [FailureKind.SERVER, None]


@pools
def test_a_short_retry_after_is_waited_for_in_the_job_and_a_long_one_in_the_ledger(begin: Begin, pool: Pool) -> None:
    world = begin(wait_in_job=2.0, retry_cap=4.0, deadline=90_000.0).start(pool)
    url = f"{world.origin.url}/faults/retry-after"
    world.submit(
        pool,
        [
            Job(f"{url}/1?key=short&size=99", "short"),
            Job(f"{url}/3?key=long&size=99", "long"),
            Job(f"{url}/86400?key=day&size=99", "day"),
        ],
    )
    wait_for(lambda: world.batch().count(JobState.WAITING) == 2, what="the long ones to wait in the ledger")
    wait_for(lambda: world.batch().count(JobState.DONE) == 2, what="the others to end")
    short, long, day = world.records()
    assert (day.state, [attempt.status for attempt in day.attempts]) == (JobState.WAITING, [503])
    due = (world.ledger.redis.zscore("t:due", day.id) or 0.0) / 1000
    assert 86_000 < due - time.time() < 86_500, "it is asked for nothing before the time that it named"
    assert world.batch().count(JobState.RUNNING) == 0, "it takes no slot meanwhile"
    world.ledger.cancel(Ref.parse(day.id))
    for record, least, most in ((short, 1.0, 2.9), (long, 3.0, 8.0)):
        first, second = record.attempts
        assert least <= second.started - first.finished < most, record.id
        assert first.status == 503


def test_from_a_server_that_serves_one_connection_at_a_time_all_files_arrive(begin: Begin) -> None:
    """Whichever process, thread or loop has the one connection: idle, it does not keep the others waiting."""
    world = begin().start(*Pool)

    def until_the_client_ends_it(server: Reciter, connection: socket.socket) -> None:
        connection.settimeout(None)
        server.answer(connection, *[ok(b"x" * 1000)] * 16)

    with reciting(*[until_the_client_ends_it] * 100) as server:
        for pool in Pool:
            alone = [Job(server.url(f"/{n}"), f"{n}", headers=(("X-Y", "z"),)) for n in range(2)]
            world.submit(pool, alone, batch=f"{pool}-alone")
            many = [Job(server.url(f"/{n}"), f"{n}") for n in range(3)]
            world.submit(pool, many, batch=f"{pool}-group", carried=3)
        batches = [f"{pool}-{way}" for pool in Pool for way in ("alone", "group")]
        records = [record for batch in batches for record in world.finished(batch, seconds=150)]
    assert {(record.state, record.bytes) for record in records} == {(JobState.DONE, 1000)}


def test_a_retry_after_beyond_the_deadline_ends_the_job_and_says_so(begin: Begin) -> None:
    world = begin().start(Pool.THREADS)
    url = f"{world.origin.url}/faults/retry-after/7200?key=k&size=99"
    said = run(world.settings, "submit", "--pool", "threads", "--name", "b", "--deadline", "60", url)
    assert said.code == 0
    (record,) = world.finished()
    assert (record.state, record.last and record.last.kind) == (JobState.FAILED, FailureKind.SERVER)
    assert re.search(r"asks for a pause of 7,200 s, the job has \d+ s left", str(record.last and record.last.reason))


@pools
def test_a_download_that_came_further_waits_for_its_host_without_a_slot(begin: Begin, pool: Pool) -> None:
    """Given a host that asks for a pause while a download of it, which was cut before, is cut again."""
    world = begin(per_host=8).start(pool)
    limits, tag = HostLimits(world.ledger.redis, world.settings), 'ETag: "v"'
    begins = ok(b"x" * 100_000, tag, length=300_000)

    def goes_on(server: Reciter, connection: socket.socket) -> None:
        server.hear(connection)
        part = "Content-Range: bytes 100000-299999/300000"
        connection.sendall(ok(b"x" * 100_000, tag, part, length=200_000, status="206 Partial Content"))
        limits.cool("127.0.0.1", 60)

    with reciting(begins, goes_on) as server:
        world.submit(pool, [Job(server.url(), "f", headers=(("X-Kind", "test"),))])
        wait_for(lambda: world.records()[0].state is JobState.WAITING, what="the job to leave its slot")
    cut, further = world.records()[0].attempts
    assert (cut.kind, further.kind) == (FailureKind.TRUNCATED, None), "the second one spends no attempt"


@pools
def test_an_answer_that_asks_to_wait_for_one_file_rests_no_host(begin: Begin, pool: Pool) -> None:
    """Given a 202 with Retry-After: its own job waits, another one of the host runs at once."""
    world = begin(per_host=8).start(pool)
    with reciting(ok(b"", "Retry-After: 60", status="202 Accepted"), ok(b"now")) as server:
        world.submit(pool, [Job(server.url(), "later", headers=(("X-Kind", "test"),))], batch="later")
        wait_for(lambda: world.records("later")[0].state is JobState.WAITING, what="the job to wait")
        world.submit(pool, [Job(server.url(), "now", headers=(("X-Kind", "test"),))], batch="now")
        (record,) = world.finished("now", seconds=30)
    assert (record.state, record.bytes) == (JobState.DONE, 3)
