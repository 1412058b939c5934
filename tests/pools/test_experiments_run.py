"""Experiments on a stack of their own, as a person runs them: the whole command, real workers started for each turn."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from ledger.settings import Settings
from poolbench.checks import NONE
from poolbench.deployment import Spec
from poolbench.experiment import Experiment, Measurement, from_json
from poolbench.experiment import MeasuredState as State
from poolbench.experiment import PoolKind as Pool
from poolbench.experiment import RunCommand as Request
from poolbench.rounds import Design, run_experiment
from poolbench.terminal import Page
from producer.downloads import Downloads
from producer.fleet import Private
from producer.scenarios import SCENARIOS, Options, from_recipe
from stack.processes import MARK
from tests.producer_process import start
from tests.waiting import wait_for
from tests.worker_process import ROOT, environment_of

pytestmark = pytest.mark.timeout(400)


@contextmanager
def compare(*words: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The command, with its output in a file: nobody need read it for it to go on."""
    said = folder / "said.txt"
    with said.open("w") as out:
        words = ("compare", *words, "--noise", "1", "--json", str(folder / "out.json"))
        streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out}
        process = start(environment_of(Settings()), *words, **streams, start_new_session=True)
    try:
        yield process, said
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def experiment_of(*words: str, folder: Path) -> tuple[Experiment, str]:
    with compare(*words, folder=folder) as (process, said):
        code = process.wait(350)
        text = said.read_text()
        assert code == 0, text
        return from_json((folder / "out.json").read_text()), text


def test_the_same_jobs_in_rotated_rounds_on_workers_of_its_own(tmp_path: Path) -> None:
    """Given two deployments of one pool and a third, I expect balanced books, each order once, and a full account."""
    words = "small --jobs 60 --repeat 2 --seed 5 --pools threads:2,threads:8,gevent:20"
    experiment, text = experiment_of(*words.split(), folder=tmp_path)

    names = ["threads:2", "threads:8", "gevent:20", "serial"]
    assert [each.name for each in experiment.deployments] == names
    orders = {
        number: [each.deployment for each in experiment.measurements if each.round == number] for number in (0, 1, 2)
    }
    assert orders == {0: ["serial", *names[:3]], 1: names, 2: [*names[1:], names[0]]}
    assert experiment.command == (
        "producer compare small --jobs 60 --repeat 2 --seed 5 --pools threads:2,threads:8,gevent:20"
    )
    for measurement in experiment.measurements:
        assert measurement.checks.passed, measurement.checks
        assert measurement.counts == (measurement.round > 0)  # the warm-up never does
        assert measurement.checks.jobs == (60 if measurement.round else 15)
        assert len(measurement.spans.ran) == measurement.checks.jobs
        usage = measurement.usage
        assert usage is not None
        assert usage.pss_peak > 20 * 2**20
        assert usage.scheduling is not None
        assert 0 <= usage.scheduling.p99 <= usage.scheduling.worst
    slots = {each.deployment: each.checks.executors for each in experiment.measurements if each.round == 1}
    assert slots["threads:2"] == "2 threads of 1 process"
    assert "greenlets of 1 thread" in slots["gevent:20"]
    for name in names:
        kept = experiment.shown(name)
        assert kept is not None
        assert kept.round == 1
        assert all(job.received is not None and job.right for job in kept.jobs)
    assert experiment.cores is not None
    assert len(experiment.cores.probes) == 4  # before each round, and at the end
    assert "60 jobs in " in text
    assert "Checks passed: 540 jobs, each ran once" in text.replace("\n", " ")


def test_the_step_of_the_cpu_scenario_runs_in_all_three_pools(tmp_path: Path) -> None:
    words = "cpu --jobs 8 --repeat 1 --no-serial --pools prefork:2,threads:2,gevent:4"
    experiment, _ = experiment_of(*words.split(), folder=tmp_path)

    for name in ("prefork:2", "threads:2", "gevent:4"):
        (measurement,) = experiment.of(name)
        assert len(measurement.jobs) == 8
        for job in measurement.jobs:
            assert 0.005 < (job.step or 0) < job.attempts[-1].finished - job.attempts[0].started
        assert measurement.usage is not None
        assert measurement.usage.cpu > 0.5 * len(measurement.jobs) * 0.03
    assert not experiment.scenario.nominal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_turns_that_were_measured(number: signal.Signals, tmp_path: Path) -> None:
    """If it is told to stop in the first round that counts, I expect 128 and the signal's number, what was measured,
    that it says so, and neither a process nor a folder that stays."""
    words = "slow --jobs 120 --repeat 3 --no-serial --pools threads:16,threads:2"
    with compare(*words.split(), folder=tmp_path) as (process, said):
        wait_for(lambda: "round 1 of 3 · threads:2 · " in said.read_text(), seconds=200, what="a turn of round 1")
        started = psutil.Process(process.pid).children(recursive=True)
        folder = Path(child(process, "-P threads").environ()[MARK])
        assert folder.is_dir()
        process.send_signal(number)
        assert process.wait(60) == 128 + number, said.read_text()

    assert not folder.exists()
    assert not [each for each in started if each.is_running()]
    assert said.read_text().endswith("\ninterrupted\n")
    experiment = from_json((tmp_path / "out.json").read_text())
    measured = [(each.deployment, each.round) for each in experiment.measurements]
    assert measured == [("threads:2", 0), ("threads:16", 0), ("threads:16", 1)]
    assert "interrupted in round 1 of 3: what was measured is here" in experiment.notes
    assert "threads:2: 0 of 3 rounds count; nothing is said of it" in experiment.notes
    assert next(experiment.of("threads:16")).checks.passed


@contextmanager
def in_round_1(deployment: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A comparison of one deployment, in the middle of its only round."""
    words = f"slow --jobs 40 --repeat 1 --seed 1 --no-serial --pools {deployment}"
    with compare(*words.split(), folder=folder) as (process, said):
        wait_for(lambda: f"round 1 of 1 · {deployment} · " in said.read_text(), seconds=100, what="jobs of round 1")
        yield process, said


def rounds_of(folder: Path) -> list[Measurement]:
    """Its turns after the warm-up: the excluded one and the one that was run again."""
    return [each for each in from_json((folder / "out.json").read_text()).measurements if each.round == 1]


def child(process: subprocess.Popen[str], words: str) -> psutil.Process:
    """The one that the command has started with these words."""
    (found,) = (each for each in psutil.Process(process.pid).children() if words in " ".join(each.cmdline()))
    return found


def killed(deployment: str, words: str, folder: Path) -> tuple[Measurement, Measurement, str]:
    """SIGKILL to a worker in the middle of a turn: that turn, the one after it, and what was said. The reason must come
    before the ledger can know of the death."""
    with in_round_1(deployment, folder) as (process, said):
        child(process, words).kill()
        wait_for(lambda: "  does not count: " in said.read_text(), seconds=Settings().lease - 1, what="the reason")
        assert process.wait(200) == 0, said.read_text()
    excluded, whole = rounds_of(folder)
    return excluded, whole, said.read_text()


def test_a_worker_that_is_killed_spoils_its_turn_and_the_next_one_is_whole(tmp_path: Path) -> None:
    """Given SIGKILL in the middle of a turn, I expect the reason before the ledger can know of it, no call to start
    workers, and the turn once more."""
    excluded, whole, said = killed("threads:2", "-P threads", tmp_path)
    assert excluded.excluded == ("worker-threads ended in the middle of it: killed by SIGKILL",)
    assert whole.counts
    assert whole.checks.passed
    assert "does not count: worker-threads ended in the middle of it: killed by SIGKILL" in said
    assert "; start celery" not in said


def test_one_of_two_workers_that_is_killed_ends_the_turn_too(tmp_path: Path) -> None:
    """Given SIGKILL of one, I expect the turn given up at once, and no claim that nobody serves the queue."""
    excluded, whole, said = killed("threads:1+workers=2", "-n threads-2@", tmp_path)
    assert excluded.excluded == ("worker-threads-2 ended in the middle of it: killed by SIGKILL",)
    assert excluded.checks.done < excluded.checks.jobs
    assert whole.counts
    assert "no worker serve" not in said


def test_a_child_of_prefork_that_is_killed_spoils_its_turn_which_goes_on_to_its_end(tmp_path: Path) -> None:
    """Given SIGKILL of a child, whose job the ledger brings back, I expect every job done and the turn once more."""
    with in_round_1("prefork:2", tmp_path) as (process, said):
        child(process, "-P prefork").children()[0].kill()
        assert process.wait(200) == 0, said.read_text()

    excluded, whole = rounds_of(tmp_path)
    assert excluded.checks.done == excluded.checks.jobs == 40
    assert excluded.excluded
    assert not any("ended in the middle of it" in reason for reason in excluded.excluded)
    assert whole.counts
    assert whole.checks.passed


def test_a_redis_of_its_own_that_goes_away_is_named_and_what_was_measured_is_kept(tmp_path: Path) -> None:
    """Given its SIGKILL in round 1, I expect code 3, the address of that Redis and not a person's, and the warm-up."""
    with in_round_1("threads:2", tmp_path) as (process, said):
        redis = child(process, "valkey-server")
        port = next(each.laddr.port for each in redis.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
        redis.kill()
        assert process.wait(60) == 3, said.read_text()

    assert f"producer: Redis at 127.0.0.1:{port} cannot be used" in said.read_text()
    experiment = from_json((tmp_path / "out.json").read_text())
    assert [each.round for each in experiment.measurements] == [0]
    assert any(note.startswith("ended early (") for note in experiment.notes)
    assert "Nothing was measured yet: " in said.read_text()
    assert "0/0" not in said.read_text()


def test_a_foreign_worker_that_takes_jobs_spoils_the_turn_even_under_the_same_name() -> None:
    """Given another worker on the queue, of the deployment's own name, I expect turns that do not count, and why."""
    page = Page(Console(file=io.StringIO(), width=80))
    with Private(Settings(), [Spec(Pool.THREADS, 2)], serial=False) as fleet:
        stack = fleet._stack
        command = "-m celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -c 2 -E"
        foreign = subprocess.Popen(
            [sys.executable, *command.split()],
            cwd=ROOT,
            env=stack.plan.env("worker"),  # with the stack's mark: it ends with the stack
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        work = from_recipe(SCENARIOS["slow"], Options(1, 16, 1000), fleet.deployments, fleet.settings.origin_url)
        try:
            design = Design(1, Request(("producer", "compare")), warm_up=True, limits=NONE)
            with Downloads(fleet, work) as workload:
                experiment = run_experiment(workload, design, page).experiment
        finally:
            foreign.terminate()
            foreign.wait(30)

    counted = [each for each in experiment.measurements if each.round == 1]
    assert len(counted) == 2  # it was run once more
    for measurement in counted:
        assert not measurement.counts
        assert any("of its jobs ran on another worker" in reason for reason in measurement.excluded), measurement
        assert measurement.checks.done == 16
        assert {job.state for job in measurement.jobs} == {State.DONE}
    assert "threads:2: 0 of 1 rounds count; nothing is said of it" in experiment.notes
