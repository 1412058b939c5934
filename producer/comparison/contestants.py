"""Who is compared: what ``--pools`` says.

``prefork,threads``        pools as the running stack has them
``threads:8,threads:100``  a worker of ours for each, with so many slots
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.jobs import Pool
from producer.comparison.experiment import Contestant

MOST_SLOTS = {Pool.PREFORK: 64, Pool.THREADS: 1000, Pool.GEVENT: 5000}
SERIAL = "serial"


@dataclass(frozen=True, slots=True)
class Spec:
    pool: Pool
    slots: int | None = None  # None: of the running stack

    @property
    def name(self) -> str:
        return self.pool.value if self.slots is None else f"{self.pool}:{self.slots}"


def parse(text: str) -> tuple[Spec, ...]:
    """
    Raises:
        ValueError: what was expected, and what we got.
    """
    specs = tuple(_parse(name.strip()) for name in text.split(","))
    if len(set(specs)) < len(specs):
        raise ValueError(f"expected each pool once, or once with each number of slots, got {text!r}")
    if len({each.slots is None for each in specs}) > 1:
        raise ValueError(
            f"expected slots for every pool (workers of our own) or for none (the running stack), got {text!r}"
        )
    return specs


def _parse(name: str) -> Spec:
    pool_name, colon, slots = name.partition(":")
    try:
        pool = Pool(pool_name)
    except ValueError:
        raise ValueError(f"expected names out of {', '.join(Pool)}, each with :SLOTS or none, got {name!r}") from None
    if not colon:
        return Spec(pool)
    most = MOST_SLOTS[pool]
    if not (slots.isascii() and slots.isdigit() and 1 <= int(slots) <= most):
        raise ValueError(f"expected {pool}:SLOTS with 1 to {most} slots, got {name!r}")
    return Spec(pool, int(slots))


def command(pool: Pool, slots: int | None) -> str:
    return f"celery -A worker.app worker -P {pool} -Q {pool.queue} -n {pool}@%h -c {slots or 2} -E"


def contestants(specs: Sequence[Spec], *, serial: bool) -> tuple[Contestant, ...]:
    """In the order given; the yardstick last, on the first one's pool."""
    found = [
        Contestant(each.name, each.pool, each.slots, command=command(each.pool, each.slots) if each.slots else None)
        for each in specs
    ]
    if serial and specs:
        first = specs[0]
        started = command(first.pool, 1) if first.slots else None
        found.append(Contestant(SERIAL, first.pool, 1, serial=True, command=started))
    return tuple(found)
