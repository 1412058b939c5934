"""What the probes of a deployment's workers noted, read while it is written, and the jobs that follow from it."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolbench.experiment import MeasuredAttempt, MeasuredExecutor, MeasuredJob, MeasuredState
from poolbench.tasks.project import Call

EPOCH = time.time() - time.monotonic()  # added to CLOCK_MONOTONIC by the probes, too
Note = dict[str, Any]


def now() -> float:
    """Seconds since the epoch, by the clock of the probes."""
    return EPOCH + time.monotonic()


@dataclass(frozen=True, slots=True)
class Sent:
    """A job: what, and when it was to be sent and was. Seconds since the epoch."""

    id: str
    call: Call
    number: int
    due: float
    at: float


def _by_kind() -> defaultdict[str, list[Note]]:
    return defaultdict(list)


@dataclass(slots=True)
class Seen:
    """The notes of a deployment's workers, so far: see ``probe``."""

    folder: Path
    notes: defaultdict[str, list[Note]] = field(default_factory=_by_kind)
    jobs: defaultdict[str, defaultdict[str, list[Note]]] = field(default_factory=lambda: defaultdict(_by_kind))  # by id
    _read: Counter[Path] = field(default_factory=Counter)

    def look(self) -> None:
        """Read what is new."""
        for file in self.folder.glob("*.jsonl"):
            with file.open("rb") as notes:
                notes.seek(self._read[file])
                new = notes.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[file] += len(whole)
            for note in map(json.loads, whole.splitlines()):
                self.notes[note["kind"]].append(note)
                self.jobs[note.get("id", "")][note["kind"]].append(note)

    @property
    def strangers(self) -> list[str]:
        """Addresses that are not ours, which a process would use or uses."""
        return [each for note in self.notes["ready"] + self.notes["stranger"] for each in note["strangers"]]

    def over(self, job: str) -> bool:
        noted = self.jobs[job]
        if any(each["state"] != "RETRY" for each in noted["ends"]):
            return True
        # The process that ran it died: its main process says so, also where it had not begun.
        return bool(noted["fails"]) and len(noted["ends"]) < max(1, len(noted["begins"]))

    def job(self, sent: Sent) -> MeasuredJob:
        """What was noted of a job."""
        noted = self.jobs[sent.id]
        begins, ends, fails = noted["begins"], noted["ends"], noted["fails"]
        state = MeasuredState.RUNNING if begins else MeasuredState.QUEUED
        if self.over(sent.id):
            bad = fails or ends[-1]["state"] in ("FAILURE", "REJECTED")
            state = MeasuredState.FAILED if bad else MeasuredState.DONE
        return MeasuredJob(
            id=sent.id,
            filename=f"{sent.call.short}-{sent.number}",
            state=state,
            queued=sent.due,
            attempts=tuple(
                _attempt(first, ends[n : n + 1], fails if n == len(begins) - 1 else [])
                for n, first in enumerate(begins)
                if n < len(ends) or fails
            ),
        )


def _attempt(begins: Note, ends: list[Note], fails: list[Note]) -> MeasuredAttempt:
    last = [*ends, *fails, begins][0]
    return MeasuredAttempt(
        executor=MeasuredExecutor(begins["worker"], begins["pid"], begins["thread"], begins["greenlet"]),
        started=begins["at"],
        finished=last["at"],
        kind=fails[0]["error"] if fails else None,
        reason=fails[0]["reason"] if fails else None,
    )
