"""Rows: processes that are replaced, and pools that change their size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from ledger.jobs import JobState, Pool
from tests.matrix.downpour import Downpour
from tests.matrix.outcomes import Outcome, error
from tests.matrix.row import Row
from tests.matrix.stock import Stock, System
from tests.matrix.times import BODY, LIMIT, PATIENCE, UPKEEP
from tests.waiting import wait_for
from tests.world import World

THREE = ("one", "two", "three")


def recycling(*options: str) -> tuple[Callable[[Stock], str], Callable[[Downpour], str]]:
    def stock_cell(stock: Stock) -> str:
        worker = stock.launch(*options)
        if not worker.ready_or_gone():
            return Outcome.CRASHES
        for name in THREE:
            stock.send("note", name, 0.0)
            if stock.ended(name) != "end":
                return Outcome.CRASHES
        return _replaced([stock.begun(name).pid for name in THREE])

    def downpour_cell(downpour: Downpour) -> str:
        world = downpour.world()
        world.start()
        worker = downpour.launch(world, "-c", "1", *options)
        if not worker.ready_or_gone():
            return Outcome.CRASHES
        world.submit(downpour.pool, [world.file(name) for name in THREE])
        records = world.finished(seconds=PATIENCE)
        world.check_files(records)
        seen = _replaced([each.last.executor.pid for each in records if each.last and each.last.executor])
        said = f"{options[0]} does nothing with -P {downpour.pool}" in worker.text()
        return Outcome.WARNED if said and seen == Outcome.IGNORED else seen

    return stock_cell, downpour_cell


def _replaced(pids: Sequence[int]) -> str:
    assert len(set(pids)) in (1, len(THREE)), f"expected one process, or one per job; got {pids}"
    return Outcome.WORKS if len(set(pids)) == len(THREE) else Outcome.IGNORED


def autoscale(stock: Stock) -> str:
    worker = stock.launch("--autoscale=3,1")
    if not worker.ready_or_gone():
        return Outcome.CRASHES
    if _three_at_once(stock):
        return Outcome.WORKS
    return Outcome.IGNORED if stock.serves(worker) else Outcome.CRASHES


def downpour_autoscale(downpour: Downpour) -> str:
    world = downpour.world()
    worker = downpour.launch(world, "--autoscale=3,1")
    if not worker.ready_or_gone():
        return Outcome.REFUSED if "worker: --autoscale: expected" in worker.text() else Outcome.CRASHES
    if _three_downloads_at_once(world, downpour.pool):
        return Outcome.WORKS
    wait_for(lambda: world.batch().finished or not worker.running, seconds=PATIENCE, what="the worker's fate")
    return Outcome.IGNORED if worker.running else Outcome.CRASHES


def _three_at_once(stock: Stock) -> bool:
    for name in THREE:
        stock.send("note", name, BODY)
    wait_for(
        lambda: stock.most_at_once(*THREE) == len(THREE) or stock.count("end", THREE[0]),
        seconds=PATIENCE,
        what="three bodies at once, or the end of the first",
    )
    return stock.most_at_once(*THREE) == len(THREE)


def _three_downloads_at_once(world: World, pool: Pool) -> bool:
    world.submit(pool, [world.paced(name, BODY) for name in THREE])
    wait_for(
        lambda: len(world.ledger.running("b")) == len(THREE) or world.batch().count(JobState.DONE),
        seconds=PATIENCE,
        what="three downloads at once, or the end of one",
    )
    return len(world.ledger.running("b")) == len(THREE)


def _grow_and_shrink(system: System, three_at_once: Callable[[], bool], one_by_one: Callable[[], bool]) -> str:
    """By two slots each. The first look ends with its jobs; the second one is at two more."""
    if not (answer := system.ask("pool_grow", n=2)):
        return Outcome.NO_ANSWER
    if refusal := answer.get("error"):
        return error(refusal.partition("(")[0])
    with suppress(AssertionError):  # the time to grow; whether it did is for the jobs to say
        wait_for(lambda: system.ask("stats")["pool"]["max-concurrency"] == len(THREE), seconds=UPKEEP, every=0.3)
    if not three_at_once():
        return Outcome.IGNORED
    if refusal := system.ask("pool_shrink", n=2).get("error"):
        return error(refusal.partition("(")[0])
    return Outcome.WORKS if one_by_one() else Outcome.IGNORED


def grow_and_shrink(stock: Stock) -> str:
    stock.start()

    def three_at_once() -> bool:
        return _three_at_once(stock) and all(stock.ended(name) for name in THREE)

    def one_by_one() -> bool:
        for name in ("four", "five"):
            stock.send("note", name, LIMIT)
        return all(stock.ended(name) for name in ("four", "five")) and stock.most_at_once("four", "five") == 1

    return _grow_and_shrink(stock, three_at_once, one_by_one)


def downpour_grow(downpour: Downpour) -> str:
    world = downpour.world()
    world.start(downpour.pool, slots=1)
    downpour.hears()

    def three_at_once() -> bool:
        return _three_downloads_at_once(world, downpour.pool) and bool(world.finished(seconds=PATIENCE))

    def one_by_one() -> bool:
        world.submit(downpour.pool, [world.paced(name, LIMIT) for name in ("four", "five")], batch="after")
        times = [(each.last.started, each.last.finished) for each in world.finished("after") if each.last]
        (_, first_end), (second_start, _) = sorted(times)
        return second_start >= first_end

    return _grow_and_shrink(downpour, three_at_once, one_by_one)


ROWS = (
    Row(
        "max-tasks-per-child",
        "Recycling: `--max-tasks-per-child`",
        *recycling("--max-tasks-per-child", "1"),
        "`--max-tasks-per-child 1` and three jobs one after the other: three pids, or one. The same in Downpour.",
        "Only processes can be replaced. A leak in a threads or gevent worker ends with the worker: "
        "restart those from outside. In Downpour that costs nothing, see the rows about stopping.",
    ),
    Row(
        "max-memory-per-child",
        "Recycling: `--max-memory-per-child`",
        *recycling("--max-memory-per-child", "1000"),
        "`--max-memory-per-child 1000` (KiB, less than any process has) and three jobs: three pids, or one.",
        "As above.",
    ),
    Row(
        "autoscale",
        "`--autoscale`",
        autoscale,
        downpour_autoscale,
        f"`--autoscale=3,1` and three jobs of {BODY:g} s: do they ever run at the same time? The same in Downpour.",
        "A threads worker with this option ends as soon as it should grow: at its second job. So Downpour does not "
        "start one. Its deployments give each pool a fixed size.",
    ),
    Row(
        "grow-shrink",
        "Grow and shrink a pool",
        grow_and_shrink,
        downpour_grow,
        f"One slot; `pool_grow(2)`, and {UPKEEP:g} s for it; then three jobs at once; `pool_shrink(2)`, then two jobs "
        "one after the other. The same in Downpour.",
        "Flower's *Grow* and *Shrink* are these calls. A threads worker keeps the size it was started with, and "
        "prefork needs up to 5 s to grow.",
    ),
)
