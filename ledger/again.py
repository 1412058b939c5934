"""Jobs that have ended get another chance, in place: same id, same record, same name of the file."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.jobs import FINAL_STATES, FailureKind, JobState, Pool, Ref
from ledger.ledger import Ledger
from ledger.records import STATE_LETTERS


class UnknownJobsError(Exception):
    """There is no such batch (any more), or it is being removed."""


class Again:
    def __init__(self, ledger: Ledger) -> None:
        self._call = ledger.call

    def resubmit(
        self, ref: Ref, states: Sequence[JobState], kinds: Sequence[FailureKind] = ()
    ) -> list[tuple[str, Pool]]:
        """Queue those of a run of jobs, a few hundred at the most, that ended in one of these states.

        Args:
            kinds: of failures; none: all of them.

        Returns:
            Their ids and pools. A message is to be sent for each; if the caller dies before, the sweep sends it.

        Raises:
            UnknownJobsError: the batch does not exist.
        """
        letters = "".join(STATE_LETTERS[state] for state in states if state in FINAL_STATES)
        answer = self._call("retry", ref.batch, ref.first, ref.last, letters, *kinds)
        if answer[:1] == [-1]:
            raise UnknownJobsError(ref.batch)
        return [(id_, Pool(pool)) for id_, pool in zip(answer[::2], answer[1::2], strict=True)]
