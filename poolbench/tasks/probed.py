"""What the probes of a deployment's workers noted, read while it is written, and the jobs that follow from it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolbench.experiment import MeasuredAttempt, MeasuredExecutor, MeasuredJob, MeasuredState
from poolbench.tasks.project import Call

_AHEAD = time.time() - time.monotonic()


def epoch(monotonic: float) -> float:
    return monotonic + _AHEAD


def now() -> float:
    """Seconds since the epoch, by the clock of the probes."""
    return epoch(time.monotonic())


@dataclass(slots=True)
class Sent:
    """A job: what, and when it was to be sent and was. Seconds since the epoch."""

    id: str
    call: Call
    number: int
    due: float
    at: float

    @property
    def name(self) -> str:
        return f"{self.call.short}-{self.number}"


@dataclass(slots=True)
class Seen:
    """What the probes of a deployment's workers noted, so far. Moments are CLOCK_MONOTONIC."""

    folder: Path
    ready: int = 0
    strangers: list[str] = field(default_factory=list)
    received: dict[str, float] = field(default_factory=dict)
    begins: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ends: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    fails: dict[str, dict[str, Any]] = field(default_factory=dict)
    reaches: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    sends: Counter[tuple[str, str]] = field(default_factory=Counter)
    _read: dict[Path, int] = field(default_factory=dict)

    def look(self) -> None:
        """Read what is new."""
        for file in self.folder.glob("*.jsonl"):
            with file.open("rb") as notes:
                notes.seek(self._read.get(file, 0))
                new = notes.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[file] = self._read.get(file, 0) + len(whole)
            for line in whole.splitlines():
                self._take(json.loads(line))

    def _take(self, note: dict[str, Any]) -> None:
        kind, job = note["kind"], note.get("id", "")
        if kind == "ready":
            self.ready += 1
            self.strangers += note["strangers"]
        elif kind == "stranger":
            self.strangers += note["addresses"]
        elif kind == "received":
            self.received[job] = note["at"]
        elif kind == "fails":
            self.fails.setdefault(job, note)
        elif kind == "reaches":
            self.reaches[note["by"] or "", note["to"], note["ok"]] += 1
        elif kind == "sends":
            self.sends[note["by"], note["task"]] += 1
        else:
            (self.begins if kind == "begins" else self.ends).setdefault(job, []).append(note)

    def over(self, job: str) -> bool:
        ended = self.ends.get(job, [])
        if any(each["state"] != "RETRY" for each in ended):
            return True
        # The process that ran it died: its main process says so.
        return job in self.fails and len(ended) < len(self.begins.get(job, [None]))

    def job(self, sent: Sent) -> MeasuredJob:
        """What the probes noted of a job."""
        begins, ends, fails = self.begins.get(sent.id, []), self.ends.get(sent.id, []), self.fails.get(sent.id)
        attempts = tuple(
            _attempt(first, ends[n] if n < len(ends) else None, fails if n == len(begins) - 1 else None)
            for n, first in enumerate(begins)
            if n < len(ends) or fails
        )
        state = MeasuredState.QUEUED
        if self.over(sent.id):
            bad = fails or ends[-1]["state"] in ("FAILURE", "REJECTED")
            state = MeasuredState.FAILED if bad else MeasuredState.DONE
        elif begins:
            state = MeasuredState.RUNNING
        return MeasuredJob(
            id=sent.id,
            filename=sent.name,
            url=str(sent.call),
            state=state,
            nominal=None,
            queued=sent.due,
            received=None,
            bytes=0,
            expected_sha256=None,
            sha256=None,
            attempts=attempts,
        )


def _attempt(
    begins: Mapping[str, Any], ends: Mapping[str, Any] | None, fails: Mapping[str, Any] | None
) -> MeasuredAttempt:
    at = ends["at"] if ends else fails["at"] if fails else begins["at"]
    return MeasuredAttempt(
        executor=MeasuredExecutor(begins["worker"], begins["pid"], begins["thread"], begins["greenlet"]),
        started=epoch(begins["at"]),
        finished=epoch(at),
        kind=fails["error"] if fails else None,
        reason=fails["reason"] if fails else None,
    )
