"""What an operator sets reaches the servers, the disk and the record, in all pools, alone and in a chunk."""

from __future__ import annotations

import json

import pytest

from ledger.jobs import JobState, Pool
from origin.content import Entity
from tests.producer_process import run
from tests.world import World, lasting, pools

WHO = "Downpour/0.1 (+https://example.org/bot; mail@example.org)"


world = lasting(user_agent=WHO, fsync=True)


@pools
@pytest.mark.parametrize("carried", [1, 4], ids=["alone", "in a chunk"])
def test_servers_see_who_asks_and_the_record_what_they_said_of_the_file(world: World, pool: Pool, carried: int) -> None:
    batch = f"{pool}-{carried}"
    jobs = [world.file(f"{batch}-{number}.bin", 70_000 + number) for number in range(4)]
    world.submit(pool, jobs, batch=batch, carried=carried)
    world.done(batch)
    asked = [each for each in world.origin.requests() if f"/{batch}-" in each["path"]]
    assert [each["user_agent"] for each in asked] == [WHO] * 4
    rows = [json.loads(line) for line in run(world.settings, "results", batch, "--format", "jsonl").out.splitlines()]
    for job, row in zip(jobs, rows, strict=True):
        entity = Entity(job.filename, job.size or 0)
        assert (row["etag"], row["last_modified"], row["length"]) == (entity.etag, entity.last_modified, job.size)
        (attempt,) = row["attempt_list"]
        assert (attempt["status"], attempt["bytes"], attempt["reason"]) == (200, job.size, None)
        assert attempt["seconds"] > 0
    again = run(world.settings, "retry", batch, "--all", "--json")
    assert again.json["queued"] == 4
    records = world.finished(batch)
    assert [record.notes for record in records] == [("present",)] * 4
    assert [(record.etag, record.last_modified) for record in records] == [(None, None)] * 4  # no server was asked


@pools
def test_a_name_that_is_too_long_for_the_folder_is_said_and_leaves_nothing(world: World, pool: Pool) -> None:
    deep = "/".join(["x" * 250] * 20)  # a record that no producer of ours wrote
    job = world.file("f.bin")
    batch = f"long-{pool}"
    world.submit(pool, [type(job)(job.url, f"{deep}/f.bin"), job], batch=batch)
    long, good = world.finished(batch)
    assert (long.state, good.state) == (JobState.FAILED, JobState.DONE)
    assert long.last is not None
    assert str(long.last.kind) in ("disk", "name")
    assert "File name too long" in (long.last.reason or "")
    assert not [path for path in world.files() if path.name.startswith(f"{batch}.")]
