"""``producer recommend`` as a person runs it, and which runs are taken together."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from poolbench.experiment import Cores, Experiment, to_json
from poolbench.experiment import PoolKind as Pool
from poolbench.runfiles import agreeing, differences, pooled
from poolbench.statistics import summarise
from producer import cli
from tests.experiments import MIB, Made, known, made, remeasured

THREADS = Made(Pool.THREADS, 8, 0.1, idle=80 * MIB)
GEVENT = Made(Pool.GEVENT, 8, 0.2)


def run(seed: int = 1, rounds: int = 5) -> Experiment:
    """Each seed is another run of the same experiment."""
    experiment = made(THREADS, GEVENT, rounds=rounds, seed=seed)
    again = remeasured(experiment, lambda of: replace(of, batch=f"{of.batch}-{seed}"))
    return replace(again, scenario=replace(experiment.scenario, seed=1))


def saved(folder: Path, *experiments: Experiment) -> list[str]:
    paths = [folder / f"run-{n}.json" for n in range(len(experiments))]
    for path, experiment in zip(paths, experiments, strict=True):
        path.write_text(to_json(experiment), encoding="utf-8")
    return [str(path) for path in paths]


# -- the command


def test_an_answer_is_a_command_to_copy_and_numbered_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.run(["recommend", *saved(tmp_path, run())])

    said = capsys.readouterr().out.splitlines()
    assert code == 0
    assert said[:6] == [
        "Scenario made",
        "  threads:8 finished the work 2.1 times sooner than gevent:8.",
        "  Confidence: moderate",
        "    celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -c 8 -E",
        "",
        "threads:8 beside the others, by jobs per second:",
    ]
    assert re.fullmatch(r"  gevent:8: 2\.1 × \([\d.]+–[\d.]+\), faster", said[6])
    assert any(line.startswith("  1. Measured: Jobs that nobody ran (40 jobs)") for line in said)


def test_cannot_tell_exits_with_1_and_says_what_to_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["recommend", *saved(tmp_path, run(rounds=1))])

    said = capsys.readouterr().out
    assert code == 1
    assert "cannot be told from 1 round.\n  No answer yet.\n" in said
    assert "What to measure next:\n  producer compare made --jobs 40" in said


def test_json_has_the_same_advice_as_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["recommend", "--json", "--memory-limit", "70M", "--p99", "60", *saved(tmp_path, run())])

    (advice,) = json.loads(capsys.readouterr().out)
    assert code == 0
    assert advice["answer"] == "gevent:8"
    assert advice["limits"] == {"memory": 70 * MIB, "p99": 60.0}
    assert advice["command"].endswith("-c 8 -E")
    assert advice["reasoning"]


def test_runs_of_another_machine_are_answered_by_themselves_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(run(2), machine={**run().machine, "cores": 64})
    code = cli.run(["recommend", "--json", *saved(tmp_path, run(), other)])

    said = capsys.readouterr()
    assert code == 0
    assert len(json.loads(said.out)) == 2
    assert "because they differ: machine's cores: 2 and 64" in said.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "got something else"),
        ("[]", "got something else"),
        ('{"schema": "downpour.comparison/1"}', "(poolbench.experiment/2), got JSON of schema 'downpour.comparison/1'"),
        ('{"turns": 7}', "got something else"),
    ],
)
def test_a_file_that_is_no_run_is_refused_with_what_was_expected_and_found(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")

    code = cli.run(["recommend", str(path)])

    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith(f"producer: expected {path} to be a run that was written with --json")
    assert said in error


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["recommend", str(tmp_path / "none.json")])

    assert code == 2
    assert "none.json, got: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "1T", "M", "1.5G", "many"])
def test_a_memory_limit_that_is_none_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["recommend", f"--memory-limit={text}", *saved(tmp_path, run())])

    assert code == 2
    assert f"expected bytes, or a number with K, M or G; got '{text}'" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "size"), [("1048576", MIB), ("1024k", MIB), ("1MiB", MIB), ("2gb", 2048 * MIB)])
def test_a_memory_limit_may_have_a_unit(
    text: str, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["recommend", "--json", "--memory-limit", text, *saved(tmp_path, run())])

    (advice,) = json.loads(capsys.readouterr().out)
    assert advice["limits"]["memory"] == size


# -- runs taken together


def test_runs_that_agree_are_one_experiment_with_the_rounds_of_both() -> None:
    """Given two runs of three rounds, I expect six pairs, each within its run, and two warm-ups."""
    together = pooled([run(1, rounds=3), run(2, rounds=3)])
    ratio = summarise(together).compare("threads:8", "gevent:8").ratio

    assert known(ratio).n == 6
    assert sorted(each.round for each in together.of("threads:8")) == [1, 2, 3, 4, 5, 6]
    assert sum(each.round == 0 for each in together.measurements) == 4
    assert "2 runs were pooled" in together.notes


def test_a_run_that_is_given_twice_counts_once() -> None:
    assert pooled([run(), run()]) == run()


def test_two_rounds_and_two_rounds_are_enough_for_an_answer(tmp_path: Path) -> None:
    assert cli.run(["recommend", *saved(tmp_path, run(1, rounds=2), run(2, rounds=2))]) == 0


def test_deployments_of_only_one_of_the_runs_are_kept() -> None:
    more = made(THREADS, Made(Pool.PREFORK, 4, 0.1), seed=2)
    more = replace(
        more, scenario=run().scenario, measurements=tuple(replace(t, batch=f"{t.batch}-2") for t in more.measurements)
    )

    names = [each.name for each in pooled([run(), more]).deployments]

    assert sorted(names) == ["gevent:8", "prefork:4", "threads:8"]


def test_cores_of_all_runs_are_the_median_of_all_probes() -> None:
    one, other = replace(run(1), cores=Cores(2, 2.0, (2.0, 2.0))), replace(run(2), cores=Cores(2, 1.0, (1.0,) * 3))

    cores = pooled([one, other]).cores

    assert (known(cores).effective, len(known(cores).probes)) == (1.0, 5)


def test_the_load_of_a_machine_does_not_make_it_another() -> None:
    assert differences(run(1), replace(run(2), machine={**run().machine, "load": 7.7})) == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("versions", {"python": "CPython 3.13.0", "celery": "5.8.0"}, "version of celery: 5.7.0 and 5.8.0"),
        ("versions", {"python": "CPython 3.13.0"}, "version of celery: 5.7.0 and None"),
        ("scenario", replace(run().scenario, jobs=7), "scenario: made, 40 jobs, seed 1 and made, 7 jobs, seed 1"),
    ],
)
def test_runs_that_differ_are_not_taken_together(field: str, value: object, said: str) -> None:
    other = replace(run(2), **{field: value})  # type: ignore[arg-type]

    assert differences(run(), other) == [said]
    assert agreeing([run(), other, run(3)]) == [[run(), run(3)], [other]]
    with pytest.raises(ValueError, match="expected runs of one kind"):
        pooled([run(), other])


def test_no_runs_are_no_experiment() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        pooled([])
