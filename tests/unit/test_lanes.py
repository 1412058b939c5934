"""Lanes: who ran when, by the executors of the records, and nothing on a lane overlaps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from poolbench.experiment import Experiment, MeasuredJob
from poolbench.experiment import PoolKind as Pool
from poolbench.lanes import LaneChart, in_words, shown
from tests.experiments import Made, made, remeasured
from tests.reported import a_greenlet_each, few, hosts, with_jobs


def the_chart(experiment: Experiment) -> LaneChart:
    (found,) = shown(experiment)
    return found.chart


@pytest.mark.parametrize(
    ("pool", "executors", "first"),
    [
        (Pool.PREFORK, "4 processes", "pid 101"),
        (Pool.THREADS, "4 threads", "thread 201"),
        (Pool.GEVENT, "4 greenlets", "greenlet 0"),
    ],
)
def test_each_executor_that_ran_several_jobs_has_a_lane(pool: Pool, executors: str, first: str) -> None:
    found = the_chart(made(Made(pool, 4, 0.5)))

    (group,) = found.groups
    assert group.executors == executors
    assert not group.packed
    assert [len(lane.spans) for lane in group.lanes] == [10, 10, 10, 10]
    assert group.lanes[0].label == first
    assert found.peak == 4


def test_greenlets_that_live_for_one_job_are_packed_into_as_many_slots_as_ran_at_once() -> None:
    found = the_chart(a_greenlet_each(made(Made(Pool.GEVENT, 50, 0.5), jobs=1000)))

    (group,) = found.groups
    assert group.packed
    assert group.executors == "1,000 greenlets on 50 slots"
    assert [lane.label for lane in group.lanes][:2] == ["slot 1", "slot 2"]
    assert sum(len(lane.spans) for lane in group.lanes) == 1000
    assert {span.executor.greenlet for span in found.spans if span.executor} == set(range(5000, 6000))


def test_a_turn_that_counts_is_shown_before_a_excluded_one_and_that_before_the_warm_up() -> None:
    """Given jobs that were kept of the warm-up too, I expect it only where nothing else is, and the words to say so."""
    whole = made(Made(Pool.THREADS, 4, 0.5), rounds=3)
    jobs = next(each.jobs for each in whole.measurements if each.jobs)
    kept = remeasured(whole, lambda of: replace(of, jobs=jobs))
    excluded = remeasured(kept, lambda of: replace(of, excluded=("a swap storm",)))
    early = replace(kept, measurements=tuple(each for each in kept.measurements if not each.round))

    found = [shown(experiment)[0] for experiment in (kept, excluded, early)]

    assert [each.measurement.round for each in found] == [1, 1, 0]
    assert [in_words(each).partition("40 attempts on ")[0] for each in found] == [
        "",
        "a measurement that does not count: ",
        "only the warm-up: ",
    ]


def test_nothing_on_a_lane_overlaps() -> None:
    for found in shown(few()):
        for lane in found.chart.lanes:
            assert all(before.finished <= after.started for before, after in pairwise(lane.spans))


def test_two_jobs_of_one_thread_at_the_same_time_get_two_lanes_and_the_second_says_so() -> None:
    experiment = made(Made(Pool.THREADS, 2, 0.5), jobs=2)
    thread = next(each for each in experiment.measurements if each.jobs).jobs[0].attempts[0].executor

    def change(_: int, job: MeasuredJob) -> MeasuredJob:
        return replace(job, attempts=(replace(job.attempts[0], executor=thread),))

    labels = [lane.label for lane in the_chart(with_jobs(experiment, change)).lanes]
    assert labels == ["thread 201", "thread 201, overlapping"]


def test_hosts_that_serve_together_have_lanes_of_their_own_that_name_them() -> None:
    for found in shown(hosts()):
        assert {group.executors.partition("@")[2] for group in found.chart.groups} == {"north", "south"}
        labels = [lane.label for lane in found.chart.lanes]
        assert len(set(labels)) == len(labels)
        for group in found.chart.groups:
            for lane in group.lanes:
                host = lane.label.partition("@")[2]
                assert host == group.executors.partition("@")[2]
                assert {span.executor.host for span in lane.spans if span.executor} == {host}


def test_a_second_attempt_waited_since_the_end_of_the_first() -> None:
    spans = [span for span in shown(few())[1].chart.spans if span.place == 5]

    first, second = sorted(spans, key=lambda span: span.started)
    assert first.failed
    assert second.failed is None
    assert second.queued == pytest.approx(first.finished)
    assert first.step == 0.0
    assert second.step == pytest.approx(0.1)
    assert second.received is None


def test_an_attempt_whose_holder_vanished_has_a_lane() -> None:
    def change(n: int, job: MeasuredJob) -> MeasuredJob:
        return job if n else replace(job, attempts=(replace(job.attempts[0], executor=None), *job.attempts))

    groups = the_chart(with_jobs(made(Made(Pool.PREFORK, 2, 0.5)), change)).groups
    assert "holder vanished" in {group.label for group in groups}
