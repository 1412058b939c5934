"""``producer report``: formats by suffix, and an error that says what was expected."""

from __future__ import annotations

import errno
import gzip
import os
import re
from pathlib import Path

import click
import pytest

from ledger.settings import Settings
from poolbench.experiment import Experiment, to_json
from poolbench.experiment import PoolKind as Pool
from poolbench.runfiles import ReportError, writable, write_whole
from tests.experiments import MIB, Made, made
from tests.producer_process import Said, run
from tests.reported import few, sweep


@pytest.fixture
def a_run(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    path.write_text(to_json(few()))
    return path


def report(*runs: Path, to: tuple[Path, ...] = ()) -> Said:
    return run(Settings(), "report", *runs, *(word for file in to for word in ("-o", file)))


def test_each_suffix_is_a_format(a_run: Path, tmp_path: Path) -> None:
    begins = {"r.html": b"<!doctype html>", "r.md": b"# gevent:8 finished", "r.svg": b"<svg", "r.png": b"\x89PNG"}
    assert report(a_run, to=tuple(tmp_path / name for name in begins)).code == 0
    for name, start in begins.items():
        assert (tmp_path / name).read_bytes().startswith(start)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{}", "to be a run (poolbench.experiment/2); scenario: Field required, got {}"),
        (b"not json", "(poolbench.experiment/2); content: Invalid JSON"),
        (b'{"schema": "downpour.report/1"}', "Input should be 'poolbench.experiment/2', got 'downpour.report/1'\n"),
        (b"\x1f\x8b not gzip", "expected a run at"),
        (gzip.compress(b"{}" * 1000, mtime=0)[:-9], "expected a run at"),
        (b"\xff\xfe", "content: Invalid JSON"),
    ],
    ids=["empty", "text", "other-schema", "no-gzip", "cut-gzip", "no-text"],
)
def test_a_file_that_is_no_run_is_code_two_and_says_where(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    said = report(path, to=(tmp_path / "r.html",))
    assert said.code == 2
    assert expected in said.err
    assert str(path) in said.err
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("name", ["r.pdf", "r", "r.json", "html"])
def test_an_unknown_suffix_is_code_two_before_anything_is_read(name: str, tmp_path: Path) -> None:
    said = report(Path("no-such-run.json"), to=(tmp_path / name,))
    assert (said.code, "expected files that end in .html" in said.err) == (2, True)


def test_a_run_that_is_not_there_and_a_folder_that_is_not_there_are_code_two(a_run: Path, tmp_path: Path) -> None:
    for said, words in (
        (report(tmp_path / "none.json"), "No such file"),
        (report(a_run, to=(tmp_path / "none" / "r.html",)), "expected to write"),
    ):
        assert (said.code, words in said.err) == (2, True)


def test_a_picture_of_two_runs_is_refused(a_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(to_json(sweep()))
    said = report(a_run, other, to=(tmp_path / "r.svg",))
    assert (said.code, "expected one run for" in said.err) == (2, True)
    assert report(a_run, other, to=(tmp_path / "r.html",)).code == 0


# -- where a run or a report is written: asked before the work, and whole or not at all


_CONTEXT, _OPTION = click.Context(click.Command("run")), click.Option(["-o"])


def test_what_was_there_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")

    assert writable(_CONTEXT, _OPTION, path) == path
    assert path.read_text() == "old"
    write_whole(path, b"new")

    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")

    def half(draft: Path, content: bytes) -> int:
        with draft.open("wb") as file:
            file.write(content[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(ReportError, match="No space left"):
        write_whole(path, b"new")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    assert writable(_CONTEXT, _OPTION, path) == path
    write_whole(path, b"all of it")

    assert os.read(reader, 100) == b"all of it"
    os.close(reader)
    assert path.is_fifo()


def test_a_comparison_that_could_not_be_written_does_not_begin() -> None:
    said = run(Settings(), *["compare", "slow", "--pools", "threads:2", "--json", "/proc/run.json"])
    assert (said.code, said.out) == (2, "")
    assert "expected a file that can be written, got '/proc/run.json': " in said.err


def test_a_manifest_without_a_url_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    path.write_text("url\n")
    said = run(Settings(), "compare", "-i", path, "--pools", "threads:2")
    assert said.code == 2
    assert f"expected at least one URL in {path}, got none; nothing was compared" in said.err


# -- ``producer recommend``


THREADS = Made(Pool.THREADS, 8, 0.1, idle=80 * MIB)
GEVENT = Made(Pool.GEVENT, 8, 0.2)
SURE, UNSURE = made(THREADS, GEVENT), made(THREADS, GEVENT, rounds=1)


def recommend(folder: Path, *words: str, of: tuple[Experiment, ...] = (SURE,)) -> Said:
    files = [folder / f"run-{n}.json" for n in range(len(of))]
    for file, experiment in zip(files, of, strict=True):
        file.write_text(to_json(experiment), encoding="utf-8")
    return run(Settings(), "recommend", *words, *files)


def test_an_answer_is_a_command_to_copy_and_its_reasons(tmp_path: Path) -> None:
    said = recommend(tmp_path)
    lines = said.out.splitlines()
    assert said.code == 0
    assert lines[:6] == [
        "Scenario made",
        "  threads:8 finished the work 2.1 times sooner than gevent:8.",
        "  Confidence: moderate",
        "    celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -c 8 -E",
        "",
        "threads:8 beside the others, by jobs per second:",
    ]
    assert re.fullmatch(r"  gevent:8: 2\.1 × \([\d.]+–[\d.]+\), faster", lines[6])
    assert any(line.startswith("  Measured: Jobs that nobody ran (40 jobs)") for line in lines)


def test_cannot_tell_exits_with_1_and_says_what_to_measure(tmp_path: Path) -> None:
    said = recommend(tmp_path, of=(UNSURE,))
    assert said.code == 1
    assert "cannot be told from 1 round.\n  No answer yet.\n" in said.out
    assert "What to measure next:\n  producer compare made --jobs 40" in said.out


def test_json_has_the_same_advice_as_a_list(tmp_path: Path) -> None:
    said = recommend(tmp_path, "--json", "--memory-limit", "70M", "--p99", "60")
    (advice,) = said.json
    assert (said.code, advice["answer"]) == (0, "gevent:8")
    assert advice["limits"] == {"memory": 70 * MIB, "p99": 60.0}
    assert advice["command"].endswith("-c 8 -E")
    assert advice["reasoning"]


def test_each_run_is_answered_by_itself(tmp_path: Path) -> None:
    said = recommend(tmp_path, "--json", of=(SURE, UNSURE))
    assert (said.code, [each["answer"] for each in said.json]) == (1, ["threads:8", None])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    said = run(Settings(), "recommend", tmp_path / "none.json")
    assert (said.code, "none.json, got: No such file" in said.err) == (2, True)


@pytest.mark.parametrize("text", ["0", "-1", "1T", "M", "1.5G", "many"])
def test_a_memory_limit_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    said = recommend(tmp_path, f"--memory-limit={text}")
    assert said.code == 2
    assert f"expected bytes, or a number with K, M or G; got '{text}'" in said.err


@pytest.mark.parametrize(("text", "size"), [("1048576", MIB), ("1024k", MIB), ("1MiB", MIB), ("2gb", 2048 * MIB)])
def test_a_memory_limit_may_have_a_unit(tmp_path: Path, text: str, size: int) -> None:
    (advice,) = recommend(tmp_path, "--json", "--memory-limit", text).json
    assert advice["limits"]["memory"] == size
