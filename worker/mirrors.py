"""Which of a job's URLs is next: a pure function of the attempts so far, so a new holder goes on from there.

Some failures are the server's, and another server may do better; a URL that failed for good is not asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from download.addresses import Target
from download.errors import BadUrlError, transient
from download.fetch import fit_for
from ledger.jobs import FailureKind, Job

# Ours, or the job's: no other server would do better.
_OURS = frozenset(
    {
        FailureKind.DISK_FULL, FailureKind.DISK, FailureKind.NAME, FailureKind.TOO_LARGE, FailureKind.DEADLINE,
        FailureKind.LOST, FailureKind.MACHINE, FailureKind.POISON, FailureKind.STEP, FailureKind.INTERNAL,
    }
)  # fmt: skip


class Route:
    def __init__(self, urls: Sequence[str], kinds: Iterable[FailureKind | None] = ()) -> None:
        """
        Args:
            kinds: how the attempts so far ended; None for one that nothing was wrong with.
        """
        self._urls = urls
        self._dead: set[int] = set()
        self._at = 0
        for kind in kinds:
            self.failed(kind)

    @property
    def url(self) -> str:
        return self._urls[self._at]

    def failed(self, kind: FailureKind | None) -> bool:
        """Go on after an attempt; whether to another URL that has its turn at once.

        Once all of them have had it, the first that is left follows the last, after a pause.
        """
        if kind is None or kind in _OURS:
            return False
        if not transient(kind):
            self._dead.add(self._at)
        left = [at for at in range(len(self._urls)) if at not in self._dead]
        later = [at for at in left if at > self._at]
        self._at = next(iter(later or left), self._at)
        return bool(later)

    def may_go_on_after(self, kind: FailureKind) -> bool:
        """Whether a URL is left that may do better."""
        return kind not in _OURS and len(self._dead) < len(self._urls)


def headers_for(job: Job, url: str) -> dict[str, str]:
    """What to send to one of the job's URLs: what is meant for the first one's origin is not shown to another."""
    headers = dict(job.headers)
    if not headers or url == job.url:
        return headers
    try:
        return fit_for(Target.parse(url), Target.parse(job.url), headers)
    except BadUrlError:
        return {}
