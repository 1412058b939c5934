"""Processes and their reaper: SIGTERM to one, SIGKILL to all that is left, and nothing stays."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stack.processes import MARK, Command, Process, describe_exit, members, reap, stop
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
# A process with a child, like a prefork worker; the child notes a SIGTERM, the parent ends on one.
FAMILY = '''
import signal, subprocess, sys, time
child = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[1]).touch())
print("up", flush=True)
while True: signal.pause()
"""
subprocess.Popen([sys.executable, "-c", child, sys.argv[1]])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True: signal.pause()
'''

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a Python program and waits until it says "up"."""
    mark = str(tmp_path / "mark")

    def start(program: str, *words: str, wait: bool = True) -> Process:
        log = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
        process = Process(
            Command("it", [sys.executable, "-c", program, *words], {**os.environ, MARK: mark}, tmp_path, log)
        )
        if wait:
            wait_for(lambda: "up" in process.tail())
        return process

    yield start
    reap(mark)


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(start: Callable[..., Process]) -> None:
    process = start(DEAF)
    assert stop([process], grace=0.2) == ["it"]
    assert process.returncode == -signal.SIGKILL
    assert describe_exit(process.returncode) == "killed by SIGKILL"


def test_only_the_main_process_is_asked_and_what_it_leaves_behind_is_killed(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    asked = tmp_path / "child was asked"
    process = start(FAMILY, str(asked))
    (child,) = psutil.Process(process.pid).children()
    assert process.stop(grace=10)
    assert process.returncode == 0
    assert not asked.exists()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_what_a_process_without_a_mark_leaves_behind_is_killed_too(tmp_path: Path) -> None:
    """Given a child that its parent has left behind, when the parent is killed, I expect the child to end."""
    words = [sys.executable, "-c", FAMILY, str(tmp_path / "child was asked")]
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    with Process(Command("it", words, environment, tmp_path, tmp_path / "log")) as process:
        wait_for(lambda: "up" in process.tail())
        (child,) = psutil.Process(process.pid).children()
        process.signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert child.is_running()
        process.kill()
        assert members(None, process.pid) == []
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_signal_reaches_the_whole_group_if_asked_to(start: Callable[..., Process], tmp_path: Path) -> None:
    asked = tmp_path / "child was asked"
    process = start(FAMILY, str(asked))
    process.signal(signal.SIGTERM, group=True)
    assert process.wait(15) == 0
    wait_for(asked.exists)


TIED = """
import os, signal, sys
from pathlib import Path
from stack.processes import Command, Process
from tests.tied import tied
log = Path(sys.argv[1])
process = Process(Command("it", tied([sys.executable, "-c", sys.argv[2]]), os.environ, log.parent, log))
print(process.pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not end a child with its parent")
def test_a_tied_process_ends_with_a_launcher_that_was_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with subprocess.Popen(
        [sys.executable, "-c", TIED, str(log), DEAF], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as launcher:
        assert launcher.stdout is not None
        tied = psutil.Process(int(launcher.stdout.readline()))
        wait_for(lambda: "up" in log.read_text())
        launcher.kill()
    try:
        wait_for(lambda: not tied.is_running() or tied.status() == psutil.STATUS_ZOMBIE)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            tied.kill()


def test_a_process_that_crashed_says_how_and_its_log_says_why(start: Callable[..., Process]) -> None:
    process = start("print('first'); raise SystemExit('no such queue')", wait=False)
    assert process.wait(15) == 1
    assert describe_exit(process.returncode) == "exit code 1"
    assert process.tail(lines=1) == "no such queue"
    assert process.stop(grace=1)


def test_a_log_outlives_a_restart(start: Callable[..., Process], tmp_path: Path) -> None:
    log = tmp_path / "log"
    for word in ("one", "two"):
        Process(Command("it", [sys.executable, "-c", f"print('{word}')"], os.environ, tmp_path, log)).wait(15)
    assert log.read_text() == "one\ntwo\n"


def test_the_reaper_ends_those_with_the_mark_and_nobody_else(start: Callable[..., Process], tmp_path: Path) -> None:
    ours = start(DEAF)
    other = {**os.environ, MARK: str(tmp_path / "another")}
    stranger = Process(Command("stranger", [sys.executable, "-c", DEAF], other, tmp_path, tmp_path / "stranger.log"))
    try:
        wait_for(lambda: "up" in stranger.tail())
        assert [process.pid for process in members(str(tmp_path / "mark"))] == [ours.pid]
        assert reap(str(tmp_path / "mark"))
        assert ours.wait(15) == -signal.SIGKILL
        assert stranger.running
    finally:
        stranger.kill()
