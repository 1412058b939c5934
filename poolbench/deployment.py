"""The deployments that are compared, as ``--pools`` names them.

``prefork,threads``        pools as the running stack has them
``threads:8,threads:100``  a worker of ours for each, with this concurrency
``prefork:4+workers=2``    two workers of ours, each with this concurrency
``prefork:4+prefetch=4``   it takes four messages ahead per job at once, instead of one
``prefork:4+events=off``   no event is sent for a job, as without ``-E``

Options may be combined. A name has them in this order, so that a deployment has one name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poolbench.experiment import PLAIN, Deployment, PoolKind, Setup

MOST_CONCURRENCY = {PoolKind.PREFORK: 64, PoolKind.THREADS: 1000, PoolKind.GEVENT: 5000}  # of all workers together
SERIAL = "serial"
_RANGES = {"workers": range(2, 17), "prefetch": range(1, 1001)}
_OPTIONS = ", ".join([*(f"{key}={values[0]} to {values[-1]}" for key, values in _RANGES.items()), "events=off"])


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
        return (self.concurrency or 0) * self.setup.workers <= MOST_CONCURRENCY[self.pool]


def parse(text: str) -> tuple[Spec, ...]:
    """
    Raises:
        ValueError: what was expected, and what we got.
    """
    specs = tuple(_parse(name.strip()) for name in text.split(","))
    if len(set(specs)) < len(specs):
        raise ValueError(
            f"expected each pool once, or once with each concurrency and each set of options, got {text!r}"
        )
    if len({each.concurrency is None for each in specs}) > 1:
        raise ValueError(
            f"expected a concurrency for every pool (workers of our own) or for none (the running stack), got {text!r}"
        )
    return specs


def _parse(text: str) -> Spec:
    name, *options = text.split("+")
    pool_name, colon, concurrency = name.partition(":")
    if pool_name not in set(PoolKind):
        raise ValueError(f"expected names out of {', '.join(PoolKind)}, each with :CONCURRENCY or none, got {text!r}")
    pool = PoolKind(pool_name)
    if not colon and options:
        raise ValueError(
            f"expected {pool}:CONCURRENCY before +{options[0]}, got {text!r}: only workers of our own can have options,"
            " those of the running stack are as they are"
        )
    if not colon:
        return Spec(pool)
    most = MOST_CONCURRENCY[pool]
    if not 1 <= _number(concurrency) <= most:
        raise ValueError(f"expected {pool}:CONCURRENCY with 1 to {most}, got {text!r}")
    spec = Spec(pool, int(concurrency), _setup(options, text))
    if not spec.possible:
        raise ValueError(
            f"expected {pool} to have a concurrency of at most {most} in all, got {spec.setup.workers} × {concurrency}"
            f" from {text!r}"
        )
    return spec


def _setup(options: Sequence[str], text: str) -> Setup:
    found = dict(option.partition("=")[::2] for option in options)
    if len(found) < len(options):
        raise ValueError(f"expected each option once, got {text!r}")
    for key, value in found.items():
        if _number(value) not in _RANGES.get(key, ()) and (key, value) != ("events", "off"):
            got = f"{key}={value}" if value else key
            raise ValueError(f"expected options out of {_OPTIONS}, got {got!r} in {text!r}")
    prefetch = int(found["prefetch"]) if "prefetch" in found else None
    return Setup(int(found.get("workers", 1)), prefetch, "events" not in found)


def _number(text: str) -> int:
    """-1: it is none."""
    return int(text) if text.isascii() and text.isdigit() else -1


def node_names(pool: PoolKind, workers: int) -> list[str]:
    """Of a deployment's workers: ``threads`` if it is alone, otherwise ``threads-1``, ``threads-2``."""
    return [f"{pool}-{number}" for number in range(1, workers + 1)] if workers > 1 else [pool.value]


def words(setup: Setup) -> str:
    """What a worker's command line has more, or ``-E``."""
    prefetch = "" if setup.prefetch is None else f" --prefetch-multiplier {setup.prefetch}"
    return prefetch + (" -E" if setup.events else " worker_send_task_events=off")


def command(app: str, queue: str, pool: PoolKind, concurrency: int | None, setup: Setup = PLAIN) -> str:
    """For a shell: starts workers of a Celery app, with this concurrency each; None: as many as Celery takes."""
    several = setup.workers > 1
    node, many = f"{pool}-$n" if several else pool, f" -c {concurrency}" if concurrency else ""
    one = f"celery -A {app} worker -P {pool} -Q {queue} -n {node}@%h{many}{words(setup)}"
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
        found.append(Deployment(SERIAL, first.pool, 1, serial=True, command=started, running=first.running))
    return tuple(found)
