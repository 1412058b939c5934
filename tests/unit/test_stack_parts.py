"""The stack's small parts: ports, environment, Procfile, env file, log follower."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from honcho.environ import parse_procfile

from ledger.jobs import Pool
from stack import __main__ as up
from stack import plan as ports
from stack.__main__ import MOST, Follower
from stack.plan import ROOT, Plan, clean
from stack.stack import StackError


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(tmp_path, tmp_path / "downloads", redis_port=1, origin_port=2, flower_port=3)


def test_a_port_that_somebody_listens_on_is_not_chosen() -> None:
    with socket.socket() as busy:
        busy.bind((ports.HOST, 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.choose_port(port) != port
        assert ports.listens(os.getpid(), port)
    assert ports.choose_port(port) == port
    assert ports.choose_port(port, frozenset({port})) != port


def test_nothing_in_the_shell_changes_a_stack() -> None:
    surprises = {"DOWNPOUR_LEASE": "1", "FLOWER_PORT": "1", "HTTPS_PROXY": "http://p", "no_proxy": "*", "PORT": "1"}
    surprises |= {"LANES_FAULTS": "http://p"}
    assert clean({"HOME": "/h", "LANG": "C", **surprises}) == {"HOME": "/h", "LANG": "C"}


def test_each_role_has_its_own_user_and_password(plan: Plan) -> None:
    worker, sweep = plan.command("worker-gevent").env, plan.command("sweep").env
    assert worker["DOWNPOUR_REDIS_URL"] == "redis://worker@127.0.0.1:1/0"
    assert worker["DOWNPOUR_REDIS_PASSWORD_FILE"] == str(plan.private / "keys/worker/password")
    assert sweep["DOWNPOUR_REDIS_URL"] == "redis://sweep@127.0.0.1:1/0"
    assert worker["DOWNPOUR_HEALTH_FILE"] != sweep["DOWNPOUR_HEALTH_FILE"]


def test_the_procfile_starts_what_compose_starts() -> None:
    lines = parse_procfile((ROOT / "Procfile").read_text()).processes
    compose = (ROOT / "docker-compose.yml").read_text()
    assert set(lines) == {"origin", "sweep", "flower", *(f"worker-{pool}" for pool in Pool)}
    for pool in Pool:
        assert f"command: {lines[f'worker-{pool}']}\n" in compose
    for name in ("sweep", "flower"):
        words = [word for word in lines[name].split() if not word.startswith(("--address", "--port"))]
        assert f"command: [{', '.join(words)}]\n" in compose


def test_the_env_file_can_be_sourced_by_a_shell(tmp_path: Path) -> None:
    file = tmp_path / "run" / "it's here.env"
    up.claim(file)
    up.fill({"DOWNPOUR_DOWNLOADS": "/a b/$HOME'"}, file)
    assert file.stat().st_mode & 0o777 == 0o600
    script = f'. {shlex.quote(str(file))} && printf %s "$DOWNPOUR_DOWNLOADS"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == "/a b/$HOME'"


PRODUCER = """
import os, sys
from pathlib import Path
from unittest import mock
from producer import cli
with mock.patch.object(cli, "main"):
    from producer import __main__ as entry
entry.ENV_FILE = Path(sys.argv[1])
entry.use_running_stack()
print(os.environ.get("DOWNPOUR_DOWNLOADS"))
"""


def test_the_producer_finds_the_stack_that_is_up_and_waits_for_one_that_starts(tmp_path: Path) -> None:
    """Given no settings of its own, it does not talk to whatever listens on Redis' usual port."""
    file = tmp_path / "run" / "stack.env"

    def producer(**env: str) -> tuple[int, str]:
        words = [sys.executable, "-c", PRODUCER, str(file)]
        done = subprocess.run(words, capture_output=True, text=True, env=clean(os.environ) | env, cwd=ROOT, timeout=30)
        return done.returncode, done.stdout + done.stderr

    up.claim(file)
    sourced = subprocess.run(["sh", "-c", f". {file} && echo called"], capture_output=True, text=True)
    code, said = producer()
    for ended, words in ((sourced.returncode, sourced.stdout + sourced.stderr), (code, said)):
        assert ended == 1
        assert "still starting" in words
        assert "called" not in words
    up.fill({"DOWNPOUR_REDIS_URL": "redis://127.0.0.1:1/0", "DOWNPOUR_DOWNLOADS": "/a b/$HOME'"}, file)
    assert producer() == (0, "/a b/$HOME'\n")
    assert producer(DOWNPOUR_DOWNLOADS="/mine") == (0, "/mine\n")
    assert producer(DOWNPOUR_REDIS_URL="redis://other/0") == (0, "None\n")
    assert {each.name for each in file.parent.iterdir()} == {"stack.env", "stack.lock"}


INTERRUPTED = """
import runpy, sys
class Interrupted:
    def find_spec(name, *_):
        if name == sys.argv[2]:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted)
runpy.run_module(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize(("module", "at"), [("producer", "click"), ("stack", "click"), ("origin", "asyncio")])
def test_ctrl_c_in_the_first_second_ends_without_a_traceback(module: str, at: str) -> None:
    words = [sys.executable, "-c", INTERRUPTED, module, at]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_env_file_of_a_stack_that_is_up_is_not_taken_and_a_leftover_is(tmp_path: Path) -> None:
    file = tmp_path / "run" / "stack.env"
    lock, held = up.claim(file)
    with held, pytest.raises(StackError, match=f"up already, as {lock} says"):
        up.claim(file)
    up.claim(file)[1].close()


def test_the_follower_shows_whole_lines_once_and_nothing_a_terminal_obeys(tmp_path: Path) -> None:
    log = tmp_path / "log"
    follower = Follower({"origin": log, "worker-gevent": tmp_path / "none"})
    assert list(follower.lines()) == []
    log.write_bytes(b"one\n\x1b[2Jtwo\nthr")
    shown = list(follower.lines())
    assert [click.unstyle(line).partition(" | ")[2] for line in shown] == [
        "one",
        "\N{REPLACEMENT CHARACTER}[2Jtwo",
    ]
    with log.open("ab") as more:
        more.write(b"ee\n")
    assert [line[-5:] for line in follower.lines()] == ["three"]


def test_a_long_log_that_was_shown_starts_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * MOST + b"\n")
    follower = Follower({"origin": log})
    assert len(list(follower.lines())) == 1
    assert log.stat().st_size == 0
    with log.open("ab") as more:
        more.write(b"next\n")
    assert next(iter(follower.lines())).endswith("next")


def test_a_folder_that_is_no_environment_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    words = ["make", f"VENV={tmp_path}", f"{tmp_path}/local.stamp"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (done.returncode, "is no virtual environment" in done.stderr) == (2, True)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("last_words", "done"), [("exit 0", True), ("exit 1", False), ("kill -9 $PPID $$", False)])
def test_an_environment_counts_as_made_only_if_pip_said_so(tmp_path: Path, last_words: str, done: bool) -> None:
    """Given a pip that ends well, badly, or killed together with the shell that waits for it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").touch()
    python = tmp_path / "bin/python"
    python.write_text(f'#!/bin/sh\n[ "$3" = install ] || exit 0\necho Collecting\n{last_words}\n')
    python.chmod(0o755)
    stamp = tmp_path / "local.stamp"
    command = ["make", f"VENV={tmp_path}", str(stamp)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert (made.returncode == 0, stamp.exists(), "not finished" in made.stdout) == (done, done, not done)
