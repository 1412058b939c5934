"""What is measured beside the jobs: the cores that there are, what /proc says, and what workers say."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from poolbench import sampler
from poolbench.workers import events

# -- cores
from tests.experiments import known
from tests.waiting import wait_for


def test_the_probe_finds_about_the_cores_that_there_are() -> None:
    """I expect more than nothing and, short of clock ticks, no more than there are."""
    assert 0.05 < sampler.probe(seconds=0.1) <= sampler.nominal() * 1.05


def test_the_median_of_the_probes_is_kept() -> None:
    assert sampler.cores([]) is None
    found = known(sampler.cores([2.0, 1.9, 1.0]))
    assert (found.effective, found.probes) == (1.9, (2.0, 1.9, 1.0))


# -- /proc, as a folder


TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stat").write_text("btime 1700000000\n")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    return tmp_path


def process(proc: Path, pid: int, parent: int, *, ticks: int = 0, dead: int = 0, pss_kb: int = 1000) -> None:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    fields = ["S", str(parent), *["0"] * 9, str(ticks), "0", str(dead), "0", "0", "0", "3", *["0"] * 32]
    (folder / "stat").write_text(f"{pid} (a name) with) {' '.join(fields)}")
    (folder / "statm").write_text("9 9 9 9 9 9 9")
    (folder / "smaps_rollup").write_text(f"0-1 ---p [rollup]\nRss: 9 kB\nPss: {pss_kb} kB\nPss_Dirty: 1 kB\n")
    (folder / "status").write_text("Name:\tx\nThreads:\t3\n")


def gone(proc: Path, pid: int) -> None:
    (proc / str(pid) / "stat").unlink()
    shutil.rmtree(proc / str(pid))


def test_processes_are_read_by_tree_whatever_their_names(proc: Path) -> None:
    for pid, parent in ((10, 1), (11, 10), (12, 11), (13, 1)):
        process(proc, pid, parent, ticks=TICK * pid, dead=TICK)

    assert sampler.tree([10, 99]) == {10, 11, 12}
    assert sampler.cpu([11, 99]) == 12.0
    assert sampler.pss(11) == 1000 * 1024
    assert sampler.pss(99) == 0


def test_children_that_come_and_go_are_counted(proc: Path) -> None:
    """Given a child that used 3 s and ended, and a new one that used 1 s, I expect 4 s of CPU more, not 1 - 3."""
    process(proc, 10, 1, pss_kb=2000)
    process(proc, 11, 10, ticks=2 * TICK)
    watch = sampler.Sampler([10], every=60)
    watch.start()

    process(proc, 10, 1, dead=5 * TICK)  # 2 before, 3 since
    gone(proc, 11)
    process(proc, 12, 10, ticks=TICK)
    usage = watch.stop()

    assert known(usage).cpu == 4.0
    assert known(usage).pss_idle == 3000 * 1024
    assert watch.pids == {10, 11, 12}


def test_all_processes_of_the_machine_are_walked_only_when_a_child_has_gone(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given children that live on, I expect no walk after the first; given one that ends, its successor to be seen,
    which takes its time."""
    walks = []
    tree = sampler.tree

    def walk(roots: Iterable[int]) -> set[int]:
        walks.append(1)
        return tree(roots)

    monkeypatch.setattr(sampler, "tree", walk)
    monkeypatch.setattr(sampler, "_LONGEST", 0.01)
    process(proc, 10, 1, pss_kb=2000)
    process(proc, 11, 10)
    watch = sampler.Sampler([10], every=0.01)
    watch.start()

    wait_for(lambda: len(watch._pss) > 5, what="looks")
    assert len(walks) == 1
    gone(proc, 11)
    wait_for(lambda: len(walks) > 3, what="walks that find nobody in its place")
    process(proc, 12, 10)
    wait_for(lambda: 12 in watch.pids, what="the successor")
    assert watch.stop() is not None


def test_of_processes_that_cannot_be_seen_there_is_no_usage() -> None:
    watch = sampler.Sampler([2**22 + 5])
    watch.start()

    assert watch.stop() is None


def test_a_process_that_burns_is_measured_as_such() -> None:
    """Given this very process, burning for a moment, I expect its CPU and its memory."""
    watch = sampler.Sampler([os.getpid()], every=0.05)
    watch.start()
    begun = sampler.cpu([os.getpid()])
    while sampler.cpu([os.getpid()]) - begun < 0.5:
        sum(range(10_000))
    usage = watch.stop()

    assert usage is not None
    assert 0.4 < usage.cpu < 1.5
    assert usage.pss_peak >= usage.pss_idle > 2**20


# -- what workers say


def test_lateness_is_read_for_the_turn_alone_and_for_its_processes(tmp_path: Path) -> None:
    pairs = [(n / 10, n / 1000) for n in range(100)]
    (tmp_path / "7").write_bytes(b"".join(struct.pack("dd", *pair) for pair in pairs) + b"half")
    (tmp_path / "8").write_bytes(struct.pack("dd", 5.0, 9.0))

    found = sampler.read_scheduling(tmp_path, [7, 9], 2.0, 6.0)

    assert found is not None
    assert (found.p99, found.worst) == (0.06, 0.06)
    assert sampler.read_scheduling(tmp_path, [9], 0.0, 9.0) is None


def test_events_come_alone_or_in_groups_and_rubbish_is_none() -> None:
    one, two = {"type": "task-received", "uuid": "b.1"}, {"type": "task-started", "uuid": "b.1"}
    envelope = {"body": json.dumps([one, two]), "properties": {}}

    assert list(events(json.dumps(envelope))) == [one, two]
    assert list(events(json.dumps({"body": json.dumps(one), "properties": {"body_encoding": "utf-8"}}))) == [one]
    for rubbish in ("", "[]", '{"body": 1}', "null"):
        assert list(events(rubbish)) == []
