"""A job and the host it wants: asks before it begins, passes on the host's wish for quiet, says who is next."""

from __future__ import annotations

import logging
import threading

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from download.addresses import Target
from download.errors import BadUrlError, DownloadError, ServerError
from ledger.host_limits import HostLimits
from ledger.messages import Envelope, Publisher, label
from ledger.redis_client import PerProcess
from ledger.settings import get_settings
from worker.hold import Hold
from worker.process import this_worker

log = logging.getLogger("downpour.worker")

_publisher = PerProcess(lambda: Publisher(get_settings()))
_sending = threading.Lock()


class Courtesy:
    """Asks nobody while there are no limits."""

    def __init__(self, hold: Hold, cap: float) -> None:
        """
        Args:
            cap: seconds; the longest quiet that a host is granted.
        """
        self._hold = hold
        self._cap = cap
        self._host_limits: HostLimits = this_worker.host_limits()
        self._host: str | None = None  # None: nobody was asked

    def admitted(self, url: str) -> bool:
        """Whether the job may begin with this URL. If not, it waits in the ledger and is no longer ours.

        Raises:
            LeaseLostError: another worker holds the job.
        """
        if not self._host_limits.on:
            return True
        try:
            self._host = Target.parse(url).host
        except BadUrlError:  # costs no host anything
            return True
        return self._hold.acquire(self._host_limits, self._host)

    def failed(self, error: DownloadError, *, again: bool) -> float:
        """Tell the others what the host said.

        Args:
            again: this holder tries again itself.

        Returns:
            Seconds until the host may be asked again.
        """
        quiet = min(self._cap, error.retry_after or 0.0) if isinstance(error, ServerError) else 0.0
        if self._host is None or not (quiet or again):
            return 0.0
        try:
            return self._host_limits.cool(self._host, quiet)
        except RedisError as away:
            log.warning("host=%s its wish for quiet was not passed on: %s", self._host, away)
            return quiet

    def leave(self) -> None:
        """After the record was closed: whoever waited for our slot is woken. What goes wrong, the sweep repairs."""
        if self._host is None or not self._hold.awaited:
            return
        try:
            woken = self._host_limits.wake(self._host)
            if not woken:
                return
            records = {record.id: record for record in this_worker.ledger().read(id_ for id_, _ in woken)}
            with _sending:
                _publisher().send(Envelope(id_, pool, label(records[id_].job)) for id_, pool in woken if id_ in records)
        except (RedisError, KombuError, OSError) as error:
            log.warning("host=%s the next was not woken: %s", self._host, error)
