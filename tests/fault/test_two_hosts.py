"""A comparison whose pool is served by two hosts, with clocks that are hours off: the timeline is right all the same.

Redis, the origin and these tests have the right time. The hosts have names, process ids and wall clocks of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ledger.jobs import Pool
from poolbench.experiment import Experiment, MeasuredJob, Measurement
from poolbench.lanes import render, shown
from poolbench.report import page
from poolbench.runfiles import read
from tests import producer_process
from tests.other_host import Host
from tests.worker_process import Service
from tests.world import World

pytestmark = pytest.mark.timeout(200)

HOSTS = (Host("north", 3 * 3600 + 420), Host("south", -5 * 3600))
SLOTS, JOBS, NOMINAL = 2, 12, 1.0  # per host; in all; seconds for which the origin paces each
ROUNDED = 0.005  # seconds: the ledger's moments are whole milliseconds
LATE = 0.05  # seconds by which moments may be beside the origin's own: its clock is right, and so is Redis'
ARRIVAL = 0.3  # seconds by which an arrival may be beside the worker's own log: its clock is hours off


@dataclass(frozen=True)
class Compared:
    experiment: Experiment
    measurement: Measurement
    said: str
    received: dict[str, float]  # by the workers' logs: job id → the true moment
    requests: dict[str, dict[str, Any]]  # by the origin's log: file name → when it came, and for how long


def host_of(job: MeasuredJob) -> str:
    (attempt,) = job.attempts
    assert attempt.executor is not None
    return attempt.executor.host


def received(worker: Service, host: Host) -> Iterator[tuple[str, float]]:
    """A line of Celery's log for each message, in local time as the host has it."""
    for when, job in re.findall(r"^(\S+ \S+) INFO MainProcess: Task .*\[(\S+)\] received", worker.text(), re.MULTILINE):
        yield job, datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() - host.ahead


def compare(world: World, pool: Pool) -> Compared:
    """The whole command, on a pool whose queue two hosts serve."""
    manifest, file = world.folder / "jobs.jsonl", world.folder / "run.json"
    workers = [world.worker(pool, slots=SLOTS, host=host) for host in HOSTS]
    world.start()
    for worker in workers:
        worker.wait_until_ready()
    jobs = [world.paced(f"file-{n}", NOMINAL) for n in range(JOBS)]
    lines = [{"url": job.url, "filename": job.filename, "sha256": job.sha256} for job in jobs]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = f"compare -i {manifest} --pools {pool} --repeat 1 --no-serial --noise 1 --json {file}"
    said = producer_process.finish(producer_process.start(world.settings, *words.split()), seconds=120)
    assert said.code == 0, said.out + said.err
    experiment = read(file)
    (measurement,) = experiment.of(experiment.deployments[0].name)
    return Compared(
        experiment=experiment,
        measurement=measurement,
        said=said.out,
        received={job: at for worker, host in zip(workers, HOSTS, strict=True) for job, at in received(worker, host)},
        requests={
            each["path"].partition("?")[0].rpartition("/")[2]: each
            for each in world.origin.requests()
            if each["t"] > measurement.submitted
        },
    )


@pytest.mark.parametrize("pool", list(Pool))
def test_a_pool_that_two_hosts_serve_whose_clocks_are_hours_off(pool: Pool, tmp_path: Path) -> None:
    """Given clocks three hours ahead and five behind, I expect a timeline that is right, and the difference stated."""
    with World(tmp_path) as world:
        compared = compare(world, pool)
    books_tell_the_hosts_apart(compared, pool)
    moments_are_in_order_and_around_the_origin_s(compared)
    arrivals_are_as_the_workers_logs_say(compared)
    lanes_are_of_one_host_each(compared)
    differences_are_stated(compared)


def books_tell_the_hosts_apart(compared: Compared, pool: Pool) -> None:
    """The main process is number 1 on both hosts: that makes two processes, not one."""
    measurement = compared.measurement
    assert measurement.checks.passed, measurement.checks
    who = [job.attempts[0].executor for job in measurement.jobs if job.attempts[0].executor]
    assert {each.worker for each in who} == {f"{pool}@{host.name}" for host in HOSTS}
    assert pool is Pool.PREFORK or {each.pid for each in who} == {1}
    executors = {
        Pool.PREFORK: r"4 processes",
        Pool.THREADS: r"4 threads of 2 processes",
        Pool.GEVENT: r"\d+ greenlets of 2 threads",
    }
    assert re.fullmatch(executors[pool], measurement.checks.executors)


def moments_are_in_order_and_around_the_origin_s(compared: Compared) -> None:
    measurement = compared.measurement
    assert measurement.wall is not None
    for job in measurement.jobs:
        (attempt,) = job.attempts
        assert job.received is not None
        assert attempt.first_byte is not None
        assert measurement.submitted <= job.queued + ROUNDED
        moments = [job.queued, job.received, attempt.started, attempt.first_byte, attempt.finished]
        assert all(before <= after for before, after in pairwise(moments)), moments
        assert attempt.finished <= measurement.submitted + measurement.wall + ROUNDED
        asked = compared.requests[job.filename]
        assert attempt.started - LATE <= asked["t"] <= attempt.first_byte + LATE
        assert asked["t"] + asked["seconds"] <= attempt.finished + LATE
        assert NOMINAL - LATE <= attempt.finished - attempt.started <= 2 * NOMINAL


def arrivals_are_as_the_workers_logs_say(compared: Compared) -> None:
    """Less the clock's difference. On each host some job waited in the queue, and some in the worker's hands."""
    for host in HOSTS:
        jobs = [job for job in compared.measurement.jobs if host_of(job) == host.name]
        for job in jobs:
            assert job.received == pytest.approx(compared.received[job.id], abs=ARRIVAL)
        assert any(job.received is not None and job.received - job.queued > 0.5 * NOMINAL for job in jobs)
        assert any(job.received is not None and job.attempts[0].started - job.received > 0.5 * NOMINAL for job in jobs)


def lanes_are_of_one_host_each(compared: Compared) -> None:
    (of,) = shown(compared.experiment)
    labels = [lane.label for lane in of.chart.lanes]
    assert len(set(labels)) == len(labels) >= 2 * SLOTS
    assert not any("overlapping" in label for label in labels)
    assert of.chart.peak == 2 * SLOTS
    for lane in of.chart.lanes:
        (host,) = {host_of(of.measurement.jobs[strip.place]) for strip in lane.spans}
        assert lane.label.endswith(f"@{host}")
    drawn = "\n".join(render(compared.experiment, width=100))
    assert all(drawn.count(f"@{host.name}") >= SLOTS for host in HOSTS)


def differences_are_stated(compared: Compared) -> None:
    """In the experiment's notes, on the page and in the report, to a second."""
    for text in (" ".join(compared.experiment.notes), compared.said, page.text([compared.experiment])):
        for host in HOSTS:
            pattern = rf"{host.name} \(its clock is ([\d,.]+) s (ahead of|behind) Redis'"
            found = re.search(pattern, " ".join(text.split()))
            assert found is not None, text
            ahead = float(found[1].replace(",", "")) * (1 if found[2] == "ahead of" else -1)
            assert ahead == pytest.approx(host.ahead, abs=1)
