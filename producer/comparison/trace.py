"""An experiment as a trace that Perfetto (or Chrome's tracing page) opens: the trace event format, JSON.

A process of the trace is a process that ran jobs, named after its contestant, worker and pid; its threads are the lanes
of ``lanes``. Every contestant's zero is its own submission, so that turns which ran one after the other compare.

    run         a slice on the executor's lane, with the job's file, state and bytes; inside of it
    first byte  from the claim to the first byte, and
    step        what was done with the file
    wait        an asynchronous slice of the process, from "enqueued" to the claim, in it the instant "received"
    running     a counter per process: attempts at once

Kept true by ``tests/unit/test_trace.py``, and by Perfetto's own trace processor in ``tests/perfetto``.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

from producer.comparison.experiment import Experiment, MeasuredJob, Turn
from producer.comparison.lanes import Chart, Lane, Strip, shown

Event = dict[str, Any]


def trace(experiment: Experiment) -> dict[str, Any]:
    """The trace as an object for JSON."""
    events: list[Event] = []
    numbers = iter(range(1, 1 << 30))
    for each in shown(experiment):
        events += _turn(each.turn, each.chart, numbers)
    told = {
        "command": experiment.command,
        "scenario": experiment.scenario.title,
        "zero": "of every contestant: its own submission",
        "notes": list(experiment.notes),
        "versions": experiment.versions,
    }
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": told}


def to_bytes(experiment: Experiment, *, compressed: bool) -> bytes:
    text = json.dumps(trace(experiment), separators=(",", ":"), allow_nan=False).encode()
    return gzip.compress(text, mtime=0) if compressed else text


def _turn(turn: Turn, lanes: Chart, numbers: Iterator[int]) -> Iterator[Event]:
    """Processes and threads share one row of numbers: a thread with its process' number is shown as its main one."""
    for group in lanes.groups:
        pids: dict[int | None, int] = {}
        for lane in group.lanes:
            if lane.pid not in pids:
                pids[lane.pid] = next(numbers)
                name = group.label if lane.pid is None or "pid" in group.label else f"{group.label}, pid {lane.pid}"
                yield _named("process_name", pids[lane.pid], 0, name=f"{turn.contestant}: {name}")
                yield _named("process_labels", pids[lane.pid], 0, labels=group.executors)
                yield _named("process_sort_index", pids[lane.pid], 0, sort_index=pids[lane.pid])
            yield from _lane(turn, lane, pids[lane.pid], next(numbers))
        for real, pid in pids.items():
            yield from _running([lane for lane in group.lanes if lane.pid == real], pid)


def _lane(turn: Turn, lane: Lane, pid: int, tid: int) -> Iterator[Event]:
    yield _named("thread_name", pid, tid, name=lane.label)
    yield _named("thread_sort_index", pid, tid, sort_index=tid)
    for strip in lane.strips:
        job = turn.jobs[strip.job]
        yield from _run(job, strip, pid, tid)
        yield from _wait(job, strip, pid, tid, f"{turn.batch}.{job.id}")


def _run(job: MeasuredJob, strip: Strip, pid: int, tid: int) -> Iterator[Event]:
    begin, end = _us(strip.started), _us(strip.finished)
    told = {"job": job.id, "state": job.state.value, "bytes": job.bytes, "executor": _who(strip)}
    if strip.failed:
        told["failed"] = strip.failed.value
    yield _slice(job.filename, "run", (begin, end), pid, tid) | {"args": told}
    if strip.first_byte is not None:
        yield _slice("first byte", "first byte", (begin, _us(strip.first_byte)), pid, tid)
    if strip.step:
        since = max(begin, _us(strip.first_byte or 0.0), _us(strip.finished - strip.step))
        yield _slice("step", "step", (since, end), pid, tid)


def _wait(job: MeasuredJob, strip: Strip, pid: int, tid: int, name: str) -> Iterator[Event]:
    begin, end = _us(strip.queued), _us(strip.started)
    # Local to the process: there it is shown. What has a plain "id" belongs to the whole trace.
    common = {"cat": "wait", "id2": {"local": f"{name}@{begin}"}, "pid": pid, "tid": tid}
    yield {"ph": "b", "name": "wait", "ts": begin, "args": {"file": job.filename, "job": job.id}} | common
    yield {"ph": "n", "name": "enqueued", "ts": begin} | common
    if strip.received is not None:
        yield {"ph": "n", "name": "received", "ts": min(max(_us(strip.received), begin), end)} | common
    yield {"ph": "e", "name": "wait", "ts": end} | common


def _running(lanes: list[Lane], pid: int) -> Iterator[Event]:
    changes: dict[int, int] = {}
    for lane in lanes:
        for strip in lane.strips:
            for moment, change in ((strip.started, 1), (strip.finished, -1)):
                changes[_us(moment)] = changes.get(_us(moment), 0) + change
    now = 0
    for moment in sorted(changes):
        now += changes[moment]
        yield {"ph": "C", "name": "running", "ts": moment, "pid": pid, "args": {"jobs": now}}


def _slice(name: str, category: str, span: tuple[int, int], pid: int, tid: int) -> Event:
    begin, end = span
    return {"ph": "X", "name": name, "cat": category, "ts": begin, "dur": end - begin, "pid": pid, "tid": tid}


def _named(what: str, pid: int, tid: int, **args: str | int) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _who(strip: Strip) -> str:
    who = strip.executor
    if who is None:
        return "vanished"
    greenlet = "" if who.greenlet is None else f", greenlet {who.greenlet}"
    return f"{who.worker}, pid {who.pid}, thread {who.thread}{greenlet}"


def _us(seconds: float) -> int:
    """Whole microseconds, always rounded down: what did not overlap does not overlap afterwards."""
    return int(seconds * 1e6)
