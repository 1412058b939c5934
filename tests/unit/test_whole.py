"""Where a run or a report is written: asked before the work, and whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click
import pytest

from poolbench.runfiles import ReportError, writable, write_whole
from producer.cli import run

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


def test_a_comparison_that_could_not_be_written_does_not_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "slow", "--pools", "threads:2", "--json", "/proc/run.json"]) == 2

    said = capsys.readouterr()
    assert "expected a file that can be written, got '/proc/run.json': " in said.err
    assert said.out == ""


def test_a_manifest_without_a_url_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.csv"
    path.write_text("url\n")

    assert run(["compare", "-i", str(path), "--pools", "threads:2"]) == 2
    assert f"expected at least one URL in {path}, got none; nothing was compared" in capsys.readouterr().err
