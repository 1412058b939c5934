"""P: what a pool makes of the settings that it is given."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from poolbench.doctor.diagnosis import Finding, NotChecked, Result, check
from poolbench.doctor.observed import POOLS, Observed, is_async

BUSY = 0.2  # of a core: a gevent worker above it is late for everything else
LATE, LATE_PINGS = 0.25, 3  # seconds, and how many answers must be later
UNKNOWN = "the broker does not say who is connected, so workers that do not answer cannot be found"
ELSEWHERE = "its process cannot be seen from here: run the doctor on its host, in its container"


def _ignored(seen: Observed, pools: Collection[str], options: dict[str, str], attribute: str = "") -> Iterator[Result]:
    """Settings that a pool accepts and does not apply. Options: of the command line, and the setting of the same."""
    for worker in seen.workers:
        if worker.pool not in pools:
            continue
        ways = [way for option, setting in options.items() if (way := worker.set_to(option, setting))]
        ways += [f"{attribute} = {value} of {task}" for task, value in worker.having(attribute).items()]
        if ways:
            yield Finding(worker.name, f"{', '.join(ways)}; the pool is {worker.pool}")
        elif worker.process is None:
            yield NotChecked(worker.name, f"nothing in its settings; its command line is not known: {ELSEWHERE}")


@check("P01")
def soft_limit(seen: Observed) -> Iterator[Result]:
    options = {"soft_time_limit": "task_soft_time_limit"}
    yield from _ignored(seen, ("threads", "gevent", "solo"), options, "soft_time_limit")


@check("P02")
def hard_limit(seen: Observed) -> Iterator[Result]:
    yield from _ignored(seen, ("threads", "solo"), {"time_limit": "task_time_limit"}, "time_limit")


@check("P03")
def recycling(seen: Observed) -> Iterator[Result]:
    options = {
        "max_tasks_per_child": "worker_max_tasks_per_child",
        "max_memory_per_child": "worker_max_memory_per_child",
    }
    yield from _ignored(seen, ("threads", "gevent", "solo"), options)


@check("P04")
def few_slots(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool not in ("threads", "gevent"):
            continue
        if worker.process is None:
            yield NotChecked(worker.name, f"the cores of its host are not known: {ELSEWHERE}")
        elif worker.slots <= worker.process.host_cores:
            yield Finding(worker.name, f"{worker.pool} with {worker.slots} slots on {worker.process.host_cores} cores")


@check("P05")
def unpatched(seen: Observed) -> Iterator[Result]:
    processes = list(seen.mute or ())  # such a worker hardly ever answers
    if seen.mute is None:
        yield NotChecked("this host", UNKNOWN)
    for worker in seen.workers:
        if worker.pool == "gevent" and worker.process is not None:
            processes.append(worker.process)
        elif worker.pool == "gevent":
            yield NotChecked(worker.name, f"its command line is not known: {ELSEWHERE}")
    for process in processes:
        pool = process.options.get("pool")
        if not process.patches_gevent and (pool or seen.app.conf.worker_pool) == "gevent":
            spelt = f"the option is not spelt -P {pool}" if pool else "no -P in its command line"
            yield Finding(process.name or f"pid {process.pid}", f"the pool is gevent, and {spelt}")


@check("P06")
def more_than_cores(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool != "prefork":
            continue
        if worker.process is None:
            yield NotChecked(worker.name, f"the cores that it may use are not known: {ELSEWHERE}")
        elif worker.slots >= worker.process.host_cores > (cores := worker.process.cores):
            yield Finding(
                worker.name, f"{worker.slots} slots; it may use {cores:g} of {worker.process.host_cores} cores"
            )


@check("P07")
def autoscaled_threads(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool == "threads" and (scale := worker.stats.get("autoscaler")):
            yield Finding(worker.name, f"--autoscale {scale.get('max')},{scale.get('min')} on threads")


@check("P08")
def computing_gevent(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool == "gevent" and worker.cpu_share > BUSY:
            yield Finding(worker.name, f"it used {worker.cpu_share:.0%} of a core while it was looked at")


@check("P09")
def async_tasks(seen: Observed) -> Iterator[Result]:
    pools = sorted({worker.pool for worker in seen.workers} & set(POOLS.values()))
    for name, task in seen.own_tasks.items():
        if pools and is_async(task):
            yield Finding(name, f"async def, on {', '.join(pools)}")


@check("P10")
def blocked_hub(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        late = [seconds for seconds in worker.late if seconds > LATE]
        if len(late) >= LATE_PINGS:
            of = f"{len(late)} of {len(worker.late)} pings"
            yield Finding(worker.name, f"{of} were answered later than {LATE} s, the last after {max(late):.1f} s")
