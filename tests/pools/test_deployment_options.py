"""Deployments with options: what is asked for is what the workers are, seen from outside of the comparison."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rich.console import Console

from ledger.settings import Settings
from poolbench.checks import NONE
from poolbench.deployment import parse
from poolbench.experiment import Deployment, Experiment
from poolbench.experiment import RunCommand as Request
from poolbench.rounds import Design, run_experiment
from poolbench.terminal import Page
from producer.downloads import Downloads
from producer.fleet import Private
from producer.scenarios import SCENARIOS, Options, from_recipe
from tests.worker_process import ROOT

pytestmark = pytest.mark.timeout(200)


def fleet_of(pools: str) -> Private:
    return Private(Settings(), parse(pools), serial=False)


def once(fleet: Private) -> Experiment:
    """Sixteen files of a slow server, in one round and no warm-up."""
    work = from_recipe(SCENARIOS["slow"], Options(1, 16, 1000), fleet.deployments, fleet.settings.origin_url)
    design = Design(1, Request(("producer", "compare")), warm_up=False, again=False, limits=NONE)
    with Downloads(fleet, work) as workload:
        outcome = run_experiment(workload, design, Page(Console(file=io.StringIO(), width=80)))
    assert outcome.cut is None
    return outcome.experiment


def listener(fleet: Private) -> Redis:
    """As a worker, who may hear all events."""
    variables = fleet._stack.plan.env("worker")
    password = Path(variables["DOWNPOUR_REDIS_PASSWORD_FILE"]).read_text().strip()
    return Redis.from_url(variables["DOWNPOUR_REDIS_URL"], password=password, decode_responses=True, socket_timeout=5)


def event_body(message: dict[str, str]) -> Any:
    """An event, or a list of them, of a message that kombu published."""
    envelope = json.loads(message["data"])
    body = envelope["body"]
    return json.loads(base64.b64decode(body) if envelope["properties"].get("body_encoding") == "base64" else body)


def stats(fleet: Private, deployment: Deployment) -> dict[str, dict[str, object]]:
    """What Celery's remote control says of the deployment's workers, by node name without its host."""
    with fleet.deployed(deployment):
        said = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "worker.app", "inspect", "stats", "--json"],
            cwd=ROOT,
            env=fleet._stack.plan.env("worker"),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    return {name.partition("@")[0]: found for name, found in json.loads(said.stdout).items()}


def test_two_workers_share_the_jobs_of_their_deployment() -> None:
    """Given two workers of two processes each, I expect jobs on both, books that balance, and all of it measured."""
    with fleet_of("prefork:2+workers=2,threads:4,threads:4+events=off") as fleet:
        experiment = once(fleet)

    measurements = {each.deployment: each for each in experiment.measurements}
    assert all(each.checks.passed and each.wall for each in measurements.values())
    several = measurements["prefork:2+workers=2"]
    executors = [attempt.executor for job in several.jobs for attempt in job.attempts]
    assert {who.worker.partition("@")[0] for who in executors if who} == {"prefork-1", "prefork-2"}
    assert several.checks.executors == "4 processes"
    assert several.usage is not None
    assert several.usage.processes == 2 * (1 + 2)
    received = {
        name: sum(job.received is not None for job in measurement.jobs) for name, measurement in measurements.items()
    }
    assert received == {"prefork:2+workers=2": 16, "threads:4": 16, "threads:4+events=off": 0}


def test_without_events_nobody_is_told_of_any_job() -> None:
    with fleet_of("threads:4+events=off") as fleet, listener(fleet) as redis:
        events = redis.pubsub()
        events.psubscribe("dp:/0.celeryev/*")
        experiment = once(fleet)
        messages = [each for each in iter(events.get_message, None) if each["type"] == "pmessage"]

    assert experiment.measurements[0].checks.passed
    told = [event for body in map(event_body, messages) for event in (body if isinstance(body, list) else [body])]
    assert "worker-heartbeat" in {event["type"] for event in told}
    assert [event for event in told if event["type"].startswith("task")] == []


def test_a_worker_reports_the_prefetch_count_that_was_asked_for() -> None:
    """Given four slots that take five messages ahead each, and two workers of two slots, I expect 20, and 2 twice."""
    with fleet_of("threads:4+prefetch=5,gevent:2+workers=2") as fleet:
        ahead, several = (stats(fleet, deployment) for deployment in fleet.deployments)

    assert {name: found["prefetch_count"] for name, found in ahead.items()} == {"threads": 20}
    assert {name: found["prefetch_count"] for name, found in several.items()} == {"gevent-1": 2, "gevent-2": 2}
