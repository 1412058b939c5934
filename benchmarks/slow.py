"""A thousand slow downloads in flight: what they take beyond what the server makes them take, and memory of each."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.origins import Origin, deployed
from benchmarks.rounds import markdown, verdict
from ledger.jobs import Job, Pool
from tests.waiting import wait_for
from tests.world import World

_SECONDS = 20.0  # of each download
_TARGETS = {"gevent": (1.1, 60), "threads": (1.2, 80)}  # wall, KiB; at most


def measure(folder: Path, origin: Origin, pool: Pool, count: int) -> dict[str, Any]:
    """One message per job, one worker, all in flight at once."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16384), most))
    jobs = [Job(url, str(number)) for number, url in enumerate(origin.slow(count, _SECONDS))]
    with deployed() as valkey, World(folder, valkey=valkey, lease=10.0, message_grace=30.0, read_timeout=60.0) as world:
        world.start(pool, slots=count)
        worker = psutil.Process(world.service(f"worker-{pool}").pid)
        idle = worker.memory_info().rss
        begun = time.perf_counter()
        world.submit(pool, jobs)
        most_running, memory = 0, idle

        def over() -> bool:
            nonlocal most_running, memory
            running = world.ledger.redis.scard(world.ledger.keys.running("b"))
            if running > most_running:
                most_running, memory = running, worker.memory_info().rss
            return world.batch().finished

        wait_for(over, seconds=300, every=0.2, what="all to be done")
        wall = time.perf_counter() - begun
        world.check_files(world.records())
    return {
        "pool": pool.value,
        "downloads": count,
        "ideal_seconds": _SECONDS,
        "most_in_flight": most_running,
        "wall": round(wall, 2),
        "wall_over_ideal": round(wall / _SECONDS, 3),
        "kib_each": round((memory - idle) / 1024 / most_running, 1),
    }


def measure_all(folder: Path, origin: Origin) -> list[dict[str, Any]]:
    return [measure(folder / pool, origin, pool, 1000) for pool in (Pool.GEVENT, Pool.THREADS)]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [["pool", "downloads", "most in flight", "wall ÷ ideal", "KiB per download in flight", "target"]]
    for row in rows:
        kept = [str(row[name]) for name in ("pool", "downloads", "most_in_flight", "wall_over_ideal", "kib_each")]
        most_wall, most_kib = _TARGETS[row["pool"]]
        wall = verdict(f"≤ {most_wall} × ideal", row["wall_over_ideal"] <= most_wall)
        lines.append([*kept, f"{wall}; {verdict(f'≤ {most_kib} KiB', row['kib_each'] <= most_kib)}"])
    return markdown(lines)
