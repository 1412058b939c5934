"""Command lines that would run and lie: refused before anything is begun, or doubted in the log."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ledger.jobs import Pool
from ledger.settings import Settings
from tests.worker_process import ROOT, environment_of
from worker.pools import CommandLine, DeploymentError


def line(pool: Pool, **given: object) -> CommandLine:
    return CommandLine(pool, frozenset({pool.queue}), **given)  # type: ignore[arg-type]


def refused(settings: Settings, words: str) -> str:
    """What a worker says that does not start."""
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker", *words.split()],
        cwd=ROOT,
        env=environment_of(settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2, ended.stderr[-2000:]
    return ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-P threads -Q downloads.threads --autoscale=3,1", "--autoscale: expected -P prefork or -P gevent; got thr"),
        ("-P threads -Q downloads.gevent", "-Q: a threads worker serves downloads.threads; got downloads.gevent"),
        ("-Pgevent -Q downloads.gevent", "-P gevent: expected monkey-patched sockets"),
        ("-P solo -Q downloads.threads", "-P: expected prefork, threads, gevent; got celery.concurrency.solo"),
        ("-P prefork -Q downloads.prefork --pool-start-method spawn", "--pool-start-method: expected fork; got spawn"),
    ],
)
def test_a_worker_that_could_not_do_what_it_is_told_does_not_start(settings: Settings, words: str, said: str) -> None:
    assert f"worker: {said}" in refused(settings, words)


def test_prefork_and_gevent_may_grow() -> None:
    line(Pool.PREFORK, autoscale=True).check()
    with pytest.raises(DeploymentError, match="monkey-patched"):  # which is all that gevent lacks here
        line(Pool.GEVENT, autoscale=True).check()


HARD, SOFT = "--time-limit cuts a job short", "--soft-time-limit does nothing with -P gevent; DOWNPOUR_DEADLINE"
NO_USE = ("time_limit", "soft_time_limit", "max_tasks_per_child", "max_memory_per_child")


@pytest.mark.parametrize(
    ("pool", "given", "doubts"),
    [
        *((Pool.THREADS, {each: 5}, [f"--{each.replace('_', '-')} does nothing with -P threads"]) for each in NO_USE),
        (Pool.GEVENT, {"time_limit": 5.0, "soft_time_limit": 4.0}, [HARD, SOFT]),
        (Pool.PREFORK, {"max_tasks_per_child": 10, "max_memory_per_child": 100_000}, []),
        *((pool, {}, []) for pool in Pool),
    ],
)
def test_an_option_that_does_nothing_or_harm_is_doubted_in_one_line(
    pool: Pool, given: dict[str, object], doubts: list[str]
) -> None:
    said = line(pool, **given).doubts()
    assert [doubt[: len(expected)] for doubt, expected in zip(said, doubts, strict=True)] == doubts
