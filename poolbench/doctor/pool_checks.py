"""P: what a pool makes of the settings that it is given."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from poolbench.doctor.diagnosis import Finding, NotChecked, Result, Severity, check
from poolbench.doctor.observed import POOLS, Observed, is_async

BUSY = 0.2  # of a core: a gevent worker above it is late for everything else
LATE, LATE_PINGS = 0.25, 3  # seconds, and how many answers must be later
ELSEWHERE = "its process cannot be seen from here: run the doctor on its host, in its container"
_MATRIX = 'make matrix ARGS="-k {}"'


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


@check(
    "P01",
    "The pool ignores the soft time limit",
    Severity.ERROR,
    why="A task that hangs is never told to stop. The limit is accepted without a word.",
    evidence="On threads and gevent a body of 4 s with a soft limit of 1 s ran to its end; on solo too.",
    again=_MATRIX.format("soft-time-limit"),
    mend="Run tasks that need it in prefork, or give every wait inside the task a timeout of its own.",
)
def soft_limit(seen: Observed) -> Iterator[Result]:
    options = {"soft_time_limit": "task_soft_time_limit"}
    yield from _ignored(seen, ("threads", "gevent", "solo"), options, "soft_time_limit")


@check(
    "P02",
    "The pool ignores the hard time limit",
    Severity.ERROR,
    why="A task that hangs keeps its slot for ever.",
    evidence="On threads a body of 4 s with a hard limit of 1 s ran to its end; on solo too.",
    again=_MATRIX.format("hard-time-limit"),
    mend="Run tasks that need it in prefork (or gevent, if they wait and do not compute).",
)
def hard_limit(seen: Observed) -> Iterator[Result]:
    yield from _ignored(seen, ("threads", "solo"), {"time_limit": "task_time_limit"}, "time_limit")


@check(
    "P03",
    "The pool does not recycle",
    Severity.ERROR,
    why="Only processes can be replaced. Memory that leaks stays until the worker is restarted.",
    evidence="With --max-tasks-per-child 1, and with --max-memory-per-child, three jobs ran in one process.",
    again=_MATRIX.format("max-tasks-per-child"),
    mend="Use prefork, or restart threads and gevent workers from outside (a supervisor, a rolling restart).",
)
def recycling(seen: Observed) -> Iterator[Result]:
    options = {
        "max_tasks_per_child": "worker_max_tasks_per_child",
        "max_memory_per_child": "worker_max_memory_per_child",
    }
    yield from _ignored(seen, ("threads", "gevent", "solo"), options)


@check(
    "P04",
    "As few slots as cores, where tasks only wait",
    Severity.NOTE,
    why="Threads and greenlets are for tasks that wait. With one per core they wait one after the other.",
    evidence="40 tasks that wait 0.5 s took more than three times as long on 2 slots as on 20, threads and gevent.",
    again='make pools ARGS="-k slots_as_cores"',
    mend="Measure more, e.g. -c 20 and -c 100. If the tasks compute, use prefork.",
)
def few_slots(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool not in ("threads", "gevent"):
            continue
        if worker.process is None:
            yield NotChecked(worker.name, f"the cores of its host are not known: {ELSEWHERE}")
        elif worker.slots <= worker.process.host_cores:
            yield Finding(worker.name, f"{worker.pool} with {worker.slots} slots on {worker.process.host_cores} cores")


@check(
    "P05",
    "A gevent worker that is not patched",
    Severity.ERROR,
    why="Sockets block the whole worker: it receives tasks, hardly ever runs one, and answers no ping.",
    evidence="Started with -Pgevent a worker received five tasks, began none of them and answered no ping; with "
    "--pool=gevent it ran all at once.",
    again='make test ARGS="-k spelling_decides"',
    mend="Write -P gevent, --pool gevent or --pool=gevent in the celery command. Ignore this if your program itself "
    "calls gevent.monkey.patch_all() before it imports Celery.",
)
def unpatched(seen: Observed) -> Iterator[Result]:
    processes = list(seen.mute)  # such a worker hardly ever answers
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


@check(
    "P06",
    "More processes than cores that they may use",
    Severity.NOTE,
    why="Celery counts the cores of the host, not those of the container: children take turns, and use memory.",
    evidence="A worker without -c on one core of several (by affinity, by cgroup quota) started one child per core "
    "of the host. Known as celery/celery#10320.",
    again='make test ARGS="-k prefork_counts_the_cores"',
    mend="Set -c to the cores of the container, or --concurrency=auto where Celery is 5.7.",
)
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


@check(
    "P07",
    "Autoscaling crashes a threads worker",
    Severity.ERROR,
    why="The worker ends with all its jobs as soon as it should grow.",
    evidence="A threads worker with --autoscale=3,1 ended at its second job.",
    again=_MATRIX.format("autoscale"),
    mend="Give threads a fixed size: -c N instead of --autoscale.",
)
def autoscaled_threads(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool == "threads" and (scale := worker.stats.get("autoscaler")):
            yield Finding(worker.name, f"--autoscale {scale.get('max')},{scale.get('min')} on threads")


@check(
    "P08",
    "A gevent worker that computes",
    Severity.WARNING,
    why="While one greenlet computes, nothing else runs: no other task, no heartbeat, no answer to a ping. "
    "Health checks then restart a worker that is at work.",
    evidence="A gevent worker that computed for 6 s sent no heartbeat and answered no ping. See celery/celery#5157.",
    again=_MATRIX.format("heartbeat"),
    mend="Move tasks that compute to prefork, with a queue of their own.",
)
def computing_gevent(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        if worker.pool == "gevent" and worker.cpu_share > BUSY:
            yield Finding(worker.name, f"it used {worker.cpu_share:.0%} of a core while it was looked at")


@check(
    "P09",
    "async def tasks never run",
    Severity.ERROR,
    why="No stock pool awaits. The task fails with an EncodeError; with ignore_result it is a success that never ran.",
    evidence="Prefork, threads and gevent: the body did not begin; with ignore_result task_success was sent.",
    again=_MATRIX.format("async-def-ignore-result"),
    mend="Write a def, and asyncio.run(...) inside it (not on gevent).",
)
def async_tasks(seen: Observed) -> Iterator[Result]:
    pools = sorted({worker.pool for worker in seen.workers} & set(POOLS.values()))
    for name, task in seen.own_tasks.items():
        if pools and is_async(task):
            yield Finding(name, f"async def, on {', '.join(pools)}")


@check(
    "P10",
    "The gevent hub is blocked",
    Severity.WARNING,
    why="A call that does not yield (C code, computing, a file system) stops every task of the worker meanwhile.",
    evidence="A worker whose task called pbkdf2_hmac in C answered pings as late as the call was long.",
    again='make test ARGS="-k blocked_hub"',
    mend="GEVENT_MONITOR_THREAD_ENABLE=1 GEVENT_MAX_BLOCKING_TIME=0.5 prints the call. Move it to "
    "gevent.get_hub().threadpool.apply(...), or the task to another pool.",
)
def blocked_hub(seen: Observed) -> Iterator[Result]:
    for worker in seen.workers:
        late = [seconds for seconds in worker.late if seconds > LATE]
        if len(late) >= LATE_PINGS:
            of = f"{len(late)} of {len(worker.late)} pings"
            yield Finding(worker.name, f"{of} were answered later than {LATE} s, the last after {max(late):.1f} s")
