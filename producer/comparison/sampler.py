"""What the processes of a worker use during a turn: a thread that looks at /proc now and then.

CPU is the difference of two sums: of what every living process of the tree has used, and of what its dead children had
used, which their parent knows; so children that come and go are counted, however short they live. Memory is the
proportional set size: what a process has alone, and its share of what it shares with others. Peaks are of the looks.
Context switches are of the threads that live at both ends.

Looking costs too, most of all the walk through a large process' memory. The next look is put off until the last one
has cost less than a hundredth of what the contestant used meanwhile, two seconds at the most; what it did cost is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from producer.comparison import lateness, procfs
from producer.comparison.experiment import Usage

EVERY = 0.25  # seconds
_LONGEST = 2.0
_SHARE = 0.01  # of the contestant's CPU, that looking may cost
_TREE_EVERY = 2.0  # seconds, at the least: finding new children is a walk through all processes of the machine


class Sampler:
    """Args:
    roots: main processes of the workers.
    notes: the folder of their lateness probes.
    """

    def __init__(self, roots: Iterable[int], notes: Path | None = None, every: float = EVERY) -> None:
        self._roots = tuple(roots)
        self._notes = notes
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.pids: set[int] = set()  # every one that was seen
        self.cost = 0.0  # seconds of CPU that the looks between the two ends took
        self._looks = 0
        self._pss: list[int] = []
        self._processes = self._threads = 0
        self._fewer = (
            False  # processes than there were: others will have, or have already, the place of those that ended
        )

    def start(self) -> None:
        """Just before the submission: what is there now is idle."""
        self._alive = self._tree()
        self._switches = self._count_switches()
        self._look()
        self._began_cpu, self._began = self._cpu(), time.monotonic()
        self._thread.start()

    def stop(self) -> Usage | None:
        """Just after the last end. None: nothing could be seen of these processes."""
        ended = time.monotonic()
        self._stop.set()
        self._alive = self._tree()  # children that are new since the last look
        cpu = self._cpu()
        self._thread.join()
        self._look()
        voluntary, involuntary = self._count_switches()
        if self._notes:
            lateness.settle(self._notes, self.pids, ended)
        if not self._alive or not any(self._pss):
            return None
        return Usage(
            cpu=round(max(0.0, cpu - self._began_cpu), 3),
            pss_idle=self._pss[0],
            pss_peak=max(self._pss),
            pss_end=self._pss[-1],
            processes=self._processes,
            threads=self._threads,
            voluntary_switches=max(0, voluntary - self._switches[0]),
            involuntary_switches=max(0, involuntary - self._switches[1]),
            samples=self._looks,
            lateness=lateness.read(self._notes, self.pids, self._began, ended) if self._notes else None,
        )

    def _run(self) -> None:
        wait, last, cpu = self._every, time.monotonic(), self._began_cpu
        tree_at = time.monotonic()
        while not self._stop.wait(wait):
            before = time.thread_time()
            now = time.monotonic()
            if self._fewer and now - tree_at > _TREE_EVERY:
                self._alive, tree_at = self._tree(), now
            cpu_before, cpu = cpu, self._look()
            took = time.thread_time() - before
            self.cost += took
            rate = (cpu - cpu_before) / max(now - last, 1e-3)  # cores
            last = now
            wait = min(_LONGEST, max(self._every, took / _SHARE / max(rate, 1e-3)))

    def _look(self) -> float:
        """Note memory, processes and threads; the CPU so far."""
        seen = [found for pid in self._alive if (found := procfs.process(pid))]
        self._pss.append(sum(procfs.pss(pid) for pid in self._alive))
        self._processes = max(self._processes, len(seen))
        self._fewer = len(seen) < self._processes
        self._threads = max(self._threads, sum(each.threads for each in seen))
        self._looks += 1
        return sum(each.cpu + each.cpu_of_children for each in seen)

    def _cpu(self) -> float:
        return sum(found.cpu + found.cpu_of_children for pid in self._alive if (found := procfs.process(pid)))

    def _tree(self) -> set[int]:
        alive = procfs.tree(self._roots)
        self.pids |= alive
        return alive

    def _count_switches(self) -> tuple[int, int]:
        found = [procfs.switches(pid) for pid in self._alive]
        return sum(each[0] for each in found), sum(each[1] for each in found)
