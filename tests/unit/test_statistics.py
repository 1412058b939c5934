"""What an experiment's turns amount to, against experiments with known answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolbench.experiment import Experiment, Measurement, Spans
from poolbench.experiment import PoolKind as Pool
from poolbench.statistics import Verdict, summarise
from tests.experiments import MIB, Made, known, made, remeasured

THREADS = Made(Pool.THREADS, 8, run=0.1)
GEVENT = Made(Pool.GEVENT, 8, run=0.1)
SERIAL = Made(Pool.THREADS, 1, run=0.1, serial=True)


def changed(experiment: Experiment, deployment: str, number: int | None = None, **fields: object) -> Experiment:
    """The experiment with other fields in a deployment's turns, or in that of one round."""

    def change(of: Measurement) -> Measurement:
        return replace(of, **fields) if number in {None, of.round} else of  # type: ignore[arg-type]

    return remeasured(experiment, change, deployment)


def scaled(experiment: Experiment, factor: float) -> Experiment:
    return remeasured(experiment, lambda of: replace(of, wall=(of.wall or 0) * factor))


# -- rows


def test_a_row_counts_its_turns_and_says_why_others_do_not() -> None:
    """Given five rounds, of which one was excluded and one did not end, I expect three turns and two reasons."""
    experiment = made(replace(THREADS, excluded={2: "the machine was busy"}), GEVENT)
    experiment = changed(experiment, "threads:8", 4, wall=None, spans=Spans())

    row = summarise(experiment).row("threads:8")

    assert row.measurements == 3
    assert row.excluded == ("round 2: the machine was busy", "round 4: not every job is done")
    assert summarise(experiment).excluded == 2


def test_the_warm_up_does_not_count() -> None:
    experiment = changed(made(THREADS, GEVENT), "threads:8", 0, wall=1000.0)

    assert summarise(experiment) == summarise(made(THREADS, GEVENT))


def test_rates_and_speedup_follow_from_the_walls() -> None:
    """Given 40 jobs of 0.1 s without noise on 8 slots, I expect 80 jobs/s and 8 times serial."""
    summary = summarise(made(replace(THREADS, noise=0.0), replace(SERIAL, noise=0.0), nominal=0.1))
    row, serial = summary.row("threads:8"), summary.row("serial")

    assert known(row.jobs_per_second).median == pytest.approx(80, rel=0.05)
    assert known(row.speedup).median == pytest.approx(8, rel=0.05)
    assert serial.speedup is None


def test_the_tail_is_that_of_all_jobs_from_their_submission() -> None:
    experiment = made(THREADS, GEVENT)
    spans = [each.spans for each in experiment.of("threads:8")]
    ends = sorted(sum(job) for of in spans for job in zip(of.queued, of.waited, of.ran, strict=True))

    assert summarise(experiment).row("threads:8").p50 == ends[len(ends) // 2 - 1]


def test_memory_is_that_of_all_processes_idle_and_at_the_peak() -> None:
    row = summarise(made(Made(Pool.PREFORK, 4, 0.1, idle=100 * MIB, per_slot=25 * MIB), GEVENT)).row("prefork:4")

    assert (row.idle, row.peak) == (100 * MIB, 200 * MIB)


def test_what_could_not_be_measured_is_none_and_the_rest_is_there() -> None:
    row = summarise(changed(made(THREADS, GEVENT), "threads:8", usage=None)).row("threads:8")

    assert (row.idle, row.peak, row.cpu_per_job, row.cores_used, row.late) == (None,) * 5
    assert row.wall is not None


def test_turns_without_spans_and_jobs_are_survived() -> None:
    row = summarise(changed(made(THREADS, GEVENT), "threads:8", spans=Spans(), wall=0.0)).row("threads:8")

    assert (row.p99, row.jobs_per_second) == (None, None)


def test_one_turn_has_figures_and_no_interval() -> None:
    row = summarise(made(THREADS, GEVENT, rounds=1)).row("threads:8")

    assert row.measurements == 1
    assert known(row.wall).interval is None


def test_nothing_that_counts_is_an_empty_row() -> None:
    summary = summarise(made(THREADS, GEVENT, SERIAL, rounds=0))
    row = summary.row("threads:8")

    assert (row.measurements, row.wall, row.speedup, row.p50, row.peak, row.executors) == (0, *(None,) * 5)
    assert summary.compare("threads:8", "gevent:8").verdict is Verdict.CANNOT_TELL
    assert summary.compare("threads:8", "gevent:8").ratio is None


# -- pairs


def test_a_clear_difference_is_told_both_ways() -> None:
    summary = summarise(made(THREADS, Made(Pool.GEVENT, 8, run=0.15)))
    found = summary.compare("threads:8", "gevent:8")
    back = summary.compare("gevent:8", "threads:8")

    assert found.verdict is Verdict.FASTER
    assert back.verdict is Verdict.SLOWER
    assert known(found.ratio).median == pytest.approx(1.5, rel=0.05)
    assert known(back.ratio).median == pytest.approx(1 / known(found.ratio).median)


def test_a_difference_within_the_noise_is_none() -> None:
    summary = summarise(made(replace(THREADS, noise=0.2), Made(Pool.GEVENT, 8, run=0.104, noise=0.2)))

    assert summary.compare("threads:8", "gevent:8").verdict is Verdict.CANNOT_TELL


@pytest.mark.parametrize(
    ("rounds", "times", "verdict"),
    [
        (2, 18.0, Verdict.FASTER),
        (2, 2.5, Verdict.FASTER),
        (2, 1.5, Verdict.CANNOT_TELL),
        (1, 5.0, Verdict.FASTER),
        (1, 3.0, Verdict.CANNOT_TELL),
    ],
)
def test_of_few_rounds_a_difference_of_several_times_is_certain_and_a_smaller_one_is_not(
    rounds: int, times: float, verdict: Verdict
) -> None:
    """Given 31.8 s against 1.7 s in two rounds, I expect what any reader says; given 1.5 times as much, no verdict."""
    found = summarise(made(THREADS, Made(Pool.GEVENT, 8, run=0.1 * times), rounds=rounds))

    assert found.compare("threads:8", "gevent:8").verdict is verdict
    assert found.compare("gevent:8", "threads:8").verdict is not Verdict.FASTER


def test_equals_with_little_noise_are_called_equally_fast_and_a_certain_trifle_too() -> None:
    for slower in (1.0, 1.02):
        quiet = [replace(THREADS, noise=0.001), Made(Pool.GEVENT, 8, run=0.1 * slower, noise=0.001)]
        found = summarise(made(*quiet, jobs=400)).compare("threads:8", "gevent:8")
        assert (found.verdict, str(found.verdict)) == (Verdict.EQUAL, "equally fast")


def test_rounds_in_which_one_of_the_two_was_excluded_are_no_pairs() -> None:
    """Given five rounds, with another turn excluded on either side, I expect three pairs."""
    summary = summarise(made(replace(THREADS, excluded={1: "load"}), replace(GEVENT, excluded={2: "load"})))
    found = summary.compare("threads:8", "gevent:8")

    assert known(found.ratio).n == 3


def test_drift_of_the_machine_cancels_because_turns_are_paired_by_round() -> None:
    """Given rounds that differ by a factor of two and a deployment that is 10 % slower, I expect the difference to be
    seen although the ranges of the walls overlap."""
    summary = summarise(made(THREADS, Made(Pool.GEVENT, 8, run=0.11), rounds=8, drift=0.5))
    one, other = summary.row("threads:8").wall, summary.row("gevent:8").wall

    assert known(one).high > known(other).low
    assert summary.compare("threads:8", "gevent:8").verdict is Verdict.FASTER


def test_the_serial_baseline_is_compared_with_nobody() -> None:
    summary = summarise(made(THREADS, GEVENT, SERIAL))

    assert set(summary.comparisons) == {("threads:8", "gevent:8"), ("gevent:8", "threads:8")}
    with pytest.raises(KeyError, match="serial"):
        summary.compare("threads:8", "serial")


@pytest.mark.parametrize(("rounds", "noise"), [(1, 0.3), (2, 0.3), (3, 0.05), (5, 0.05), (7, 0.05)])
def test_equals_are_called_different_at_most_as_often_as_claimed(rounds: int, noise: float) -> None:
    """Given 600 experiments with two deployments that are the same, I expect at most 5 of 100 differences (and three
    standard errors of chance)."""
    different = 0
    for seed in range(600):
        summary = summarise(
            made(replace(THREADS, noise=noise), replace(GEVENT, noise=noise), jobs=4, rounds=rounds, seed=seed)
        )
        different += summary.compare("threads:8", "gevent:8").verdict in (Verdict.FASTER, Verdict.SLOWER)

    assert different / 600 <= 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), rounds=st.integers(0, 8), factor=st.floats(0.01, 100), slower=st.floats(1.0, 1.5))
def test_another_unit_of_time_leaves_every_verdict(seed: int, rounds: int, factor: float, slower: float) -> None:
    experiment = made(
        replace(THREADS, noise=0.1), Made(Pool.GEVENT, 8, 0.1 * slower, noise=0.1), jobs=8, rounds=rounds, seed=seed
    )

    verdicts = [each.verdict for each in summarise(experiment).comparisons.values()]
    assert [each.verdict for each in summarise(scaled(experiment, factor)).comparisons.values()] == verdicts


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_the_turns_in_the_file_leaves_every_verdict(order: list[int]) -> None:
    experiment = made(THREADS, Made(Pool.GEVENT, 8, 0.105))
    shuffled: tuple[Measurement, ...] = tuple(experiment.measurements[at] for at in order)

    assert summarise(replace(experiment, measurements=shuffled)).comparisons == summarise(experiment).comparisons


def test_what_a_job_costs_is_told_per_job_and_per_second() -> None:
    """Given 40 jobs of 0.1 s and 20 ms of CPU on 8 slots without noise, I expect 80 * 0.02 cores."""
    row = summarise(made(replace(THREADS, cpu=0.02, noise=0.0, late=0.004), GEVENT)).row("threads:8")

    assert known(row.cpu_per_job).median == pytest.approx(0.02)
    assert known(row.cores_used).median == pytest.approx(1.6, rel=0.05)


def test_the_worst_lateness_is_that_of_all_turns() -> None:
    experiment = made(replace(THREADS, late=0.004), GEVENT)
    usage = next(experiment.of("threads:8")).usage
    assert usage is not None
    late = replace(usage, scheduling=replace(usage.scheduling, worst=7.0))  # type: ignore[type-var]
    row = summarise(changed(experiment, "threads:8", 3, usage=late)).row("threads:8")

    assert (row.late, row.worst) == (0.004, 7.0)
