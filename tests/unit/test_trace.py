"""The trace keeps the rules of the trace event format, and says what the records say.

Perfetto's own reader sees to the rest, in ``tests/perfetto``: it wants Node.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from poolbench.experiment import Experiment
from poolbench.lanes import shown, to_bytes, trace
from tests.experiments import known
from tests.reported import few, hosts, many, sweep

Events = list[dict[str, Any]]
_REQUIRED = {"X": {"name", "cat", "ts", "dur"}, "M": {"name", "args"}, "C": {"name", "ts", "args"}}
_ASYNC = {"name", "cat", "id2", "ts"}


def check(events: Events) -> None:
    """What a reader of the format relies on."""
    named: set[tuple[str, int, int]] = set()
    for event in events:
        phase = event["ph"]
        assert set(event) >= {"ph", "pid", *_REQUIRED.get(phase, _ASYNC)}, event
        assert phase in "XMCbne"
        assert isinstance(event["pid"], int)
        assert all(isinstance(event.get(key, 0), int) and event.get(key, 0) >= 0 for key in ("ts", "dur", "tid"))
        if phase == "M":
            named.add((event["name"], event["pid"], event["tid"]))
    for event in events:
        assert ("process_name", event["pid"], 0) in named
        assert event["ph"] != "X" or ("thread_name", event["pid"], event["tid"]) in named
    _slices_nest(events)
    _waits_close(events)


def _slices_nest(events: Events) -> None:
    """On a thread, a slice that begins in another one ends in it."""
    threads: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert threads
    for slices in threads.values():
        open_ones: list[int] = []
        for begin, end in sorted(slices, key=lambda span: (span[0], -span[1])):
            while open_ones and open_ones[-1] <= begin:
                open_ones.pop()
            assert not open_ones or end <= open_ones[-1]
            open_ones.append(end)


def _waits_close(events: Events) -> None:
    spans: dict[tuple[int, str], dict[str, int]] = defaultdict(dict)
    for event in events:
        if event["ph"] in "be":
            span = spans[event["pid"], event["id2"]["local"]]
            assert event["ph"] not in span
            span[event["ph"]] = event["ts"]
    assert all(span["b"] <= span["e"] for span in spans.values())
    for event in events:
        if event["ph"] == "n":
            span = spans[event["pid"], event["id2"]["local"]]
            assert span["b"] <= event["ts"] <= span["e"]


@pytest.mark.parametrize("make", [few, sweep, hosts, many])
def test_the_trace_keeps_the_rules_of_its_format(make: Callable[[], Experiment]) -> None:
    experiment = make()
    found = trace(experiment)

    check(found["traceEvents"])
    assert json.loads(to_bytes(experiment, compressed=False)) == json.loads(json.dumps(found))


def test_every_attempt_is_a_slice_on_the_lane_of_its_executor() -> None:
    experiment = few()
    events = trace(experiment)["traceEvents"]

    threads = {(each["pid"], each["tid"]): each["args"]["name"] for each in events if each["name"] == "thread_name"}
    processes = {each["pid"]: each["args"]["name"] for each in events if each["name"] == "process_name"}
    runs = Counter(
        (processes[each["pid"]].split(": ")[0], threads[each["pid"], each["tid"]])
        for each in events
        if each.get("cat") == "run"
    )
    expected = Counter(
        (each.deployment.name, lane.label)
        for each in shown(experiment)
        for lane in each.chart.lanes
        for _ in lane.spans
    )
    assert runs == expected
    assert "prefork:4: prefork:4@host, pid 101" in processes.values()
    assert "gevent:8: gevent:8@host, pid 300, thread 300" in processes.values()


def test_moments_are_microseconds_since_the_deployments_own_submission() -> None:
    experiment = few()
    measurement = experiment.shown("prefork:4")
    job = known(measurement).jobs[0]
    slices = [each for each in trace(experiment)["traceEvents"] if each["ph"] == "X"]
    runs = [each for each in slices if each["cat"] == "run" and "prefork:4@host" in each["args"]["executor"]]

    ran = next(each for each in runs if each["args"]["job"] == job.id)
    assert ran["ts"] == pytest.approx((job.attempts[0].started - known(measurement).submitted) * 1e6, abs=2)
    assert ran["dur"] == pytest.approx((job.attempts[0].finished - job.attempts[0].started) * 1e6, abs=2)
    assert {each["name"] for each in slices if each["cat"] != "run"} == {"first byte", "step"}


def test_a_failed_attempt_says_how_it_failed() -> None:
    runs = [each for each in trace(few())["traceEvents"] if each.get("cat") == "run"]

    assert [each["args"]["failed"] for each in runs if "failed" in each["args"]] == ["reset"] * 4


def test_notes_about_clocks_travel_with_the_trace() -> None:
    assert trace(few())["otherData"]["notes"] == ["The clock of host <b> is 3 ms behind"]


def test_a_compressed_trace_is_the_same_bytes_each_time() -> None:
    experiment = few()

    once = to_bytes(experiment, compressed=True)
    assert once == to_bytes(experiment, compressed=True)
    assert gzip.decompress(once) == to_bytes(experiment, compressed=False)
