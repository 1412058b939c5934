"""The comparison on a whole Downpour: real Valkey, origin, sweep and workers of all pools."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ledger.jobs import FailureKind, JobState
from ledger.jobs import Pool as LedgerPool
from ledger.settings import Settings
from ledger.switches import Switches
from poolbench.advice import DemoFinding, find, totals
from poolbench.checks import NONE, failed
from poolbench.deployment import Spec
from poolbench.experiment import Deployment, Experiment, from_json, to_json
from poolbench.experiment import MeasuredExecutor as Executor
from poolbench.experiment import MeasuredState as State
from poolbench.experiment import PoolKind as Pool
from poolbench.experiment import RunCommand as Request
from poolbench.lanes import shown
from poolbench.rounds import Design, run_experiment
from poolbench.terminal import Page, close
from producer import downloads
from producer.client import Client
from producer.downloads import Downloads
from producer.fleet import Shared
from producer.scenarios import SCENARIOS, Options, OriginError, PlannedWork, RoundJobs, from_recipe, look_up, paced
from tests.producer_process import finish, start
from tests.waiting import wait_for
from tests.world import World

QUICK = Options(seed=1, size=20_000, seconds=(1, 2))


def compare(
    settings: Settings, page: Page, *pools: Pool, serial: bool = True, work: PlannedWork | None = None
) -> Experiment:
    """The article once, quickly, on workers that are up."""
    ledger = Client(settings).ledger
    fleet = Shared(settings, ledger, [Spec(pool) for pool in pools or Pool], serial=serial)
    work = work or from_recipe(SCENARIOS["article"], QUICK, fleet.deployments, settings.origin_url)
    design = Design(1, Request(("producer", "compare")), warm_up=False, again=False, limits=NONE)
    page.opens(work.scenario, fleet.deployments, 1, settings.origin_url)
    with Downloads(fleet, work) as workload:
        outcome = run_experiment(workload, design, page)
    assert outcome.cut is None
    return outcome.experiment


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as world:
        world.start(*LedgerPool, slots=2)
        workers = Switches(world.ledger).workers
        wait_for(lambda: sum(len(each.pids) for each in workers()) == 4, what="two children, and two other workers")
        yield world


class Watcher:
    """A page that is kept as text."""

    def __init__(self) -> None:
        self._file = io.StringIO()
        self.page = Page(Console(file=self._file, width=80))

    @property
    def text(self) -> str:
        return self._file.getvalue()


@pytest.fixture(scope="module")
def seen(world: World) -> tuple[Experiment, str]:
    """One quick comparison: its experiment and its page."""
    watcher = Watcher()
    experiment = compare(world.settings, watcher.page)
    close(watcher.page, experiment)
    return experiment, watcher.text


def test_the_tutorial_in_short(seen: tuple[Experiment, str]) -> None:
    """Given files of 1 and 2 s, I expect every pool to overlap them, one slot not to, and books that balance."""
    experiment, page = seen
    assert [each.name for each in experiment.deployments] == ["prefork", "threads", "gevent", "serial"]
    assert [each.concurrency for each in experiment.deployments] == [2, None, None, 1]  # a process of prefork is a slot
    assert not failed(experiment)
    *pools, serial = shown(experiment)
    for each in pools:
        first, second = each.measurement.jobs
        assert first.attempts[0].started < second.attempts[0].finished
        assert second.attempts[0].started < first.attempts[0].finished
        numbers = totals(each.measurement)
        assert numbers.total is not None
        assert numbers.longest <= numbers.total < numbers.sum
    first, second = serial.measurement.jobs
    assert second.queued >= first.attempts[0].finished
    assert find(serial) in {DemoFinding.SUM, DemoFinding.NEITHER}
    assert "downloaded in" in page
    assert max(map(len, page.splitlines()[-30:])) <= 80
    assert from_json(to_json(experiment)) == experiment


def test_each_job_shows_who_ran_it_and_its_file_arrived(world: World, seen: tuple[Experiment, str]) -> None:
    """I expect two processes; two threads of one process; two greenlets of one thread; and the origin's bytes."""
    experiment, _ = seen
    executors: dict[Pool, list[Executor]] = {}
    for each in shown(experiment)[:3]:
        pool = each.deployment.pool
        executors[pool] = [job.attempts[0].executor for job in each.measurement.jobs if job.attempts[0].executor]
        for job in each.measurement.jobs:
            path = world.settings.downloads / each.measurement.batch / job.filename
            assert path.stat().st_size == QUICK.size
            assert job.right
    one, other = executors[Pool.PREFORK]
    assert one.pid != other.pid
    assert (one.greenlet, other.greenlet) == (None, None)
    one, other = executors[Pool.THREADS]
    assert one.pid == other.pid
    assert one.thread != other.thread
    one, other = executors[Pool.GEVENT]
    assert (one.pid, one.thread) == (other.pid, other.thread)
    assert one.greenlet != other.greenlet


def test_workers_of_this_machine_are_measured_and_their_events_heard(seen: tuple[Experiment, str]) -> None:
    """Given workers that were up already, I expect their CPU and memory, processes as they are, and each arrival."""
    experiment, _ = seen
    usages = {each.deployment: each.usage for each in experiment.measurements}
    for name in ("prefork", "threads", "gevent"):
        usage = usages[name]
        assert usage is not None
        assert usage.pss_peak >= usage.pss_idle > 10 * 2**20
        assert usage.processes == (3 if name == "prefork" else 1)
        assert usage.scheduling is None  # nobody probes workers that were not started for this
    for measurement in experiment.measurements:
        for job in measurement.jobs:
            assert job.received is not None
            assert job.queued <= job.received <= job.attempts[0].started


def test_a_failed_job_is_shown_with_kind_and_reason(world: World) -> None:
    """Given a digest that the file does not have, I expect no total, and the failure on the page and in the books."""
    watcher = Watcher()
    planned = (paced("good.bin", 1, 5000), paced("bad.bin", 1, 5000))
    good, bad = look_up(world.settings.origin_url, planned)
    article = from_recipe(
        SCENARIOS["article"], QUICK, [Deployment("threads", Pool.THREADS, 2)], world.settings.origin_url
    )
    work = replace(article, shares={Pool.THREADS: RoundJobs([good, replace(bad, sha256="0" * 64)], [1.0, 1.0])})

    experiment = compare(world.settings, watcher.page, Pool.THREADS, serial=False, work=work)

    (measurement,) = experiment.measurements
    assert [job.state for job in measurement.jobs] == [State.DONE, State.FAILED]
    assert measurement.wall is None
    assert measurement.jobs[1].attempts[-1].kind == FailureKind.DIGEST
    assert "bad.bin failed: digest: " in watcher.text
    assert measurement.checks.faults == ("bad.bin is failed",)
    assert failed(experiment)


def test_a_pool_without_a_worker_is_noticed_said_and_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a Redis prefix that no worker serves, I expect a word, the jobs cancelled, and no claim of a total."""
    monkeypatch.setattr(downloads, "GIVE_UP_AFTER", 0.6)
    alone = world.settings.model_copy(update={"key_prefix": "nobody:"})
    watcher = Watcher()

    experiment = compare(alone, watcher.page, Pool.GEVENT)
    close(watcher.page, experiment)

    assert "no worker served downloads.gevent for 1 s; its jobs were cancelled; start celery -A" in watcher.text
    for measurement in experiment.measurements:
        assert [job.state for job in measurement.jobs] == [State.CANCELLED] * 2
    assert len(experiment.measurements) == 2
    assert "not known" in watcher.text
    assert failed(experiment)


def test_the_command_writes_its_experiment_and_ends_with_0(world: World, tmp_path: Path) -> None:
    """Given fast dice, the whole command: page on stderr when the experiment goes to stdout, exit code 0."""
    file = tmp_path / "experiment.json"
    # The seconds of a seed are 5 to 10; the seed with the two shortest is the quickest whole run there is.
    article = SCENARIOS["article"].plan
    seed = min(range(2000), key=lambda seed: sum(job.seconds or 0 for job in article(Options(seed), Pool.THREADS)))
    words = f"compare --seed {seed} --pools threads --no-serial --size 9000 --json {file}"
    said = finish(start(world.settings, *words.split()), seconds=40)

    assert said.code == 0, said.err
    experiment = from_json(file.read_text())
    assert experiment.scenario.seed == seed
    assert experiment.command == (
        f"producer compare article --repeat 1 --seed {seed} --size 9000 --pools threads --no-serial"
    )
    assert not failed(experiment)
    assert " s · Python_Development_Handbook.pdf " in said.out  # no silence: progress in plain lines
    assert "In threads the total is " in said.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_what_is_left(number: signal.Signals, world: World) -> None:
    before = set(world.ledger.batches())
    with start(world.settings, *["compare", "--seed", "1", "--pools", "prefork"]) as process:
        try:
            (batch,) = wait_for(lambda: set(world.ledger.batches()) - before, what="the batch")
            world.running(2, batch=batch)
            process.send_signal(number)
            said = finish(process, seconds=10)
        finally:
            process.kill()

    assert said.code == 128 + number, said.err
    assert {record.state for record in world.finished(batch, seconds=10)} == {JobState.CANCELLED}


def test_an_origin_that_is_not_there_is_named() -> None:
    with pytest.raises(OriginError, match=re.escape("http://127.0.0.1:9/paced/1/x")):
        look_up("http://127.0.0.1:9", [paced("x", 1, 10)])
