"""The deployments that are compared, as ``--pools`` names them.

``prefork,threads``        pools as the running stack has them
``threads:8,threads:100``  a worker of ours for each, with this concurrency
``prefork:4+workers=2``    two workers of ours, each with this concurrency
``prefork:4+prefetch=4``   it takes four messages ahead per job at once, instead of one
``prefork:4+events=off``   no event is sent for a job, as without ``-E``

Options may be combined. A name has them in this order, so that a deployment has one name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poolbench.experiment import PLAIN, Deployment, PoolKind, Setup

MOST_CONCURRENCY = {PoolKind.PREFORK: 64, PoolKind.THREADS: 1000, PoolKind.GEVENT: 5000}  # of all workers together
_SPEC = re.compile(rf"(?P<pool>{'|'.join(PoolKind)})(?::(?P<concurrency>\d+)(?P<options>(?:\+\w+=\w+)*))?", re.ASCII)
_OPTIONS = "workers=2 to 16, prefetch=1 to 1000, events=off"
_VALUES = {"workers": set(map(str, range(2, 17))), "prefetch": set(map(str, range(1, 1001))), "events": {"off"}}


Start = Callable[[PoolKind, int | None, Setup], str]  # the command that starts such workers


@dataclass(frozen=True, slots=True)
class Spec:
    pool: PoolKind
    concurrency: int | None = None  # of each worker; None: of the running stack
    setup: Setup = PLAIN

    @property
    def name(self) -> str:
        return self.pool.value if self.concurrency is None else f"{self.pool}:{self.concurrency}{self.setup}"

    @property
    def possible(self) -> bool:
        return 1 <= (self.concurrency or 0) * self.setup.workers <= MOST_CONCURRENCY[self.pool]


def parse(text: str) -> tuple[Spec, ...]:
    """
    Raises:
        ValueError: what was expected, and what we got.
    """
    specs = tuple(_parse(name.strip()) for name in text.split(","))
    if len(set(specs)) < len(specs):
        raise ValueError(f"expected each pool once, or once with each concurrency and set of options, got {text!r}")
    if len({each.concurrency is None for each in specs}) > 1:
        raise ValueError(
            f"expected a concurrency for every pool (workers of our own) or for none (the running stack), got {text!r}"
        )
    return specs


def _parse(text: str) -> Spec:
    found = _SPEC.fullmatch(text)
    if not found:
        raise ValueError(
            f"expected {', '.join(PoolKind)} alone (the running stack's workers) or with :CONCURRENCY and then"
            f" +OPTION=VALUE (workers of our own), got {text!r}"
        )
    pool, concurrency = PoolKind(found["pool"]), found["concurrency"]
    if concurrency is None:
        return Spec(pool)
    options = dict(option.split("=") for option in found["options"].split("+")[1:])
    wrong = [f"{key}={value}" for key, value in options.items() if value not in _VALUES.get(key, ())]
    if wrong or len(options) < found["options"].count("+"):
        raise ValueError(f"expected options out of {_OPTIONS}, each once, got {text!r}")
    setup = Setup(
        int(options.get("workers", 1)),
        int(options["prefetch"]) if "prefetch" in options else None,
        "events" not in options,
    )
    spec, most = Spec(pool, int(concurrency), setup), MOST_CONCURRENCY[pool]
    if not spec.possible:
        raise ValueError(f"expected {pool} to have a concurrency of 1 to {most}, over all workers, got {text!r}")
    return spec


def node_names(pool: PoolKind, workers: int) -> list[str]:
    """Of a deployment's workers: ``threads`` if it is alone, otherwise ``threads-1``, ``threads-2``."""
    return [f"{pool}-{number}" for number in range(1, workers + 1)] if workers > 1 else [pool.value]


def words(setup: Setup, *, events: bool = True) -> str:
    """What a worker's command line has more, or ``-E``; nothing of events if they are left to the app."""
    prefetch = "" if setup.prefetch is None else f" --prefetch-multiplier {setup.prefetch}"
    return prefetch + ("" if not events else " -E" if setup.events else " worker_send_task_events=off")


def command(
    app: str, queue: str, pool: PoolKind, concurrency: int | None, setup: Setup = PLAIN, *, events: bool = True
) -> str:
    """For a shell: starts workers of a Celery app, with this concurrency each; None: as many as Celery takes."""
    several = setup.workers > 1
    node, many = f"{pool}-$n" if several else pool, f" -c {concurrency}" if concurrency else ""
    one = f"celery -A {app} worker -P {pool} -Q {queue} -n {node}@%h{many}{words(setup, events=events)}"
    return f"for n in $(seq {setup.workers}); do {one} & done; wait" if several else one


def deployments(specs: Sequence[Spec], start: Start, *, serial: bool) -> tuple[Deployment, ...]:
    """In the order given; the baseline last, on the first one's pool."""
    found = [
        Deployment(
            name=each.name,
            pool=each.pool,
            concurrency=None if each.concurrency is None else each.concurrency * each.setup.workers,
            command=start(each.pool, each.concurrency, each.setup),
            setup=each.setup,
            running=each.concurrency is None,
        )
        for each in specs
    ]
    for first in found[: 1 if serial else 0]:
        started = start(first.pool, None if first.running else 1, PLAIN)
        found.append(Deployment("serial", first.pool, 1, serial=True, command=started, running=first.running))
    return tuple(found)
