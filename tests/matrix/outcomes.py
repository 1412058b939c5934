"""CONTRACT: the words a cell may say. A closed set: a new kind of end is a decision."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Outcome(StrEnum):
    WORKS = "works"
    IGNORED = "ignored"
    WARNED = "does nothing, and says so"
    REFUSED = "refused"
    FINISHES_ANYWAY = "finishes anyway"
    FORGOTTEN = "forgotten"
    LOST = "lost"
    NOT_IN_TIME = "not in time"
    RUNS_TWICE = "runs twice"
    NEVER_ENDS = "repeats for ever"
    NEVER_RUNS = "never runs"
    NEVER_EXITS = "never exits"
    NO_ANSWER = "no answer"
    SILENT = "silent"
    CRASHES = "crashes the worker"
    NOT_APPLICABLE = "not applicable"


MEANING: Mapping[Outcome, str] = {
    Outcome.WORKS: "what was asked for happened",
    Outcome.IGNORED: "accepted without a word, and nothing happens",
    Outcome.WARNED: "nothing happens; a line in the worker's log says that it will not",
    Outcome.REFUSED: "the worker does not start, and says why",
    Outcome.FINISHES_ANYWAY: "reported as stopped, or to be stopped, while the body runs to its end",
    Outcome.FORGOTTEN: "accepted, and void after a restart of the worker",
    Outcome.LOST: "the job did not finish and is on no queue any more",
    Outcome.NOT_IN_TIME: "still nowhere to be seen at the end of the window that the row names",
    Outcome.RUNS_TWICE: "a second run of the job begins while the first is still under way",
    Outcome.NEVER_ENDS: "the job begins again and again",
    Outcome.NEVER_RUNS: "reported as a success, and the body never began",
    Outcome.NEVER_EXITS: "the process is still there when its jobs have long ended",
    Outcome.NO_ANSWER: "a worker that is alive does not answer",
    Outcome.SILENT: "a worker that is alive gives no sign of it",
    Outcome.CRASHES: "the whole worker ends, with all its jobs",
    Outcome.NOT_APPLICABLE: "there is no such thing in this pool; the row says why",
}
_ERROR = "error: "


def error(kind: str) -> str:
    """The caller is told, or the job ends with, an exception of this class."""
    return _ERROR + kind


def known(word: str) -> bool:
    return word in set(Outcome) or (word.startswith(_ERROR) and word.removeprefix(_ERROR).isidentifier())
