"""``producer recommend`` as a person runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from poolbench.experiment import Experiment, to_json
from poolbench.experiment import PoolKind as Pool
from producer import cli
from tests.experiments import MIB, Made, made

THREADS = Made(Pool.THREADS, 8, 0.1, idle=80 * MIB)
GEVENT = Made(Pool.GEVENT, 8, 0.2)


def run(rounds: int = 5) -> Experiment:
    return made(THREADS, GEVENT, rounds=rounds)


def saved(folder: Path, *experiments: Experiment) -> list[str]:
    paths = [folder / f"run-{n}.json" for n in range(len(experiments))]
    for path, experiment in zip(paths, experiments, strict=True):
        path.write_text(to_json(experiment), encoding="utf-8")
    return [str(path) for path in paths]


# -- the command


def test_an_answer_is_a_command_to_copy_and_its_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert any(line.startswith("  Measured: Jobs that nobody ran (40 jobs)") for line in said)


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


def test_each_run_is_answered_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["recommend", "--json", *saved(tmp_path, run(), run(rounds=1))])

    assert code == 1
    assert [each["answer"] for each in json.loads(capsys.readouterr().out)] == ["threads:8", None]


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
