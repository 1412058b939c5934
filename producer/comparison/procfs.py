"""What Linux says of processes and of the machine, read plainly; elsewhere, and of what is gone, there is nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")  # per second
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """CPU in seconds; that of children counts once they have ended and were waited for."""

    parent: int
    cpu: float
    cpu_of_children: float
    threads: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Counters since the machine was started."""

    busy: float  # seconds of CPU, over all cores; steal is not in it
    idle: float
    stolen: float
    swapped: int  # pages, in and out
    major_faults: int


def process(pid: int, proc: Path = PROC) -> Process | None:
    try:
        text = (proc / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name, in brackets, may have blanks and brackets of its own.
    fields = text[text.rindex(")") + 2 :].split()
    user, system, user_of_children, system_of_children = (int(each) / TICK for each in fields[11:15])
    return Process(int(fields[1]), user + system, user_of_children + system_of_children, int(fields[17]))


def tree(roots: Iterable[int], proc: Path = PROC) -> set[int]:
    """The processes and all below them that are alive."""
    children: dict[int, list[int]] = {}
    alive = set()
    for pid in pids(proc):
        if found := process(pid, proc):
            alive.add(pid)
            children.setdefault(found.parent, []).append(pid)
    seen: set[int] = set()
    left = [pid for pid in roots if pid in alive]
    while left:
        pid = left.pop()
        if pid not in seen:
            seen.add(pid)
            left += children.get(pid, [])
    return seen


def pids(proc: Path = PROC) -> Iterator[int]:
    try:
        yield from (int(entry.name) for entry in os.scandir(proc) if entry.name.isdigit())
    except OSError:
        return


def pss(pid: int, proc: Path = PROC) -> int:
    """Bytes: its own memory, and its share of what it shares."""
    try:
        with (proc / str(pid) / "smaps_rollup").open() as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def switches(pid: int, proc: Path = PROC) -> tuple[int, int]:
    """Context switches of its threads that are alive: voluntary, involuntary."""
    found = [0, 0]
    try:
        tasks = list(os.scandir(proc / str(pid) / "task"))
    except OSError:
        return 0, 0
    for task in tasks:
        try:
            with (Path(task.path) / "status").open() as lines:
                for line in lines:
                    if line.startswith("voluntary_ctxt_switches:"):
                        found[0] += int(line.split()[1])
                    elif line.startswith("nonvoluntary_ctxt_switches:"):
                        found[1] += int(line.split()[1])
        except OSError:
            continue
    return found[0], found[1]


def machine(proc: Path = PROC) -> Machine | None:
    try:
        user, nice, system, idle, wait, irq, soft, stolen = (
            int(each) / TICK for each in (proc / "stat").read_text().split(maxsplit=9)[1:9]
        )
        memory = dict(line.split() for line in (proc / "vmstat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return Machine(
        busy=user + nice + system + irq + soft,
        idle=idle + wait,
        stolen=stolen,
        swapped=int(memory.get("pswpin", 0)) + int(memory.get("pswpout", 0)),
        major_faults=int(memory.get("pgmajfault", 0)),
    )
