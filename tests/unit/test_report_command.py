"""``producer report``: formats by suffix, and an error that says what was expected."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from poolbench.experiment import to_json
from producer.cli import run
from tests.reported import few, sweep


@pytest.fixture
def a_run(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    path.write_text(to_json(few()))
    return path


def test_each_suffix_is_a_format(a_run: Path, tmp_path: Path) -> None:
    names = ("r.html", "r.md", "r.svg", "r.png")
    outputs = [word for name in names for word in ("-o", str(tmp_path / name))]

    assert run(["report", str(a_run), *outputs]) == 0
    assert (tmp_path / "r.html").read_bytes().startswith(b"<!doctype html>")
    assert (tmp_path / "r.md").read_text().startswith("# gevent:8 finished")
    assert (tmp_path / "r.svg").read_text().startswith("<svg")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_without_a_file_to_write_the_text_is_the_output(a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(a_run)]) == 0
    assert capsys.readouterr().out.startswith("# gevent:8 finished")


def test_a_compressed_run_is_read_as_it_is(a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "run.json.gz"
    packed.write_bytes(gzip.compress(a_run.read_bytes()))

    assert run(["report", str(packed)]) == 0
    assert capsys.readouterr().out.startswith("# gevent:8 finished")


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
def test_a_file_that_is_no_run_is_code_two_and_says_where(
    content: bytes, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)

    assert run(["report", str(path), "-o", str(tmp_path / "r.html")]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert str(path) in said
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("name", ["r.pdf", "r", "r.json", "html"])
def test_an_unknown_suffix_is_code_two_before_anything_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "no-such-run.json", "-o", str(tmp_path / name)]) == 2
    assert "expected files that end in .html" in capsys.readouterr().err


def test_a_run_that_is_not_there_and_a_folder_that_is_not_there_are_code_two(
    a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert run(["report", str(a_run), "-o", str(tmp_path / "none" / "r.html")]) == 2
    assert "expected to write" in capsys.readouterr().err


def test_a_picture_of_two_runs_is_refused(a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text(to_json(sweep()))

    assert run(["report", str(a_run), str(other), "-o", str(tmp_path / "r.svg")]) == 2
    assert "expected one run for" in capsys.readouterr().err
    assert run(["report", str(a_run), str(other), "-o", str(tmp_path / "r.html")]) == 0
