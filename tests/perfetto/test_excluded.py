"""A excluded trace is noticed: what ``test_traces.py`` relies on can fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from perfetto.common.exceptions import PerfettoException

from poolbench.lanes import to_bytes, trace
from tests.perfetto.processor import Processor
from tests.reported import few

Event = dict[str, Any]


def _first(events: list[Event], **fields: str) -> Event:
    return next(event for event in events if fields.items() <= event.items())


def runs_overlap(events: list[Event]) -> None:
    first = _first(events, cat="run")
    second = next(
        each for each in events if each.get("cat") == "run" and each["tid"] == first["tid"] and each["ts"] > first["ts"]
    )
    second["ts"] -= 1000


def moment_is_a_word(events: list[Event]) -> None:
    _first(events, ph="X")["ts"] = "soon"


def slice_has_no_duration(events: list[Event]) -> None:
    del _first(events, ph="X")["dur"]


def instant_belongs_to_nothing(events: list[Event]) -> None:
    del _first(events, ph="n")["id2"]


@pytest.mark.parametrize(
    ("spoil", "counted_as"),
    [
        (runs_overlap, "slice_drop_overlapping_complete_event"),
        (moment_is_a_word, "json_tokenizer_failure"),
        (slice_has_no_duration, "json_parser_failure"),
        (instant_belongs_to_nothing, "json_parser_failure"),
    ],
)
def test_a_dropped_event_is_counted(spoil: Callable[[list[Event]], None], counted_as: str, tmp_path: Path) -> None:
    """Given one event that is wrong, I expect no exception, one slice less, and a count of losses that says so."""
    excluded = trace(few())
    events = excluded["traceEvents"]
    spoil(events)
    file = tmp_path / "excluded.json"
    file.write_text(json.dumps(excluded))

    with Processor(file) as processor:
        assert processor.losses() == [(counted_as, 1)]
        assert processor.rows("select count(*) as n from slice") == [(sum(each["ph"] in "Xbn" for each in events) - 1,)]


def test_a_wait_that_does_not_end_has_no_duration(tmp_path: Path) -> None:
    excluded = trace(few())
    excluded["traceEvents"].remove(_first(excluded["traceEvents"], ph="e"))
    file = tmp_path / "excluded.json"
    file.write_text(json.dumps(excluded))

    with Processor(file) as processor:
        assert processor.rows("select name, dur from slice where dur < 0") == [("wait", -1)]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_trace_that_was_cut_off_has_no_slices(compressed: bool, tmp_path: Path) -> None:
    whole = to_bytes(few(), compressed=compressed)
    file = tmp_path / "cut.json"
    file.write_bytes(whole[:-100])

    with Processor(file) as processor, pytest.raises(PerfettoException, match="no such table: slice"):
        processor.rows("select count(*) as n from slice")
