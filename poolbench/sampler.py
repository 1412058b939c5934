"""What the processes of a worker use during a measurement: a thread that samples them, by psutil.

CPU is the difference of two sums: of what every living process of the tree has used, and of what its dead children had
used, which their parent knows; so children that come and go are counted, however short they live. Memory is the
proportional set size: what a process has alone, and its share of what it shares with others. Peaks are of the samples.

Sampling costs too, most of all the walk through a large process' memory: so the next sample is put off until the last
one is less than a hundredth of the time.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import threading
import time
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import psutil

from poolbench.experiment import Cores, SchedulingLatency, Usage

EVERY = 0.25  # seconds
_LONGEST = 2.0
_SHARE = 0.01  # of a core, that sampling may cost


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
        self.usage: Usage | None = None  # once it has stopped; None: nothing could be seen of these processes
        self._pss: list[int] = []
        self._processes = 0  # at the most

    def start(self) -> None:
        """Just before the submission: what is there now is idle."""
        self._find()
        self._look()
        self._began_cpu, self._began = cpu(self._alive), time.monotonic()
        self._thread.start()

    def stop(self) -> Usage | None:
        """Just after the last end."""
        ended = time.monotonic()
        self._stop.set()
        self._find()  # children that are new since the last sample
        used = cpu(self._alive) - self._began_cpu
        self._thread.join()
        self._look()
        if self._alive and any(self._pss):
            late = read_scheduling(self._notes, self.pids, self._began, ended) if self._notes else None
            cpu_seconds = round(max(0.0, used), 3)
            self.usage = Usage(cpu_seconds, self._pss[0], max(self._pss), self._processes, late)
        return self.usage

    def _run(self) -> None:
        wait = self._every
        while not self._stop.wait(wait):
            before = time.thread_time()
            self._look()
            wait = min(_LONGEST, max(self._every, (time.thread_time() - before) / _SHARE))

    def _look(self) -> None:
        """Note the memory; if processes have ended, find those that have their place.

        That is a walk through all processes of the machine.
        """
        found = [pss(pid) for pid in self._alive]
        self._pss.append(sum(found))
        living = sum(map(bool, found))
        if living < self._processes:
            self._find()
        self._processes = max(self._processes, living)

    def _find(self) -> None:
        self._alive = tree(self._roots)
        self.pids |= self._alive


# -- processes and the machine; of processes that are gone there is nothing


@dataclass(frozen=True, slots=True)
class MachineCounters:
    """Counters since the machine was started."""

    busy: float  # seconds of CPU, over all cores; steal is not in it
    idle: float
    stolen: float
    major_faults: int  # pages that were waited for: read from the disk, swapped in


def cpu(pids: Iterable[int]) -> float:
    """Seconds that the processes and their dead children, once they were waited for, have used."""
    used = 0.0
    for pid in pids:
        with suppress(psutil.Error, OSError, IndexError):  # it ended while it was read
            used += sum(psutil.Process(pid).cpu_times()[:4])
    return used


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
    burning = [  # in a session of their own: Ctrl-C is for us
        Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True)  # noqa: S603 - our program
        for _ in range(nominal())
    ]
    try:
        return round(sum(float(each.communicate(timeout=seconds + 10)[0] or 0) for each in burning), 3)
    finally:
        for each in burning:
            each.kill()
            each.wait()


def cores(probes: Sequence[float]) -> Cores | None:
    """What the probes of an experiment have found."""
    return Cores(nominal(), round(statistics.median(probes), 3), tuple(probes)) if probes else None


# -- scheduling latency, as the probes in the workers note it


_PAIR = 16  # bytes: two doubles, the moment by CLOCK_MONOTONIC and the latency
_PATIENCE = 1.0  # seconds for the last notes to be written


def read_scheduling(folder: Path, pids: Iterable[int], begun: float, ended: float) -> SchedulingLatency | None:
    """What the probes of these processes noted between two moments; None: nothing.

    What they noted last may be written up to a second later, and is waited for.
    """
    files = [file for pid in pids if (file := folder / str(pid)).exists()]
    deadline = time.monotonic() + _PATIENCE
    while True:
        notes = [_pairs(file) for file in files]
        if time.monotonic() >= deadline or all(pairs and pairs[-1][0] >= ended for pairs in notes):
            break
        time.sleep(0.02)
    late = sorted(late for pairs in notes for moment, late in pairs if begun <= moment <= ended)
    if not late:
        return None
    return SchedulingLatency(round(late[min(len(late) - 1, int(0.99 * len(late)))], 6), round(late[-1], 6))


def _pairs(file: Path) -> list[tuple[float, float]]:
    try:
        raw = file.read_bytes()
    except OSError:
        return []
    pairs = array("d")
    pairs.frombytes(raw[: len(raw) // _PAIR * _PAIR])  # the last one may be half written
    return list(zip(pairs[::2], pairs[1::2], strict=True))
