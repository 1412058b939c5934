"""CONTRACT: the words a cell may say. A closed set: a new kind of end is a decision."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Outcome(StrEnum):
    """A word, and what it means."""

    meaning: str

    def __new__(cls, word: str, meaning: str) -> Self:
        outcome = str.__new__(cls, word)
        outcome._value_, outcome.meaning = word, meaning
        return outcome

    WORKS = "works", "what was asked for happened"
    IGNORED = "ignored", "accepted without a word, and nothing happens"
    WARNED = "does nothing, and says so", "nothing happens; a line in the worker's log says that it will not"
    REFUSED = "refused", "the worker does not start, and says why"
    FINISHES_ANYWAY = "finishes anyway", "reported as stopped, or to be stopped, while the body runs to its end"
    FORGOTTEN = "forgotten", "accepted, and void after a restart of the worker"
    LOST = "lost", "the job did not finish and is on no queue any more"
    NOT_IN_TIME = "not in time", "still nowhere to be seen at the end of the window that the row names"
    RUNS_TWICE = "runs twice", "a second run of the job begins while the first is still under way"
    NEVER_ENDS = "repeats for ever", "the job begins again and again"
    NEVER_RUNS = "never runs", "reported as a success, and the body never began"
    NEVER_EXITS = "never exits", "the process is still there when its jobs have long ended"
    NO_ANSWER = "no answer", "a worker that is alive does not answer"
    SILENT = "silent", "a worker that is alive gives no sign of it"
    CRASHES = "crashes the worker", "the whole worker ends, with all its jobs"
    NOT_APPLICABLE = "not applicable", "there is no such thing in this pool; the row says why"


_ERROR = "error: "


def error(kind: str) -> str:
    """The caller is told, or the job ends with, an exception of this class."""
    return _ERROR + kind


def known(word: str) -> bool:
    return word in set(Outcome) or (word.startswith(_ERROR) and word.removeprefix(_ERROR).isidentifier())
