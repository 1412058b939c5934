"""Who is compared: names, options, commands, and the order of the rounds."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections import Counter

import pytest
from honcho.environ import parse_procfile

from ledger import jobs
from ledger.jobs import check_batch_name
from ledger.switches import LiveWorker
from poolbench.deployment import Spec, parse
from poolbench.experiment import PLAIN, Setup
from poolbench.experiment import PoolKind as Pool
from poolbench.rounds import label, ordered, stamp
from producer.fleet import _with_concurrency, deployments, pool_of, worker_line
from stack.plan import ROOT


def test_pools_are_those_of_the_running_stack_or_with_slots_workers_of_our_own() -> None:
    assert parse("prefork, gevent") == (Spec(Pool.PREFORK), Spec(Pool.GEVENT))
    assert [each.name for each in parse("threads:8,threads:100")] == ["threads:8", "threads:100"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("asyncio", "prefork, threads, gevent"),
        ("threads:8,threads:8", "each pool once"),
        ("threads:8,gevent", "for every pool"),
        ("threads:x", "alone .* or with :CONCURRENCY and then .* got 'threads:x'"),
        ("prefork:65", "prefork to have a concurrency of 1 to 64, over all workers, got 'prefork:65'"),
        ("", "expected prefork, threads, gevent alone"),
        ("threads+prefetch=4", r"or with :CONCURRENCY and then \+OPTION=VALUE \(workers of our own\), got"),
        ("threads:8+prefetch=0", "prefetch=1 to 1000, events=off, each once, got 'threads:8\\+prefetch=0'"),
        ("threads:8+workers=1", "expected options out of workers=2 to 16"),
        ("threads:8+events=on", "events=off"),
        ("threads:8+autoscale", r"\+OPTION=VALUE"),
        ("threads:8+", r"\+OPTION=VALUE"),
        ("threads:8+prefetch=2+prefetch=4", "each once"),
        ("prefork:32+workers=3", "prefork to have a concurrency of 1 to 64, over all workers, got 'prefork:32"),
        ("threads:8+events=off+workers=2,threads:8+workers=2+events=off", "set of options"),
    ],
)
def test_other_pools_are_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_options_are_part_of_the_name_in_an_order_of_their_own() -> None:
    found = parse("prefork:4+workers=2,threads:8+events=off+prefetch=4,threads:8")

    assert [each.setup for each in found] == [Setup(workers=2), Setup(prefetch=4, events=False), PLAIN]
    assert [each.name for each in found] == ["prefork:4+workers=2", "threads:8+prefetch=4+events=off", "threads:8"]
    assert parse(",".join(each.name for each in found)) == found


def test_a_deployment_has_the_slots_of_all_of_its_workers_and_a_command_that_starts_them() -> None:
    several, one = deployments(parse("prefork:4+workers=2,threads:8+prefetch=4+events=off"), serial=False)

    assert (several.concurrency, several.concurrency_each) == (8, 4)
    assert several.command == (
        "for n in $(seq 2); do celery -A worker.app worker -P prefork -Q downloads.prefork -n prefork-$n@%h -c 4 -E"
        " & done; wait"
    )
    assert one.command == (
        "celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -c 8 --prefetch-multiplier 4"
        " worker_send_task_events=off"
    )


@pytest.mark.parametrize("pool", list(jobs.Pool))
def test_a_worker_without_options_is_started_as_the_procfile_does(pool: jobs.Pool) -> None:
    line = parse_procfile((ROOT / "Procfile").read_text()).processes[f"worker-{pool}"]
    assert worker_line(pool.value, pool, 7) == re.sub(r"\$\{\w+:-\d+\}", "7", line)


def test_workers_that_were_started_by_such_a_command_belong_to_their_pool() -> None:
    assert [pool_of(name) for name in ("prefork@host", "prefork-2@host-3")] == ["prefork", "prefork"]


def test_the_longest_name_leaves_room_in_the_name_of_a_batch() -> None:
    (found,) = deployments(parse("threads:1000+prefetch=1000+events=off"), serial=False)

    assert label(found, 12) == "threads-1000-12"
    check_batch_name(f"manifest-{stamp()}-1000b-{label(found, 12)}-warm")


def test_the_baseline_comes_last_with_one_slot_of_the_first_pool() -> None:
    found = deployments(parse("gevent:20,threads:2"), serial=True)

    assert [(each.name, each.pool, each.concurrency, each.serial) for each in found] == [
        ("gevent:20", Pool.GEVENT, 20, False),
        ("threads:2", Pool.THREADS, 2, False),
        ("serial", Pool.GEVENT, 1, True),
    ]


def test_over_as_many_rounds_as_deployments_each_has_every_place_once() -> None:
    found = deployments(parse("prefork:2,threads:8,gevent:20"), serial=True)

    places = Counter((each.name, place) for number in range(1, 5) for place, each in enumerate(ordered(found, number)))

    assert [each.name for each in ordered(found, 1)] == ["prefork:2", "threads:8", "gevent:20", "serial"]
    assert len(places) == 16
    assert set(places.values()) == {1}


def test_processes_that_were_killed_while_idle_are_no_concurrency() -> None:
    """The ledger takes them for alive until their lease is over."""
    with subprocess.Popen(["true"]) as ended:
        pass
    (asked, _) = deployments(parse("prefork,threads"), serial=False)
    for host, concurrency in ((socket.gethostname(), 1), ("elsewhere", 2)):
        worker = LiveWorker(
            f"prefork@{host}", jobs.Pool.PREFORK, (ended.pid, os.getpid()), 0, paused=False, drained=False, unwell=None
        )
        assert _with_concurrency(asked, [worker]).concurrency == concurrency
