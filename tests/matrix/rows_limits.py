"""Rows: time limits."""

from __future__ import annotations

from collections.abc import Callable

from download.tempfile import FOLDER
from ledger.jobs import FailureKind, Job, JobState
from tests.matrix.downpour import Downpour, closed
from tests.matrix.outcomes import Outcome, error
from tests.matrix.row import Row, columns
from tests.matrix.stock import Stock
from tests.matrix.times import BODY, LIMIT, LONG


def soft(stock: Stock) -> str:
    stock.start()
    stock.send("sleep", "job", BODY, soft_time_limit=LIMIT)
    how = stock.ended("job")
    return {"SoftTimeLimitExceeded": Outcome.WORKS, "end": Outcome.IGNORED}.get(how) or error(how)


def hard(task: str) -> Callable[[Stock], str]:
    def run(stock: Stock) -> str:
        worker = stock.start(result_backend=stock.results)
        stock.send(task, "job", BODY, time_limit=LIMIT)
        ended, called = stock.ended("job"), stock.state("job")
        if not stock.serves(worker):
            return Outcome.CRASHES
        if ended == "end":
            return Outcome.IGNORED if called == "SUCCESS" else Outcome.FINISHES_ANYWAY
        return Outcome.WORKS if called == "FAILURE" else error(called)

    return run


def deadline(path: str) -> Callable[[Downpour], str]:
    def run(downpour: Downpour) -> str:
        world = downpour.world(deadline=LIMIT)
        world.start(downpour.pool)
        world.submit(downpour.pool, [Job(f"{world.origin.url}{path}", "job")])
        record = closed(world)
        assert record.last is not None
        in_time = record.last.finished - record.last.started < LIMIT + BODY
        stopped = (record.state, record.last.kind) == (JobState.FAILED, FailureKind.DEADLINE)
        published = [path for path in world.files() if FOLDER not in path.parts]
        return Outcome.WORKS if stopped and in_time and not published else error(str(record.last.kind))

    return run


ROWS = (
    Row(
        "soft-time-limit",
        "Soft time limit",
        soft,
        deadline(f"/paced/{LONG}/job?size=100000"),
        f"A body that sleeps {BODY:g} s is sent with `soft_time_limit={LIMIT:g}`; it writes down what it was ended "
        f"with. Downpour: `DOWNPOUR_DEADLINE={LIMIT:g}` and a file that takes {LONG:g} s.",
        "A soft limit protects jobs of prefork and of nothing else; threads and gevent accept it and say nothing. "
        "In Downpour the job itself checks its deadline, between two pieces of the file, so every pool keeps it. "
        "The record says `deadline`, and what was received waits for a retry.",
    ),
    Row(
        "hard-time-limit",
        "Hard time limit",
        hard("sleep"),
        deadline("/faults/stall?name=job&after=1000&size=100000"),
        f"The same body with `time_limit={LIMIT:g}`; seen are its marks, its process and its result. "
        f"Downpour: `DOWNPOUR_DEADLINE={LIMIT:g}` and a server that sends 1,000 bytes and then nothing.",
        "On threads a hung job keeps its slot for ever, whatever limit it has. Downpour cuts each wait on the network "
        "into slices, so a server that says nothing cannot outlast the deadline either.",
    ),
    Row(
        "hard-time-limit-cpu",
        "Hard time limit of a body that computes",
        hard("burn"),
        None,
        f"A body that computes for {BODY:g} s without a pause, with `time_limit={LIMIT:g}`.",
        "A greenlet can only be ended where it waits: gevent calls such a job a failure after it has run to its end.",
        absent=dict.fromkeys(columns("Downpour"), "a download waits; it never computes for long"),
    ),
)
