"""A job's step on real workers of all three pools."""

from __future__ import annotations

from dataclasses import replace

from ledger.jobs import FailureKind, Job, JobState, Pool
from tests.world import World, lasting, pools

world = lasting(slots=2)


@pools
def test_a_step_is_noted_in_the_record_and_the_file_published(world: World, pool: Pool) -> None:
    page = Job(f"{world.origin.url}/pages/1.html?links=200", "page.html", step="links")

    world.submit(pool, [page], batch=f"links-{pool}")

    (record,) = world.done(f"links-{pool}")
    assert any(note.startswith("links: 200, ") for note in record.notes)
    assert (world.settings.downloads / record.path).stat().st_size == record.bytes


@pools
def test_an_unknown_step_fails_at_once_and_leaves_no_file(world: World, pool: Pool) -> None:
    world.submit(pool, [replace(world.file("a.bin"), step="nonsense")], batch=f"unknown-{pool}")

    (record,) = world.finished(f"unknown-{pool}")
    assert record.state is JobState.FAILED
    (attempt,) = record.attempts
    assert attempt.kind is FailureKind.STEP
    assert "expected a step out of links, got 'nonsense'" in str(attempt.reason)
    assert not [path for path in world.files() if f"unknown-{pool}" in str(path)]
