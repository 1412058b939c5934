"""What the page's script gets: the timelines as numbers, and the experiment itself, compressed."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from poolbench.experiment import Experiment, Turn, to_json
from poolbench.lanes import Lane, Shown, name_of
from poolbench.report.palette import look

# 10 µs: of ten thousand jobs' moments, the digits behind would be most of the page.
_FRACTION = re.compile(r"(\.\d{5})\d+(?=,?$)", re.MULTILINE)
_INDENT = re.compile(r"^ +", re.MULTILINE)
_TICK = 1e-4  # seconds: moments are whole tenths of milliseconds, shorter than as fractions


def timelines(shown: Sequence[Shown]) -> dict[str, Any]:
    """Per contestant its groups of lanes; an attempt is a row of numbers, its file a place in ``names``.

    On a packed lane it also has its executor, which the lane does not tell.
    """
    names: dict[str, int] = {}
    found = [_contestant(each, names) for each in shown]
    return {"tick": _TICK, "names": list(names), "contestants": found}


def _contestant(shown: Shown, names: dict[str, int]) -> dict[str, Any]:
    turn = shown.turn
    groups = [
        {
            "label": group.label,
            "executors": group.executors,
            "lanes": [_lane(lane, turn, names, packed=group.packed) for lane in group.lanes],
        }
        for group in shown.chart.groups
    ]
    name = shown.contestant.name
    return {"name": name, "look": look(shown.contestant), "end": _ticks(shown.chart.end), "groups": groups}


def _lane(lane: Lane, turn: Turn, names: dict[str, int], *, packed: bool) -> dict[str, Any]:
    rows: list[list[Any]] = []
    for strip in lane.strips:
        job = turn.jobs[strip.job]
        row: list[Any] = [
            names.setdefault(job.filename, len(names)),
            _ticks(strip.queued),
            None if strip.received is None else _ticks(strip.received),
            _ticks(strip.started),
            None if strip.first_byte is None else _ticks(strip.first_byte),
            _ticks(strip.finished),
            _ticks(strip.step),
        ]
        if packed or strip.failed:
            row.append(name_of(strip.executor) if packed and strip.executor else None)
        if strip.failed:
            row.append(strip.failed)
        rows.append(row)
    return {"label": lane.label, "strips": rows}


def _ticks(seconds: float) -> int:
    return round(seconds / _TICK)


def as_script(value: Any) -> Markup:
    """JSON inside of a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped


def compressed(experiment: Experiment) -> str:
    """The experiment's JSON, without indents and with fractions cut after five digits; gzip, base64.

    One value stands on each line, and a text ends with its quotation mark: only numbers are cut.
    """
    text = _INDENT.sub("", _FRACTION.sub(r"\1", to_json(experiment)))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
