"""Which server is asked: the next of a job's URLs, what it may be sent, and the slot of its host.

The next URL is a pure function of the attempts so far, so a new holder goes on from there. Some failures are the
server's, and another server may do better; a URL that failed for good is not asked again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from http import HTTPStatus

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from download.addresses import Target
from download.errors import LONGEST_PAUSE, BadUrlError, DownloadError, ServerError, transient
from download.fetch import fit_for
from ledger.host_limits import Admission
from ledger.jobs import FailureKind, Job
from ledger.messages import Publisher, envelopes_of
from ledger.redis_client import PerProcess
from ledger.settings import get_settings
from worker.claim import ClaimedJob
from worker.process import this_worker

log = logging.getLogger("downpour.worker")

_publisher = PerProcess(lambda: Publisher(get_settings()))
_sending = threading.Lock()

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


class HostSlot:
    """A claimed job's slot at the host of its URL; without limits per host no call is made."""

    def __init__(self, job: ClaimedJob) -> None:
        self._job = job
        self._limits = this_worker.host_limits()
        self._host: str | None = None  # that was asked

    def acquire(self, url: str) -> bool:
        """Whether the job may begin with this URL. If not, it waits in the ledger and is no longer ours.

        Raises:
            LeaseLostError: another worker holds the job.
        """
        if not self._limits.on:
            return True
        try:
            host = self._host = Target.parse(url).host
        except BadUrlError:  # costs no host anything
            return True
        job = self._job
        admission = job.insist(lambda: self._limits.acquire(job.claim, host))
        job.must_hold(admission is not Admission.VOID)
        job.closed = admission is Admission.PARKED
        return not job.closed

    def failed(self, error: DownloadError, *, again: bool) -> float:
        """Pass on a Retry-After to the host's other jobs.

        Args:
            again: this process tries again itself.

        Returns:
            Seconds until the host may be asked again.
        """
        one = error.status == HTTPStatus.ACCEPTED  # it speaks of its file alone
        asked = error.retry_after if isinstance(error, ServerError) and not one else None
        cool_down = min(LONGEST_PAUSE, asked or 0.0)
        if self._host is None or not (cool_down or again):
            return 0.0
        try:
            return self._limits.cool(self._host, cool_down)
        except RedisError as away:
            log.warning("host=%s its Retry-After was not passed on: %s", self._host, away)
            return cool_down

    def wake_next(self) -> None:
        """After the record was closed: send the jobs that get the slot. What goes wrong, the sweep repairs."""
        if self._host is None or not self._job.awaited:
            return
        try:
            woken = self._limits.wake(self._host)
            if not woken:
                return
            messages = envelopes_of(this_worker.ledger(), dict(woken))
            with _sending:
                _publisher().send(messages)
        except (RedisError, KombuError, OSError) as error:
            log.warning("host=%s the next job was not woken: %s", self._host, error)
