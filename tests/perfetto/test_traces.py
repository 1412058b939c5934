"""Perfetto's own trace processor reads our traces whole: nothing is dropped, and it says what the trace says."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from poolbench.lanes import to_bytes
from producer.cli import run
from tests.perfetto.processor import Processor
from tests.reported import few, hosts, many, sweep

pytestmark = pytest.mark.timeout(300)

Events = list[dict[str, Any]]
RUNS = sorted((Path(__file__).parents[2] / "docs" / "runs").glob("*.json*"))


def _reported(run_file: Path, trace: Path) -> None:
    assert run(["report", str(run_file), "--trace", str(trace)]) == 0


def _made(make: Callable[[], Any], trace: Path) -> None:
    trace.write_bytes(to_bytes(make(), compressed=trace.suffix == ".gz"))


WRITERS: dict[str, Callable[[Path], None]] = {
    **{f"{make.__name__}.json": partial(_made, make) for make in (few, sweep, hosts, many)},
    "few.json.gz": partial(_made, few),
    **{
        f"{run_file.name.partition('.')[0]}-run{end}": partial(_reported, run_file)
        for run_file in RUNS
        for end in (".json", ".json.gz")
    },
}


@dataclass(frozen=True)
class Opened:
    """A trace as it was written, and as the processor has it."""

    events: Events
    processor: Processor

    def of(self, *phases: str) -> Iterator[dict[str, Any]]:
        return (event for event in self.events if event["ph"] in phases)

    def named(self, what: str) -> dict[tuple[int, int], str]:
        return {(each["pid"], each["tid"]): each["args"]["name"] for each in self.of("M") if each["name"] == what}

    @property
    def processes(self) -> dict[int, str]:
        return {pid: name for (pid, _), name in self.named("process_name").items()}


@pytest.fixture(scope="module", params=WRITERS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    file = tmp_path_factory.mktemp("trace") / request.param
    WRITERS[request.param](file)
    raw = file.read_bytes()
    events = json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)["traceEvents"]
    with Processor(file) as processor:
        yield Opened(events, processor)


def test_nothing_is_lost(opened: Opened) -> None:
    """I expect no error in its books, and as many slices as there are slices, waits and instants."""
    assert opened.processor.losses() == []
    counted = opened.processor.rows("select count(*) as n from slice")
    assert counted == [(sum(1 for _ in opened.of("X", "b", "n")),)]
    assert counted > [(0,)]


def test_every_slice_is_on_its_thread_with_its_times_and_in_its_run(opened: Opened) -> None:
    """I expect names and nanoseconds as written, "run" outermost, and the others in the run around them."""
    processes, threads = opened.processes, opened.named("thread_name")
    written = Counter(
        (
            processes[each["pid"]],
            threads[each["pid"], each["tid"]],
            each["name"],
            each["cat"],
            each["ts"] * 1000,
            each["dur"] * 1000,
            None if each["cat"] == "run" else "run",
        )
        for each in opened.of("X")
    )
    found = Counter(
        opened.processor.rows(
            """
            select process.name as process, thread.name as thread, slice.name as name, slice.category as category,
                slice.ts as ts, slice.dur as dur, around.category as inside
            from slice join thread_track on slice.track_id = thread_track.id
                join thread using (utid) join process using (upid)
                left join slice as around on slice.parent_id = around.id
            """
        )
    )
    assert found == written


def test_every_wait_is_shown_in_its_process(opened: Opened) -> None:
    """I expect a slice from each begin to its end and the instants, on tracks of the process and nowhere else."""
    processes, ends = opened.processes, {}
    for each in opened.of("e"):
        ends[each["pid"], each["id2"]["local"]] = each["ts"]
    written = Counter(
        (
            processes[each["pid"]],
            each["name"],
            each["ts"] * 1000,
            (ends[each["pid"], each["id2"]["local"]] - each["ts"]) * 1000 if each["ph"] == "b" else 0,
            each.get("args", {}).get("file"),
            each.get("args", {}).get("job"),
        )
        for each in opened.of("b", "n")
    )
    found = Counter(
        opened.processor.rows(
            """
            select process.name as process, slice.name as name, ts, dur,
                extract_arg(slice.arg_set_id, 'args.file') as file, extract_arg(slice.arg_set_id, 'args.job') as job
            from slice join process_track on slice.track_id = process_track.id join process using (upid)
            """
        )
    )
    assert found == written


def test_the_arguments_of_every_run_can_be_read(opened: Opened) -> None:
    keys = ("job", "state", "bytes", "executor", "failed")
    written = Counter((each["ts"] * 1000, *map(each["args"].get, keys)) for each in opened.of("X") if "args" in each)
    found = opened.processor.rows(
        """
        select ts, extract_arg(arg_set_id, 'args.job') as job, extract_arg(arg_set_id, 'args.state') as state,
            extract_arg(arg_set_id, 'args.bytes') as bytes, extract_arg(arg_set_id, 'args.executor') as executor,
            extract_arg(arg_set_id, 'args.failed') as failed
        from slice where category = 'run'
        """
    )
    assert Counter(found) == written


def test_processes_and_threads_have_their_names_and_their_order(opened: Opened) -> None:
    """I expect those that are named, each where its index puts it, and no lane taken for a process' main thread."""
    order = {
        (each["pid"], each["tid"]): each["args"]["sort_index"]
        for each in opened.of("M")
        if "sort_index" in each["args"]
    }
    processes, threads = opened.processes, opened.named("thread_name")
    assert Counter(
        opened.processor.rows(
            """
            select name, extract_arg(arg_set_id, 'process_sort_index_hint') as place
            from process where name is not null
            """
        )
    ) == Counter((name, order[pid, 0]) for pid, name in processes.items())
    assert Counter(
        opened.processor.rows(
            """
            select process.name as process, thread.name as thread, is_main_thread,
                extract_arg(thread.arg_set_id, 'thread_sort_index_hint') as place
            from thread join process using (upid) where thread.name is not null
            """
        )
    ) == Counter((processes[pid], name, 0, order[pid, tid]) for (pid, tid), name in threads.items())


def test_the_counter_says_how_many_run(opened: Opened) -> None:
    processes = opened.processes
    written = Counter((processes[each["pid"]], each["ts"] * 1000, each["args"]["jobs"]) for each in opened.of("C"))
    found = opened.processor.rows(
        """
        select process.name as process, ts, value
        from counter join process_counter_track as track on counter.track_id = track.id join process using (upid)
        where track.name = 'running jobs'
        """
    )
    assert Counter(found) == written
