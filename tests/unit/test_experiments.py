"""What surrounds the turns of an experiment: plans, spans, checks, exclusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from ledger.jobs import Job, JobRecord
from poolbench import checks
from poolbench.checks import NoiseLimits, failed
from poolbench.deployment import parse
from poolbench.experiment import Checks, Deployment, MeasuredJob, Spans
from poolbench.experiment import MeasuredState as State
from poolbench.experiment import PoolKind as Pool
from poolbench.rounds import arrived
from poolbench.sampler import MachineCounters as Machine
from producer.downloads import LOOK_EVERY, Digests, _pause, measured_job
from producer.fleet import deployments
from producer.scenarios import SCENARIOS, Options, from_manifest, paced, sample
from tests.experiments import Made, made
from tests.measured import EPOCH, attempt, on_its_pool, record, who

THREADS = Deployment("threads:8", Pool.THREADS, 8)


def measured(records: Sequence[JobRecord], digests: Digests | None = None) -> list[MeasuredJob]:
    digests = digests or Digests()
    return [measured_job(record, right=digests.right(record)) for record in records]


# -- plans


@pytest.mark.parametrize("name", sorted(set(SCENARIOS) - {"article"}))
def test_a_scenario_gives_every_pool_the_same_jobs_and_scales(name: str) -> None:
    recipe = SCENARIOS[name]
    options = Options(7, 40, recipe.size or 1000)

    plans = [list(recipe.plan(options, pool)) for pool in Pool]

    assert plans[0] == plans[1] == plans[2]
    assert len({job.filename for job in plans[0]}) == 40
    assert plans[0] == list(recipe.plan(options, Pool.THREADS))


def test_a_sample_is_on_average_a_job_like_the_rest() -> None:
    """Given a hundred jobs of 1 to 100 s, I expect ten whose mean is that of all; of five all five."""
    jobs = [paced(str(n), n, 1) for n in range(1, 101)]

    chosen = [jobs[n].seconds or 0 for n in sample(jobs, 10)]

    assert len(chosen) == 10
    assert sum(chosen) / 10 == pytest.approx(50.5, abs=1)
    assert sample(jobs[:5], 10) == [0, 1, 2, 3, 4]


def test_the_baseline_runs_a_sample_of_many_jobs_and_the_notes_say_so() -> None:
    found = deployments(parse("threads:8"), serial=True)
    work = from_manifest([Job(f"http://a/{n}", str(n)) for n in range(100)], "urls.txt", found)

    assert len(work.share(found[0]).jobs) == 100
    assert len(work.share(found[1]).jobs) == 20
    assert len(work.share(found[0], warm_up=True).jobs) == 25
    (note,) = work.notes(found)
    assert "serial ran 20 of the 100 jobs" in note.text
    assert note.caveat
    assert work.notes(found[:1]) == []


def test_looking_adds_a_twentieth_to_a_job_that_is_run_alone() -> None:
    assert _pause(0.0) == 0.001
    assert _pause(0.2) == pytest.approx(0.01)
    assert _pause(60) == LOOK_EVERY


# -- spans and checks


def test_spans_add_up_to_the_wall() -> None:
    slot = who(Pool.THREADS, 200, 201)
    first = replace(attempt(slot, 0.5, 2.0), first_byte=EPOCH + 0.75)
    asked = Job("http://a/p", "p.html", step="links")
    records = [
        record(Pool.THREADS, "p.html", first, queued=0.25, asked=asked, step=0.5),
        record(Pool.THREADS, "b", attempt(slot, 1.0, 3.0), queued=0.25),
    ]

    jobs = measured(records)
    assert checks.wall(EPOCH, jobs) == 3.0
    assert checks.spans(EPOCH, jobs) == Spans(queued=(0.25, 0.25), waited=(0.25, 0.75), ran=(1.5, 2.0))


def test_a_turn_with_a_job_that_is_not_done_has_no_wall_and_no_spans() -> None:
    records = [record(Pool.THREADS, "a", attempt(who(Pool.THREADS, 1, 2), 0, 1), state=State.FAILED)]

    assert checks.wall(EPOCH, measured(records)) is None
    assert checks.spans(EPOCH, measured(records)) == Spans()


def test_an_arrival_is_put_between_queued_and_started() -> None:
    """Given a clock that is a second off, I expect no arrival before the submission nor after the claim."""
    found = record(Pool.THREADS, "a", attempt(who(Pool.THREADS, 1, 2), 1.0, 2.0), queued=0.5)

    for said, kept in ((-0.2, 0.5), (0.7, 0.7), (2.0, 1.0)):
        assert arrived(measured_job(found), EPOCH + said).received == EPOCH + kept


def test_without_a_digest_all_deployments_must_bring_the_same_bytes() -> None:
    asked, digests = Job("http://a/x", "x"), Digests()
    slot = attempt(who(Pool.THREADS, 1, 2), 0, 1)
    records = [record(Pool.THREADS, "x", slot, asked=asked, sha256=letter * 64) for letter in "aab"]

    right = [checks.check(THREADS, 1, measured([each], digests), on_its_pool(Pool.THREADS)).right for each in records]

    assert right == [1, 1, 0]


def test_the_checks_tell_a_few_faults_and_count_the_rest() -> None:
    slot = attempt(who(Pool.GEVENT, 1, 1, 2), 0, 1)
    records = [record(Pool.THREADS, str(n), slot) for n in range(9)]

    found = checks.check(THREADS, 10, measured(records), on_its_pool(Pool.THREADS))

    assert (found.jobs, found.done, found.once, found.here, found.right) == (10, 9, 9, 0, 9)
    assert not found.passed
    assert found.faults[0] == "1 records are missing"
    assert found.faults[1] == "0 ran on gevent@host"
    assert found.faults[-1] == "and 5 more"


# -- exclusions


def test_a_job_of_somebody_elses_a_retry_and_other_bytes_exclude_a_turn() -> None:
    assert checks.of_checks(Checks(5, 5, 5, 5, 5, "")) == []
    assert checks.of_checks(Checks(5, 5, 4, 3, 5, "")) == [
        "2 of its jobs ran on another worker",
        "1 of its jobs were tried more than once",
    ]


BEFORE = Machine(busy=100, idle=100, stolen=0, major_faults=0)


@pytest.mark.parametrize(
    ("after", "ours", "reason"),
    [
        (replace(BEFORE, busy=118, idle=102), 17.0, None),  # busy, and it is we
        (replace(BEFORE, busy=118, idle=102), None, None),  # busy, and nobody knows who
        (replace(BEFORE, busy=115, idle=105), 5.0, None),  # strangers, but there was room
        (replace(BEFORE, busy=119, idle=101), 9.0, "other programs used 50% of the CPU, and 5% was idle"),
        (replace(BEFORE, busy=114, idle=103, stolen=3), 14.0, "15% of the CPU was stolen by the hypervisor"),
        (
            replace(BEFORE, busy=110, idle=110, major_faults=6000),
            10.0,
            "the machine waited for 600 pages/s from its disk",
        ),
    ],
)
def test_a_machine_that_others_use_excludes_a_turn(after: Machine, ours: float | None, reason: str | None) -> None:
    """Given ten seconds of two cores."""
    found = checks.of_machine(BEFORE, after, 10.0, ours, NoiseLimits())

    assert found == ([] if reason is None else [reason])


def test_deployments_with_fewer_rounds_than_asked_for_are_named() -> None:
    experiment = made(
        Made(Pool.THREADS, 8, 0.1, excluded={1: "noise", 2: "noise"}), Made(Pool.GEVENT, 20, 0.1), rounds=2
    )

    notes = checks.too_few(experiment.measurements, ["threads:8", "gevent:20"], 2)

    assert all(note.caveat for note in notes)
    said = [note.text for note in notes]
    assert said[0] == "threads:8: 0 of 2 rounds count; nothing is said of it"
    assert "--noise 1" in said[1]
    assert checks.too_few(experiment.measurements, ["gevent:20"], 2) == []


def test_a_excluded_turn_that_was_run_again_is_no_failure_and_a_missing_job_is() -> None:
    experiment = made(Made(Pool.THREADS, 8, 0.1), rounds=1)
    wrong = Checks(40, 40, 40, 39, 40, "", ("x ran on threads@elsewhere",))
    excluded = replace(experiment.measurements[1], checks=wrong, excluded=("1 of its jobs ran on another worker",))

    again = replace(experiment, measurements=(experiment.measurements[0], excluded, experiment.measurements[1]))
    not_again = replace(experiment, measurements=(experiment.measurements[0], excluded))

    assert not failed(experiment)
    assert not failed(again)
    assert failed(not_again)
