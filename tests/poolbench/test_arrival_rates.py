"""Open loop: latency from the scheduled moment, who keeps up, and how long a run is planned to take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from poolbench.experiment import OpenLoop, from_json, to_json
from poolbench.report.page import page, text
from poolbench.tasks.open_loop import ceiling, keeping_up, saturation, schedule, sentence
from poolbench.tasks.session import Calibration, plan
from tests.measured import experiment, prefork, threads
from tests.poolbench import foreign_projects
from tests.poolbench.environment import Installed, Listener

pytestmark = pytest.mark.timeout(400)  # the first one makes the environment


def found(name: str, rate: float, p99: float = 0.3, backlog: int = 0) -> OpenLoop:
    return OpenLoop(name, rate, 100, 100, backlog, p99 / 3, p99 / 2, p99, 0.001)


def test_a_pool_that_falls_behind_has_the_latency_of_those_who_wait(
    installed: Installed, theirs: Listener, tmp_path: Path
) -> None:
    """threads:1 does ten naps of 0.1 s per second; were a job timed from its start, it would look as quick as ever."""
    project = foreign_projects.write(tmp_path, foreign_projects.plain(theirs.url))
    words = ("--jobs", 10, "--pools", "threads:1,threads:12", "--arrivals", "20/s", "--seconds", 20)
    done = installed.compare(project, [("shop.tasks.nap", 0.1)], *words)
    swept = {(each["deployment"], each["rate"]): each for each in done.run["open_loop"]}
    assert swept["threads:1", 20]["p99"] > 1.0
    assert swept["threads:1", 20]["backlog"] > 10
    assert swept["threads:12", 20]["p99"] < swept["threads:1", 20]["p99"] / 2
    assert swept["threads:12", 20]["p50"] >= 0.1
    assert "At 20/s threads:12 keeps p99 below" in done.text
    assert "threads:1 does not, it falls behind at" in done.text
    assert "Answer at 20/s: threads:12, the only one that keeps up." in done.text


def test_a_sentence_says_who_keeps_up_at_the_highest_rate_that_anybody_does() -> None:
    swept = [
        found("a:1", 5),
        found("a:1", 20, 1.5, 40),
        found("b:2", 5),
        found("b:2", 20, 0.31),
        found("b:2", 40, 2, 50),
    ]
    assert sentence(swept) == (
        "At 20/s b:2 keeps p99 below 0.4 s; a:1 does not, it falls behind at 20/s; at 40/s b:2 falls behind."
    )
    assert saturation(swept) == {"a:1": 20, "b:2": 40}
    assert sentence([found("a:1", 5, 0.04), found("b:2", 5, 0.021)]) == (
        "At 5/s b:2 keeps p99 below 0.03 s, a:1 below 0.05 s; no deployment fell behind, so the saturation point is"
        " higher."
    )
    assert sentence([found("a:1", 5, backlog=60)]) == "At 5/s every deployment falls behind already."


@pytest.mark.parametrize(("value", "next_"), [(0.31, 0.4), (0.4, 0.5), (0.99, 1.0), (12.0, 20.0), (0.0401, 0.05)])
def test_the_next_value_with_one_digit(value: float, next_: float) -> None:
    assert ceiling(value) == next_


def test_advice_leaves_out_who_falls_behind_where_another_keeps_up() -> None:
    run = experiment(prefork(), threads())
    first, second, *_ = [each.name for each in run.deployments]
    swept = (found(first, 5, backlog=50), found(second, 5))
    left, behind = keeping_up(replace(run, open_loop=swept))
    assert behind == [first]
    assert first not in {each.name for each in left.deployments} | {each.deployment for each in left.measurements}
    assert keeping_up(run) == (run, [])


def test_the_report_shows_every_rate_and_says_who_keeps_up() -> None:
    run = experiment(prefork(), threads())
    first, second, *_ = [each.name for each in run.deployments]
    run = replace(run, open_loop=(found(first, 5, backlog=50), found(second, 5, 0.31)))
    for shown in (page([run]), text([run])):
        assert sentence(run.open_loop) in shown.replace("\xa0", " ").replace("\\", "")
        assert "At a rate of arrival" in shown
        assert "no (50)" in shown.replace("\xa0", " ")
    assert from_json(to_json(run)).open_loop == run.open_loop


def test_the_schedule_is_the_same_for_every_deployment_and_keeps_its_rate() -> None:
    moments = schedule(20, 10, most=2000)
    assert moments == schedule(20, 10, most=2000)
    assert len(moments) == 200
    assert moments == sorted(moments)
    assert 9 < moments[-1] <= 10
    assert len(schedule(1000, 10, most=50)) == 50


CALIBRATED = {"prefork:2": Calibration(3.0, 6.0, 0.3), "threads:16": Calibration(3.0, 48.0, 0.3)}


def test_a_larger_budget_gives_more_jobs_and_the_time_that_is_told_fits_into_it() -> None:
    small, large = (plan(CALIBRATED, rounds=3, budget=s, most=2000, fixed=False) for s in (60, 300))
    assert 10 < small.jobs < large.jobs < 2000
    assert 0.8 * 60 < small.total <= 60
    assert 0.8 * 300 < large.total <= 300


def test_a_number_of_jobs_that_was_asked_for_is_kept_and_its_time_told() -> None:
    told = plan(CALIBRATED, rounds=3, budget=60, most=600, fixed=True)
    assert told.jobs == 600
    assert told.total > 3 * 600 / 6


def test_arrivals_get_half_of_the_budget() -> None:
    told = plan(CALIBRATED, rounds=3, budget=240, most=2000, fixed=False, rates=3)
    assert 100 < told.rounds <= 120
    assert 100 < told.sweep <= 120
    assert 10 < told.arrivals < 30
