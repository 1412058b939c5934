"""A scenario on the running stack: its deployments one after the other, and the report of what was seen."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from ledger.jobs import Job
from ledger.ledger import Ledger
from ledger.messages import Publisher
from ledger.settings import Settings
from producer.client import Client
from producer.comparison.measure import Audience, Bench
from producer.comparison.offers import look_up
from producer.comparison.runs import MeasuredDeployment, Report, Run
from producer.comparison.scenarios import SCENARIOS, Deployment, Options
from producer.comparison.verdict import books, faults, verdict
from producer.errors import bounded, redis_errors

_PACKAGES = ("downpour", "celery", "kombu", "redis", "gevent", "urllib3")


class Stage(Audience, Protocol):
    """An audience that also learns which deployment is on."""

    def begins(self, deployment: Deployment) -> None: ...

    def watching(self) -> AbstractContextManager[None]: ...

    def measured(self, deployment: MeasuredDeployment) -> None: ...


def compare(settings: Settings, scenario: str, options: Options, stage: Stage) -> Report:
    """Run a scenario once and report it.

    Raises:
        ProducerError: the origin or Redis cannot be used.
    """
    ledger = Client(settings).ledger
    deployments = SCENARIOS[scenario](options)
    offers = [look_up(settings.origin_url, deployment.jobs) for deployment in deployments]
    with redis_errors(settings), closing(Publisher(settings)) as publisher:
        bench = Bench(ledger, publisher, stage, settings.redis_timeout)
        bounded(lambda: publisher.send([]), settings.redis_timeout)  # connects: the first pool must not pay for it
        started = bench.now()
        machine = describe_machine()  # before the load is ours
        measured = _measure_all(bench, stage, f"{scenario}-{stamp()}", list(zip(deployments, offers, strict=True)))
        run = Run(
            scenario=scenario,
            seed=options.seed,
            size=options.size,
            seconds=options.seconds,
            started=started,
            finished=bench.now(),
            deployments=tuple(measured),
            verdict=verdict(measured),
            books=books(measured),
            books_balance=not faults(measured),
        )
        return Report(describe_versions(ledger), machine, (run,))


def _measure_all(
    bench: Bench, stage: Stage, batches: str, planned: Sequence[tuple[Deployment, Sequence[Job]]]
) -> list[MeasuredDeployment]:
    measured = []
    for deployment, jobs in planned:
        stage.begins(deployment)
        with stage.watching():
            result = bench.measure(deployment, jobs, f"{batches}-{deployment.name}")
        stage.measured(result)
        measured.append(result)
    return measured


def stamp() -> str:
    """What tells the batches of two comparisons apart."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def describe_versions(ledger: Ledger) -> dict[str, str]:
    """Of what is installed here; with the one image that is what the workers run, too."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    hello = ledger.redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
    answers = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    return {**found, "redis server": f"{answers.get('server')} {answers.get('version')}"}


def describe_machine() -> dict[str, str | int | float]:
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": round(os.getloadavg()[0], 2),
    }
