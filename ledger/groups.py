"""Calls for a chunk: what ``Ledger`` asks and says of one job, for many jobs in one round trip.

Each job is still judged on its own, by the same lines of Lua and the same claim number: a void claim among good ones
harms nobody. Like every call of the ledger these may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ledger.jobs import Attempt, JobState, Result
from ledger.ledger import Claim, Closed, Ledger, close_args


@dataclass(frozen=True, slots=True)
class Closing:
    """How a holder lets go of a job; the fields are those of ``Ledger.close``."""

    claim: Claim
    state: JobState
    attempt: Attempt
    due_in: float = 0.0  # seconds
    result: Result | None = None


class Groups:
    def __init__(self, ledger: Ledger) -> None:
        self._call = ledger.call

    def holds(self, claims: Sequence[Claim]) -> list[bool]:
        """For each claim whether it still stands."""
        args: list[Any] = []
        for claim in claims:
            args += [claim.record.id, claim.incarnation, claim.number]
        return [answer == 1 for answer in self._call("holds", *args)]

    def close(self, closings: Sequence[Closing]) -> list[Closed]:
        """For each what came of it; a few hundred at the most."""
        args: list[Any] = []
        for each in closings:
            args += close_args(each.claim, each.state, each.attempt, each.due_in, each.result)
        return [Closed(answer) for answer in self._call("close", *args)]
