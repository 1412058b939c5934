"""How many connections to Redis a worker has, idle and under load: a hosted Redis allows a few dozen."""

from __future__ import annotations

import psutil
import pytest

from ledger.jobs import JobState, Pool
from tests.producer_process import finish, start
from tests.waiting import stays, wait_for
from tests.world import Begin, World, pools

pytestmark = pytest.mark.timeout(120)

AS_DEPLOYED = {Pool.PREFORK: 4, Pool.THREADS: 8, Pool.GEVENT: 100}
# As docs/operations.md says it.
CELERY, LEDGER, PER_CHILD, SWEEP, PRODUCER = 4, 4, 3, 2, 2


def bound(world: World, pool: Pool) -> int:
    jobs = PER_CHILD * AS_DEPLOYED[pool] if pool is Pool.PREFORK else world.settings.redis_connections
    return CELERY + LEDGER + jobs


def connections(world: World, service: str) -> int:
    """Of a service's processes; children have copies of their parent's, which are the same."""
    found = set()
    process = psutil.Process(world.service(service).pid)
    for each in (process, *process.children(recursive=True)):
        for one in each.net_connections("tcp"):
            if one.raddr and one.raddr.port == world.valkey.port and one.status == psutil.CONN_ESTABLISHED:
                found.add(one.laddr)
    return len(found)


@pools
def test_load_does_not_bring_more_than_the_bound_and_a_redis_with_so_few_is_enough(begin: Begin, pool: Pool) -> None:
    world = begin(progress_every=0.1).start(pool, slots=AS_DEPLOYED[pool])
    most, worker = bound(world, pool), f"worker-{pool}"
    jobs = 3 * AS_DEPLOYED[pool]
    world.submit(pool, [world.paced(f"f{n}", 1.5) for n in range(jobs)])
    with world.valkey.client() as redis:
        others = redis.info("clients")["connected_clients"] - connections(world, worker) - connections(world, "sweep")
        redis.config_set("maxclients", most + SWEEP + PRODUCER + others)
    world.running(4, with_bytes=True)
    asked = start(world.settings, "submit", "--wait", "--pool", pool.value, world.file("more").url)
    stays(lambda: connections(world, worker) <= most, seconds=2, what=f"at most {most} connections")
    records = world.finished(seconds=60)
    assert [(each.state, len(each.attempts)) for each in records] == [(JobState.DONE, 1)] * jobs
    assert finish(asked).code == 0
    wait_for(lambda: connections(world, worker) <= most, what="no more than that afterwards")
    assert connections(world, "sweep") <= SWEEP
