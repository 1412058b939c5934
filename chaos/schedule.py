"""What goes wrong, in which order, to whom: a deck of faults, shuffled by the seed.

The order and the victims follow from the seed. The moments do not: the deck is spread over the load, and how long the
load takes is the machine's affair. A victim that is just starting is spared for its sibling.
"""

from __future__ import annotations

import random
from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum

from ledger.jobs import Pool


class Kind(StrEnum):
    """A fault. Those down to PRODUCER kill something with SIGKILL."""

    WORKER = "worker killed"  # SIGKILL to a worker and its children at once, as when a container is killed
    CHILD = "child killed"  # SIGKILL to one prefork child
    MAIN = "main process killed"  # SIGKILL to the main process of prefork, not to its children
    CUT_SHORT = "stopped, then killed"  # SIGTERM, and SIGKILL to all of it after 2 s
    TWO = "two workers killed"  # both workers of a pool at once, so that no replacement runs
    SWEEP = "sweep killed"
    REDIS = "Redis killed"  # and started again at once
    PRODUCER = "producer killed"  # in the middle of a submission; then the same command again
    FROZEN = "worker frozen"  # SIGSTOP for longer than the lease, then SIGCONT
    STOPPED = "worker stopped"  # SIGTERM, and as long as it needs
    REFUSED = "writes refused"  # Redis wants a replica that is not there, for some seconds
    MALFORMED = "malformed messages"  # in front of the messages on a pool's queue
    REMOVED = "temp files removed"  # of all jobs that run
    DISK = "disk full"  # under the downloads, for some seconds
    POISON = "killed by a job"  # one process after the other, whenever it runs that job, until the job has its end


SHARES = {  # per hundred kills; those that are no kills come on top of them
    Kind.WORKER: 34,
    Kind.CHILD: 16,
    Kind.MAIN: 10,
    Kind.CUT_SHORT: 12,
    Kind.TWO: 10,
    Kind.SWEEP: 6,
    Kind.REDIS: 4,
    Kind.PRODUCER: 8,
    Kind.FROZEN: 10,
    Kind.STOPPED: 8,
    Kind.REFUSED: 3,
    Kind.MALFORMED: 6,
    Kind.REMOVED: 6,
    Kind.DISK: 3,
    Kind.POISON: 2,
}
STRANGE = frozenset({Kind.REFUSED, Kind.MALFORMED, Kind.REMOVED, Kind.DISK, Kind.POISON})  # a stock app is spared
KILLS = frozenset(Kind) - STRANGE - {Kind.FROZEN, Kind.STOPPED}
_SECONDS = {Kind.FROZEN: (2.0, 4.0), Kind.REFUSED: (3.0, 6.0), Kind.DISK: (5.0, 10.0)}  # a lease is added to FROZEN
_PREFORK_ONLY = frozenset({Kind.CHILD, Kind.MAIN})


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    pool: Pool  # whose worker; for the sweep, Redis and the disk it means nothing
    first: int  # which of the pool's workers is asked first, from 0
    seconds: float  # that it lasts; a producer lives for that long after its first job was accepted
    share: float  # of the average pause, before it


def deck(seed: int, kills: int, *, lease: float, without: Set[Kind] = frozenset()) -> list[Fault]:
    """The faults in their order: ``kills`` that kill, and their share of the others, each at least once."""
    dice = random.Random(f"faults/{seed}")
    kinds = _dealt(kills, [kind for kind in SHARES if kind in KILLS])
    others = [kind for kind in SHARES if kind not in KILLS | without]
    kinds += [kind for kind in others for _ in range(max(1, round(kills * SHARES[kind] / 100)))]
    pools: dict[Kind, int] = {}
    faults = []
    for kind in kinds:
        turn = pools[kind] = pools.get(kind, dice.randrange(3)) + 1  # each pool as often as the others
        pool = Pool.PREFORK if kind in _PREFORK_ONLY else list(Pool)[turn % 3]
        seconds = dice.uniform(*_SECONDS.get(kind, (0, 0.15))) + (lease if kind is Kind.FROZEN else 0)
        faults.append(Fault(kind, pool, dice.randrange(2), seconds, dice.uniform(0.5, 1.5)))
    dice.shuffle(faults)
    # A job that kills needs a minute to its end: the first comes first, the others evenly after it.
    slow = [fault for fault in faults if fault.kind is Kind.POISON]
    ordered = [fault for fault in faults if fault.kind is not Kind.POISON]
    for number, fault in enumerate(slow):
        ordered.insert(number * len(faults) // len(slow), fault)
    return ordered


def _dealt(count: int, kinds: list[Kind]) -> list[Kind]:
    """Shares of ``count``, by largest remainder."""
    exact = {kind: count * SHARES[kind] / 100 for kind in kinds}
    dealt = {kind: int(exact[kind]) for kind in kinds}
    by_remainder = sorted(kinds, key=lambda kind: dealt[kind] - exact[kind])
    for kind in by_remainder[: count - sum(dealt.values())]:
        dealt[kind] += 1
    return [kind for kind in kinds for _ in range(dealt[kind])]
