"""A prefork child that died is told to the ledger at once, by the one who knows: its parent, which has waited for it.

The sweep takes its jobs over in its next round then, and not seconds later, when its lease expires. A child is told by
its process id together with a name that the parent made up before it forked, so no other process is ever meant. What
cannot be told (Redis is away, the parent died too) is left to the lease.
Kept true by ``tests/fault/test_killed_workers.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ledger.leases import End
from ledger.redis_client import PerProcess
from ledger.settings import Settings
from worker import drain
from worker.background import keep
from worker.incarnation import leases_of

log = logging.getLogger("downpour.worker")


def keep_watching_children(settings: Settings, family: str, pids: Callable[[], Iterable[int]]) -> None:
    """For as long as the process lives.

    Args:
        family: of the children's incarnations.
        pids: of the children that have not been waited for.
    """

    leases = PerProcess(lambda: leases_of(settings))
    known: set[int] = set()
    gone: set[int] = set()

    def look() -> None:
        nonlocal known, gone
        alive = set(pids())
        gone = (gone | known) - alive
        known = alive
        if not gone:
            return
        ended = leases().end_children(family, gone, End.ENDED if drain.draining() else End.DIED)
        gone = set()
        if ended and drain.draining():
            log.info("children ended: incarnations=%s", ",".join(ended))
        elif ended:
            log.warning("children died, their jobs go back: incarnations=%s", ",".join(ended))

    keep("children", settings.renew_every, look)
