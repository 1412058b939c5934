"""How fast one process submits jobs, ledger first; by the processor time of producer and Redis, which take turns."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.origins import deployed
from benchmarks.rounds import markdown, spread, verdict
from ledger.jobs import Job, Pool
from ledger.redis_client import connect
from ledger.settings import Settings
from producer.client import Client

_JOBS, _ROUNDS = 10_000, 5
_LEAST = {1: 10_000, 50: 50_000}  # jobs per second, by jobs per message


def measure_all(_folder: Path) -> list[dict[str, Any]]:
    jobs = [Job(f"https://downloads.example.org/some-project/artifact-{n:06d}.bin", f"{n}") for n in range(_JOBS)]
    with deployed() as valkey:
        settings = Settings(redis_url=valkey.url)
        client, redis, server = Client(settings), connect(settings), psutil.Process(valkey.pid)
        rows: list[dict[str, Any]] = [{"per_message": per, "by_cpu": [], "by_clock": []} for per in _LEAST]
        for _ in range(_ROUNDS):
            for row in rows:
                redis.flushall()
                gc.collect()
                begun, cpu = time.perf_counter(), _cpu(server)
                for _ in client.submit("b", jobs, [Pool.THREADS], row["per_message"]):
                    pass
                row["by_cpu"].append(round(_JOBS / (_cpu(server) - cpu)))
                row["by_clock"].append(round(_JOBS / (time.perf_counter() - begun)))
    return rows


def _cpu(server: psutil.Process) -> float:
    return time.process_time() + float(sum(server.cpu_times()[:2]))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [["jobs per message", "jobs per second of processor time", "jobs/s by the clock", "target"]]
    for row in rows:
        per, by_cpu = row["per_message"], row["by_cpu"]
        target = verdict(f"≥ {_LEAST[per]:,} by processor time", median(by_cpu) >= _LEAST[per])
        lines.append([str(per), spread(by_cpu), spread(row["by_clock"]), target])
    return markdown(lines)
