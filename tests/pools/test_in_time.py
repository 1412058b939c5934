"""With the deployed times, on real workers of all pools: a cancel and a deadline reach a download wherever it waits."""

from __future__ import annotations

import time

import pytest

from download.tempfile import FOLDER
from ledger.jobs import FailureKind, Job, JobState, Pool, Ref
from ledger.settings import Settings
from tests.waiting import wait_for
from tests.world import World, lasting, pools

WAITS = ("drip-body?every=0.1", "drip-headers?every=0.1", "stall?after=1000", "slow-start/90/f", "fast")
ways = pytest.mark.parametrize("carried", [1, len(WAITS)], ids=["alone", "in a chunk"])


def deployed(setting: str) -> float:
    """What it is where nobody sets it."""
    return float(Settings.model_fields[setting].default)


TIMES = {name: deployed(name) for name in ("lease", "renew_every", "sweep_every")}
world = lasting(slots=len(WAITS), read_timeout=120.0, low_speed=0, **TIMES)


def submit(world: World, pool: Pool, batch: str, carried: int, deadline: float | None = None) -> None:
    url = world.origin.url
    paths = [f"paced/90/f?size={2**28}" if wait == "fast" else f"faults/{wait}" for wait in WAITS]
    jobs = [Job(f"{url}/{path}", f"f{number}") for number, path in enumerate(paths)]
    world.submit(pool, jobs, batch=batch, carried=carried, deadline=deadline)
    world.running(len(WAITS), batch=batch)
    # Those whose body has begun have bytes in the record, and then the others are where they wait, too.
    wait_for(lambda: any(record.bytes > 1_000_000 for record in world.records(batch)), what="the fast one to be fast")


def left(world: World, batch: str) -> set[str]:
    """Ids of jobs that have a temp file, or whose file is there."""
    temps = {path.name.rsplit(".", 2)[0] for path in (world.settings.downloads / FOLDER).glob(f"{batch}.*.part")}
    return temps | {str(path) for path in (world.settings.downloads / batch).glob("*")}


@pools
@ways
def test_a_cancel_reaches_every_wait_within_two_seconds(world: World, pool: Pool, carried: int) -> None:
    batch = f"cancel-{pool}-{carried}"
    submit(world, pool, batch, carried)
    seconds, microseconds = world.ledger.redis.time()
    assert world.ledger.cancel(Ref(batch, 0, len(WAITS) - 1)) == (0, len(WAITS))
    records = world.finished(batch, seconds=20)
    assert {record.state for record in records} == {JobState.CANCELLED}
    took = [record.last.finished - seconds - microseconds / 1e6 for record in records if record.last]
    assert len(took) == len(WAITS)
    assert max(took) < 2.0, dict(zip(WAITS, took, strict=True))
    assert not left(world, batch)


@pools
@ways
def test_a_deadline_ends_every_wait(world: World, pool: Pool, carried: int) -> None:
    batch = f"deadline-{pool}-{carried}"
    begun = time.monotonic()
    submit(world, pool, batch, carried, deadline=4.0)
    records = world.finished(batch, seconds=20)
    assert time.monotonic() - begun < 15
    assert [(record.state, record.last and record.last.kind) for record in records] == [
        (JobState.FAILED, FailureKind.DEADLINE)
    ] * len(WAITS)
    took = [record.last.finished - record.attempts[0].started for record in records if record.last]
    assert 3.5 < min(took) <= max(took) < 5.5, dict(zip(WAITS, took, strict=True))
    assert left(world, batch) == {f"{batch}.{WAITS.index('fast')}"}  # the only one that a retry can continue
