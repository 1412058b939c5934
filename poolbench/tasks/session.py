"""A run on a project's own tasks, from the command's options to the answer.

How long it will take is said before it begins. Calibration runs a few jobs on each deployment; from what they took
follow the number of jobs that fit into the budget, and the time that is told. Estimates are high rather than low: a few
jobs do not fill a large pool.
"""

from __future__ import annotations

import math
import socket
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from poolbench.advice import recommend
from poolbench.checks import NONE, NoiseLimits, failed
from poolbench.deployment import Spec, command, deployments
from poolbench.experiment import Experiment, RunCommand, to_json
from poolbench.figures import counted
from poolbench.report.tables import arrivals
from poolbench.rounds import Design, run_experiment
from poolbench.runfiles import STDOUT, write_whole
from poolbench.tasks import namespace, open_loop, project
from poolbench.tasks.foreign import OwnTasks, PrivacyError
from poolbench.tasks.live import private_broker
from poolbench.tasks.private import Place, fence
from poolbench.terminal import Page, close

_MOST = 2000  # jobs in a measurement that were not asked for
_ENOUGH = 4.0  # seconds for the calibration of a deployment, if a job ends within them
_FEW = 64  # jobs for it
_AROUND = 1.0  # seconds of a measurement beside its workers and jobs: samples of the machine, the last notes
_LEAST_JOBS = 10
_SHORTEST_RATE, _LONGEST_RATE = 3.0, 30.0  # seconds of one rate
_FIRST_LIMIT, _SHORTEST_LIMIT = 60.0, 15.0  # seconds for a measurement: of the calibration, of others
_WAVES = 4  # of jobs per place in the largest deployment, if there are not more calls
_DEFAULTS = {"retries": 0, "network": "auto", "noise": NoiseLimits().strangers}  # not repeated in a command


@dataclass(frozen=True, slots=True)
class Session:
    """The options of ``poolbench run``."""

    app: str
    task: str | None
    args: Path | None
    pools: tuple[Spec, ...]
    seconds: float
    jobs: int | None
    repeat: int
    arrivals: tuple[float, ...]
    limit: float | None
    retries: int
    allow: tuple[Place, ...]
    network: str
    noise: float
    json: Path | None
    output: Path | None

    def run(self) -> int:
        """Its exit code."""
        page = Page(Console(stderr=self.json == STDOUT))
        calls = project.read_calls(self.args, self.task)
        if not calls:
            raise click.UsageError("expected --task NAME, or --args FILE with lines that name a task")
        allowed, beyond = _resolved(self.allow)
        ports = self._enter(page, beyond)
        reached: Counter[tuple[str, str, bool]] = Counter()
        fence(allowed, lambda to, ok: None if ok else reached.update([("", to, ok)]))
        app = project.load(self.app)
        project.check_tasks(app, calls)
        start = partial(command, self.app, project.queues(app, calls), events=False)
        with (
            tempfile.TemporaryDirectory(prefix="poolbench-", ignore_cleanup_errors=True) as folder,
            private_broker(Path(folder)) as broker,
        ):
            compared, limit = deployments(self.pools, start, serial=False), self.limit or _FIRST_LIMIT
            workload = OwnTasks(
                app, self.app, broker, Path(folder), calls, compared, allowed, ports, self.retries, reached, limit
            )
            return self._measure(workload, page)

    def _measure(self, workload: OwnTasks, page: Page) -> int:
        count = len(workload.deployments)
        page.says(f"protection: {workload.protection}")
        page.says(f"calibrating: a few jobs on each of {count} deployments, 10 s each at the most if jobs are short")
        calibrated = calibrate(workload)
        most = max(len(workload.calls), _WAVES * max(each.concurrency or 1 for each in workload.deployments))
        told = plan(
            calibrated, rounds=self.repeat, budget=self.seconds, most=self.jobs or min(most, _MOST),
            fixed=self.jobs is not None, rates=len(self.arrivals),
        )  # fmt: skip
        workload.plan(told.jobs)
        longest = max(told.jobs / each.rate + each.job for each in calibrated.values())
        workload.limit = self.limit or max(_SHORTEST_LIMIT, math.ceil(3 * longest))
        page.opens(workload.scenario, workload.deployments, self.repeat, None)
        page.say(self._told(told, count))
        limits = NONE if self.noise >= 1 else NoiseLimits(strangers=self.noise)
        design = Design(self.repeat, self._request(told.jobs), warm_up=False, limits=limits)
        with page.watching():
            job = max(each.job for each in calibrated.values())
            swept = open_loop.sweep(workload, self.arrivals, told.arrivals, job, page.says, most=_MOST)
            outcome = run_experiment(workload, design, page)
        experiment = replace(outcome.experiment, open_loop=swept, reaches=workload.reaches)
        if swept:
            said = open_loop.sentence(swept)
            experiment = replace(experiment, notes=(*experiment.notes, f"arrivals: {said[0].lower()}{said[1:-1]}"))
        self._close(page, experiment)
        if outcome.cut:
            raise outcome.cut
        return 1 if failed(experiment) else 0

    def _enter(self, page: Page, beyond: str) -> tuple[int, ...] | None:
        """The ports that are carried into a network namespace; None: there is none.

        Raises:
            PrivacyError: a namespace was asked for, and cannot be had.
        """
        if self.network == "fence" or (beyond and self.network == "auto"):
            return None
        try:
            if beyond:
                raise namespace.NamespaceError(f"{beyond} cannot be reached in a network namespace")
            return namespace.enter()
        except namespace.NamespaceError as error:
            if self.network == "namespace":
                raise PrivacyError(f"--network namespace: {error}; use --network fence") from error
            page.says(f"no network namespace: {error}")
            return None

    def _told(self, plan: Forecast, deployments: int) -> str:
        """How long it will take, before it begins."""
        rounds = counted(self.repeat, "round")
        of, jobs = counted(deployments, "deployment"), counted(plan.jobs, "job")
        text = f"about {plan.total:.0f} s: {rounds} of {of}, {jobs} each; longer where a measurement must be repeated"
        if self.arrivals:
            text += f"; {len(self.arrivals)} rates of arrival for {plan.arrivals:.0f} s each"
        if plan.total > 1.1 * self.seconds:
            text += f"; that is more than --seconds {self.seconds:g}: take fewer --jobs, --repeat, --pools or rates"
        return text

    def _request(self, jobs: int) -> RunCommand:
        """The command with what was chosen for it."""
        pools, rates = ",".join(each.name for each in self.pools), ",".join(f"{rate:g}/s" for rate in self.arrivals)
        chosen: dict[str, Any] = {**asdict(self), "pools": pools, "jobs": jobs, "arrivals": rates}
        names = ("task", "args", "pools", "jobs", "repeat", "arrivals", "limit", "retries", "network", "noise")
        given = [(name, chosen[name]) for name in names if chosen[name] not in (None, "", _DEFAULTS.get(name))]
        given += [("allow", host if port is None else f"{host}:{port}") for host, port in self.allow]
        options = tuple((f"--{name}", str(value)) for name, value in given)
        return RunCommand(("poolbench", "run", "-A", self.app), options)

    def _close(self, page: Page, experiment: Experiment) -> None:
        close(page, experiment)
        if swept := experiment.open_loop:
            table = arrivals(experiment)
            page.table(["", *table.columns[1:]], ([each.name, *map(str, each.cells)] for each in table.lines))
            page.paragraph(table.reading, "dim")
            page.paragraph(open_loop.sentence(swept), "bold")
        for line in advised(experiment):
            page.say(line)
        if self.json == STDOUT:
            click.echo(to_json(experiment), nl=False)
        elif self.json:
            _write(self.json, to_json(experiment), page)
        if self.output:
            from poolbench.report.page import page as html  # noqa: PLC0415 - an extra draws its charts

            _write(self.output, html([experiment]), page)


# -- how long it will take


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of a deployment."""

    around: float  # seconds to start and stop its workers
    rate: float  # jobs per second
    job: float  # seconds, in the median


@dataclass(frozen=True, slots=True)
class Forecast:
    jobs: int  # in each measurement
    rounds: float  # seconds for all rounds
    arrivals: float  # seconds for each rate; 0: there are none
    sweep: float  # seconds for all rates

    @property
    def total(self) -> float:
        return self.rounds + self.sweep


def calibrate(workload: OwnTasks) -> dict[str, Calibration]:
    """By the deployment's name."""
    found = {}
    for each in workload.deployments:
        begun = time.monotonic()
        calls = workload.repeated(min(2 * (each.concurrency or 1), _FEW))
        with workload.deployed(each, "calibration", warm=False):
            before = time.monotonic()
            ran, _ = workload.send_and_wait(calls, enough=_ENOUGH)
            took = time.monotonic() - before
        ended = [job.attempts for job in ran.jobs if job.attempts and job.state.final]
        around = time.monotonic() - begun - took
        last = max(attempts[-1].finished for attempts in ended) - ran.submitted if ended else took
        spans = [attempts[-1].finished - attempts[0].started for attempts in ended]
        found[each.name] = Calibration(around, max(len(ended), 1) / last, statistics.median(spans or [took]))
    return found


def plan(
    found: Mapping[str, Calibration], *, rounds: int, budget: float, most: int, fixed: bool, rates: int = 0
) -> Forecast:
    """
    Args:
        budget: seconds for all of it.
        most: jobs in a measurement; if fixed, exactly so many.
        rates: how many are to be swept; they get half of the budget.
    """
    left = budget / 2 if rates else budget
    around = sum(each.around + each.job + _AROUND for each in found.values())
    per_job = sum(1 / each.rate for each in found.values())
    fits = int((left / rounds - around) / per_job)
    jobs = most if fixed else max(min(most, _LEAST_JOBS), min(most, fits))
    arrivals = swept = 0.0
    if rates:
        start, wait = sum(each.around + each.job for each in found.values()), max(each.job for each in found.values())
        arrivals = min(_LONGEST_RATE, max(_SHORTEST_RATE, (left - start) / (len(found) * rates) - wait))
        swept = start + len(found) * rates * (arrivals + wait)
    return Forecast(jobs, rounds * (around + jobs * per_job), arrivals, swept)


# -- the answer


def advised(experiment: Experiment) -> Iterator[str]:
    """What jobs that failed, and the rates of arrival, add to the answer."""
    if hopeless := nothing_done(experiment):
        yield f"{hopeless}: nothing can be compared."
    elif failed(experiment):
        yield "Jobs failed, and a measurement counts only if all of its jobs are done: the notes say which, and why."
    if not experiment.open_loop:
        return
    rate, _ = open_loop.highest(experiment.open_loop)
    left, behind = open_loop.keeping_up(experiment)
    if behind and len(left.deployments) == 1:
        only = left.deployments[0]
        yield f"Answer at {rate:g}/s: {only.name}, the only one that keeps up."
        yield f"  {only.command}"
    elif behind:
        found = recommend(left)
        yield f"Answer at {rate:g}/s, without {', '.join(behind)}: {found.answer or found.headline}"
        yield from [f"  {found.command}"] if found.command else []


def nothing_done(experiment: Experiment) -> str:
    """``Every call of shop.tasks.fetch failed with OSError in every pool``; empty: some did not fail."""
    jobs = [job for each in experiment.measurements for job in each.jobs]
    kinds = {job.attempts[-1].kind if job.attempts else None for job in jobs}
    if not kinds or None in kinds or any(each.checks.done for each in experiment.measurements):
        return ""
    tasks, errors = " or ".join(experiment.scenario.tasks), " or ".join(sorted(filter(None, kinds)))
    return f"Every call of {tasks} failed with {errors} in every pool"


def _write(path: Path, content: str, page: Page) -> None:
    write_whole(path, content.encode())
    page.say(f"written: {path}")


def _resolved(allow: Sequence[Place]) -> tuple[tuple[Place, ...], str]:
    """The hosts and their addresses, looked up once: a task that looks a host up gets the same, as a rule.

    Returns:
        And a host that is beyond this machine's loopback, if there is one.

    Raises:
        PrivacyError: a host is not known.
    """
    found, beyond = list(allow), ""
    for host, port in allow:
        try:
            addresses = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError as error:
            raise PrivacyError(f"--allow {host}: {error}") from error
        found += [(address, port) for address in addresses]
        if not all(ip_address(address.partition("%")[0]).is_loopback for address in addresses):
            beyond = host
    return tuple(dict.fromkeys(found)), beyond
