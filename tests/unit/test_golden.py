"""What people and programs read of the product, kept as files: each change of it must be one that was meant.

``DOWNPOUR_GOLDEN=write python -m pytest tests/unit/test_golden.py`` writes the files in ``tests/golden`` anew; the
difference in git then shows what changed for the reader.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from download.errors import DownloadError
from download.fetch import Fetched
from ledger.jobs import Attempt, Executor, FailureKind, Job, JobRecord, JobState, Pool
from producer.cli import cli, run
from producer.results import Style, lines
from tests.hostile import CASES, LIMITS, Case
from tests.origin_process import OriginProcess
from tests.unit.download_kit import ChunkDesk, Desk

GOLDEN = Path(__file__).parents[1] / "golden"
RUNS = sorted((Path(__file__).parents[2] / "docs" / "runs").glob("*.json*"))
WRITE = os.environ.get("DOWNPOUR_GOLDEN") == "write"
PATHS: dict[str, type[Desk]] = {"alone": Desk, "chunk": ChunkDesk}


def expect(name: str, found: str) -> None:
    path = GOLDEN / name
    if WRITE:
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


# -- the command line


def _commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from _commands(below, (*words, name))


def test_the_help_of_every_command() -> None:
    helps = []
    for words in _commands(cli):
        result = CliRunner().invoke(cli, [*words, "--help"], prog_name="producer", terminal_width=100)
        assert result.exit_code == 0
        helps.append(f"$ {' '.join(('producer', *words))} --help\n{result.output}")
    expect("help.txt", "\n".join(helps))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name.partition(".")[0])
def test_the_advice_of_a_committed_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["recommend", "--json", str(path)])
    advice = json.dumps({"exit": code, "advice": json.loads(capsys.readouterr().out)}, indent=1, ensure_ascii=False)
    expect(f"advice-{path.name.partition('.')[0]}.json", advice + "\n")


# -- results

WHO = Executor("threads@host", 7, 8, None)
GREENLET = Executor("gevent-2@host", 7, 7, 140_000_000_000_001)
START = 1_700_000_000.25
PLAIN = JobRecord("b.0", Job("http://user:hunter2@a/0?token=abc&v=0", "f0"), Pool.THREADS, JobState.QUEUED, START)


def _attempt(kind: FailureKind | None = None, reason: str | None = None, **more: Any) -> Attempt:
    status = 200 if kind is None else 404
    return replace(Attempt(WHO, START + 1, START + 2.5, START + 1.125, 10, status, kind, reason), **more)


def _records() -> Iterator[JobRecord]:
    """A job in each state that it can have, and what only few have."""
    reset = _attempt(FailureKind.RESET, "reset")
    refused = _attempt(FailureKind.STATUS, "404 from http://user:hunter2@a/1?token=abc\x1b[31m")
    lost = Attempt(None, START, START + 3, kind=FailureKind.LOST, reason="its holder vanished")
    proof: dict[str, Any] = {"sha256": "ab" * 32, "etag": 'W/"v1"', "last_modified": "Tue, 15 Nov 1994 12:45:26 GMT"}
    proof |= {"final_url": "http://b/1", "content_type": "text/html; charset=utf-8"}
    with_options = Job(
        PLAIN.job.url,
        'päth/f, "1"',
        "cd" * 32,
        12,
        headers=(("Authorization", "secret"),),
        mirrors=("http://user:pw@m/1?signature=s", "http://m/2"),
    )
    yield PLAIN
    yield replace(PLAIN, id="b.1", state=JobState.RUNNING, attempts=(lost,), started=START + 4, bytes=5, total=10)
    yield replace(PLAIN, id="b.2", state=JobState.WAITING, attempts=(reset,))
    yield replace(PLAIN, id="b.3", state=JobState.FAILED, attempts=(reset, refused))
    yield replace(PLAIN, id="b.4", state=JobState.CANCELLED)
    done: dict[str, Any] = {"state": JobState.DONE, "bytes": 12, "total": 12, **proof}
    notes = ("length: unverified", "resumed from byte 5")
    yield replace(PLAIN, id="b.5", attempts=(reset, _attempt()), notes=notes, name="other", **done)
    greenlet = _attempt(executor=GREENLET)
    yield replace(PLAIN, id="b.6", job=with_options, pool=Pool.GEVENT, attempts=(greenlet,), before=1, **done)


@pytest.mark.parametrize("style", list(Style))
def test_results(style: Style) -> None:
    expect(f"results.{style}", "".join(f"{line}\n" for line in lines(_records(), style)))


# -- faults: which kind and reason the first attempt has, and the second where the first one broke off


def _ends(case: Case, path: str, origin: OriginProcess, folder: Path) -> Iterator[tuple[str, str]]:
    desk = PATHS[path](folder)
    url = case.url(origin.url, f"golden-{path}-{case.name}", inner=9)
    for number in range(2):
        resume: dict[str, Any] = {"resume": desk.temp} if number and path == "alone" and desk.temp.exists() else {}
        try:
            ended: Fetched | DownloadError = desk.fetch(url, **LIMITS, **resume)
        except DownloadError as error:
            ended = error
        if isinstance(ended, Fetched):
            yield "done", "; ".join(ended.notes)
            return
        yield ended.kind.value, _steady(str(ended))
        if ended.kind is not FailureKind.TRUNCATED:
            return
    with suppress(FileNotFoundError):
        desk.temp.unlink()


def _steady(reason: str) -> str:
    """Without ports, dates, and counts that depend on the clock."""
    reason = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", reason)
    reason = re.sub(r"Errno \d+", "Errno N", reason)
    return re.sub(r"(bytes/s over \d+ s, got) [\d.]+, \d+ in all", r"\1 R, N in all", reason)


def test_kind_and_reason_of_every_fault_on_both_paths_which_agree(origin: OriginProcess, tmp_path: Path) -> None:
    turns = [(case, path) for case in CASES for path in PATHS]
    bomb = next(case for case in CASES if case.name == "bomb")
    Desk(tmp_path / "bomb").fetch(bomb.url(origin.url, ""), **LIMITS | {"read_timeout": 60.0})  # it is made once

    def ends(turn: tuple[Case, str]) -> list[tuple[str, str]]:
        case, path = turn
        return list(_ends(case, path, origin, tmp_path / f"{case.name}-{path}"))

    with ThreadPoolExecutor(8) as threads:
        found = dict(zip(turns, threads.map(ends, turns), strict=True))
    lines = [f"{case.row}\t{path}\t{kind}\t{reason}\n" for (case, path), each in found.items() for kind, reason in each]
    expect("faults.tsv", "".join(lines))
    for case in CASES:  # later attempts of a chunk's jobs are alone
        assert found[case, "alone"][0] == found[case, "chunk"][0], case.row
