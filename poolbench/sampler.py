"""What the processes of a worker use during a measurement: a thread that samples them, by psutil.

CPU is the difference of two sums: of what every living process of the tree has used, and of what its dead children had
used, which their parent knows; so children that come and go are counted, however short they live. Memory is the
proportional set size: what a process has alone, and its share of what it shares with others. Peaks are of the samples.
Context switches are of the threads that live at both ends.

Sampling costs too, most of all the walk through a large process' memory. The next sample is put off until the last one
has cost less than a hundredth of what the deployment used meanwhile, two seconds at the most; its cost is reported.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from poolbench.experiment import Cores, SchedulingLatency, Usage

EVERY = 0.25  # seconds
_LONGEST = 2.0
_SHARE = 0.01  # of the deployment's CPU, that sampling may cost
_TREE_EVERY = 2.0  # seconds, at the least: finding new children is a walk through all processes of the machine


class Sampler:
    """Args:
    roots: main processes of the workers.
    notes: the folder of their probes of scheduling latency.
    """

    def __init__(self, roots: Iterable[int], notes: Path | None = None, every: float = EVERY) -> None:
        self._roots = tuple(roots)
        self._notes = notes
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.pids: set[int] = set()  # every one that was seen
        self.cost = 0.0  # seconds of CPU that the samples between the two ends took
        self._looks = self._processes = self._threads = 0
        self._pss: list[int] = []
        self._fewer = False  # processes than there were: others have, or will have, the place of those that ended

    def start(self) -> None:
        """Just before the submission: what is there now is idle."""
        self._find()
        self._switches = self._count_switches()
        self._look()
        self._began_cpu, self._began = cpu(self._alive), time.monotonic()
        self._thread.start()

    def stop(self) -> Usage | None:
        """Just after the last end. None: nothing could be seen of these processes."""
        ended = time.monotonic()
        self._stop.set()
        self._find()  # children that are new since the last sample
        used = cpu(self._alive) - self._began_cpu
        self._thread.join()
        self._look()
        voluntary, involuntary = self._count_switches()
        if self._notes:
            settle(self._notes, self.pids, ended)
        if not self._alive or not any(self._pss):
            return None
        return Usage(
            cpu=round(max(0.0, used), 3),
            pss_idle=self._pss[0],
            pss_peak=max(self._pss),
            pss_end=self._pss[-1],
            processes=self._processes,
            threads=self._threads,
            voluntary_switches=max(0, voluntary - self._switches[0]),
            involuntary_switches=max(0, involuntary - self._switches[1]),
            samples=self._looks,
            scheduling=read_scheduling(self._notes, self.pids, self._began, ended) if self._notes else None,
        )

    def _run(self) -> None:
        wait, used = self._every, self._began_cpu
        last = tree_at = time.monotonic()
        while not self._stop.wait(wait):
            before, now = time.thread_time(), time.monotonic()
            if self._fewer and now - tree_at > _TREE_EVERY:
                self._find()
                tree_at = now
            used_before, used = used, self._look()
            took = time.thread_time() - before
            self.cost += took
            cores = (used - used_before) / max(now - last, 1e-3)
            last = now
            wait = min(_LONGEST, max(self._every, took / _SHARE / max(cores, 1e-3)))

    def _look(self) -> float:
        """Note memory, processes and threads; the CPU so far."""
        seen = [found for pid in self._alive if (found := process(pid))]
        self._pss.append(sum(pss(pid) for pid in self._alive))
        self._processes = max(self._processes, len(seen))
        self._fewer = len(seen) < self._processes
        self._threads = max(self._threads, sum(each.threads for each in seen))
        self._looks += 1
        return sum(each.cpu + each.cpu_of_children for each in seen)

    def _find(self) -> None:
        self._alive = tree(self._roots)
        self.pids |= self._alive

    def _count_switches(self) -> tuple[int, int]:
        found = [switches(pid) for pid in self._alive]
        return sum(each[0] for each in found), sum(each[1] for each in found)


# -- processes and the machine; of processes that are gone there is nothing


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """CPU in seconds; that of children counts once they have ended and were waited for."""

    parent: int
    cpu: float
    cpu_of_children: float
    threads: int


@dataclass(frozen=True, slots=True)
class MachineCounters:
    """Counters since the machine was started."""

    busy: float  # seconds of CPU, over all cores; steal is not in it
    idle: float
    stolen: float
    swapped: int  # pages, in and out
    major_faults: int


def process(pid: int) -> ProcessUsage | None:
    with suppress(psutil.Error, OSError, IndexError):  # it ended while it was read
        found = psutil.Process(pid)
        with found.oneshot():
            used = found.cpu_times()
            of_children = used.children_user + used.children_system
            return ProcessUsage(found.ppid(), used.user + used.system, of_children, found.num_threads())
    return None


def cpu(pids: Iterable[int]) -> float:
    """Seconds that the processes and their dead children have used."""
    return sum(found.cpu + found.cpu_of_children for pid in pids if (found := process(pid)))


def tree(roots: Iterable[int]) -> set[int]:
    """The processes and all below them that are alive."""
    seen = set()
    for root in roots:
        with suppress(psutil.Error, OSError):
            found = psutil.Process(root)
            seen |= {root, *(each.pid for each in found.children(recursive=True))}
    return seen


def pss(pid: int) -> int:
    """Bytes: its own memory, and its share of what it shares."""
    with suppress(psutil.Error, OSError):
        return int(getattr(psutil.Process(pid).memory_full_info(), "pss", 0))
    return 0


def switches(pid: int) -> tuple[int, int]:
    """Context switches of its threads that are alive: voluntary, involuntary. psutil has its main thread's only."""
    found = {"voluntary_ctxt_switches": 0, "nonvoluntary_ctxt_switches": 0}
    for task in Path(psutil.PROCFS_PATH, str(pid), "task").glob("*/status"):
        with suppress(OSError):
            for line in task.read_text().splitlines():
                name, _, value = line.partition(":")
                if name in found:
                    found[name] += int(value)
    voluntary, involuntary = found.values()
    return voluntary, involuntary


def machine() -> MachineCounters | None:
    try:
        lines = Path(psutil.PROCFS_PATH, "vmstat").read_text().splitlines()
        times = psutil.cpu_times()
    except (OSError, ValueError):
        return None
    memory = dict(line.split() for line in lines)
    return MachineCounters(
        busy=times.user + times.nice + times.system + times.irq + times.softirq,
        idle=times.idle + times.iowait,
        stolen=times.steal,
        swapped=int(memory.get("pswpin", 0)) + int(memory.get("pswpout", 0)),
        major_faults=int(memory.get("pgmajfault", 0)),
    )


def describe_machine() -> dict[str, str | int | float]:
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory": psutil.virtual_memory().total,
        "load": round(psutil.getloadavg()[0], 2),
    }


# -- cores

# All begin at one moment, after they all have started.
_BURN = """
import sys, time
begin, seconds = float(sys.argv[1]), float(sys.argv[2])
time.sleep(max(0.0, begin - time.monotonic()))
begun, cpu = time.monotonic(), time.process_time()
while (now := time.monotonic()) < begun + seconds:
    pass
print((time.process_time() - cpu) / (now - begun))
"""
_START = 0.15  # seconds for a bare interpreter


def nominal() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1


def probe(seconds: float = 0.3) -> float:
    """Cores that were really ours for so many seconds."""
    command = [sys.executable, "-I", "-S", "-c", _BURN, str(time.monotonic() + _START), str(seconds)]
    burning = [
        subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
            text=True,
        )
        for _ in range(nominal())
    ]
    try:
        return sum(float(each.communicate(timeout=seconds + 10)[0] or 0) for each in burning)
    finally:
        for each in burning:
            each.kill()
            each.wait()


class Probes:
    """The probes of an experiment."""

    def __init__(self, look: Callable[[], float] = probe) -> None:
        self._look = look
        self.seen: list[float] = []

    def look(self) -> float:
        self.seen.append(round(self._look(), 3))
        return self.seen[-1]

    def dropped(self, share: float) -> str | None:
        """Why the last probe excludes what follows: it found less than that share of the best one."""
        best, last = max(self.seen, default=0.0), self.seen[-1] if self.seen else 0.0
        if last >= share * best:
            return None
        return f"only {last:.2f} cores were ours before the round, {best:.2f} at its best"

    def cores(self) -> Cores | None:
        return Cores(nominal(), round(statistics.median(self.seen), 3), tuple(self.seen)) if self.seen else None


# -- scheduling latency, as the probes in the workers note it


_PAIR = 16  # bytes: two doubles, the moment by CLOCK_MONOTONIC and the latency
_PATIENCE = 1.0  # seconds for the last notes to be written


def settle(folder: Path, pids: Iterable[int], ended: float) -> None:
    """Wait until what the probes noted up to a moment is written; a second at the most."""
    deadline = time.monotonic() + _PATIENCE
    files = [file for pid in pids if (file := folder / str(pid)).exists()]
    while time.monotonic() < deadline:
        if all(max((moment for moment, _ in _pairs(file)), default=0.0) >= ended for file in files):
            return
        time.sleep(0.02)


def read_scheduling(folder: Path, pids: Iterable[int], begun: float, ended: float) -> SchedulingLatency | None:
    """What the probes of these processes noted between two moments; None: nothing."""
    pairs = (pair for pid in pids for pair in _pairs(folder / str(pid)))
    late = sorted(late for moment, late in pairs if begun <= moment <= ended)
    if not late:
        return None
    p50, p99 = (late[min(len(late) - 1, int(share * len(late)))] for share in (0.5, 0.99))
    return SchedulingLatency(round(p50, 6), round(p99, 6), round(late[-1], 6), len(late))


def _pairs(file: Path) -> Iterable[tuple[float, float]]:
    try:
        raw = file.read_bytes()
    except OSError:
        return ()
    pairs = array("d")
    pairs.frombytes(raw[: len(raw) // _PAIR * _PAIR])  # the last one may be half written
    return zip(pairs[::2], pairs[1::2], strict=True)
