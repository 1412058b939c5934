"""A stack with a real Valkey and a real origin: it starts, it stops, and afterwards it was never there."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ledger.jobs import Pool
from ledger.redis_client import connect
from ledger.settings import Settings
from stack import plan as plan_module
from stack.__main__ import _how_to_use
from stack.processes import Process, Restarts, members
from stack.stack import Stack, StackError
from tests.producer_process import finish, start
from tests.waiting import stays, wait_for

pytestmark = pytest.mark.timeout(90)


def assert_gone(private: Path) -> None:
    assert members(str(private)) == []
    assert not private.exists()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack({}) as stack:
        yield stack


def test_a_stack_starts_and_leaves_nothing() -> None:
    lines: list[str] = []
    with Stack({}, sweep=False, say=lines.append) as stack:
        private = stack.plan.private
        assert private.stat().st_mode & 0o777 == 0o700
        assert {process.pid for process in members(str(private))} == {one.pid for one in stack.processes.values()}
        assert [line.split()[:2] for line in lines] == [["valkey", "ready"], ["origin", "ready"]]
        stack.check()
    assert_gone(private)


def test_up_says_where_everything_is_and_the_origin_what_to_try(stack: Stack) -> None:
    said = _how_to_use(stack, stack.plan.downpour("producer"))
    assert {f"Flower {stack.plan.flower_url}", f"downloads {stack.plan.downloads}"} <= {
        " ".join(line.split()[:2]) for line in said.splitlines()
    }
    command = f"submit --wait {stack.plan.origin_url}/paced/8/a.bin"
    assert f'make producer ARGS="{command}"' in said
    assert command in (plan_module.get(stack.plan.origin_url) or "").replace("'", "")


def test_redis_lets_the_roles_in_and_nobody_else(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stack.plan.env("producer").items():
        monkeypatch.setenv(name, value)
    with connect(Settings()) as client:
        assert client.ping()
    with (
        redis.Redis(port=stack.plan.redis_port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_a_service_that_was_killed_can_be_started_again(stack: Stack) -> None:
    before = stack.processes["valkey"].pid
    stack.processes["valkey"].kill()
    with pytest.raises(StackError, match=r"valkey is gone: expected .* got killed by SIGKILL"):
        stack.check()
    stack.start("valkey")
    stack.check()
    assert stack.processes["valkey"].pid != before


def test_a_service_that_does_not_start_says_why_and_takes_everything_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Procfile").write_text("origin: python -c 'raise SystemExit(\"no luck\")'\n")
    (tmp_path / "deploy").symlink_to(plan_module.ROOT / "deploy")
    monkeypatch.setattr(plan_module, "ROOT", tmp_path)
    stack = Stack({}, sweep=False)
    with pytest.raises(
        StackError, match=r"origin is not ready: expected an answer on .*, got exit code 1(.|\n)*no luck"
    ):
        stack.__enter__()
    assert_gone(stack.plan.private)


def test_a_port_that_is_insisted_on_and_taken_is_an_error(stack: Stack) -> None:
    with pytest.raises(StackError, match="somebody listens there"):
        Stack({}, insist={"origin": stack.plan.origin_port}).__enter__()


PROGRAM = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests may have it ignored, as nohup does
from stack.__main__ import ends_on_signals
from stack.stack import Stack
from tests.waiting import wait_for
with ends_on_signals(), Stack({}, sweep=False, remove=[Path(sys.argv[1])]) as stack:
    print(stack.plan.private, flush=True)
    wait_for(stack.check, seconds=60)  # says nothing while all is well
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_launcher_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    env_file = tmp_path / "run" / "stack.env"
    env_file.parent.mkdir()
    env_file.touch()
    words = [sys.executable, "-c", PROGRAM, str(env_file)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=plan_module.ROOT, start_new_session=True
    ) as launcher:
        assert launcher.stdout is not None
        private = Path(launcher.stdout.readline().strip())
        assert len(members(str(private))) == 2
        os.kill(launcher.pid, number)
        code = launcher.wait(30)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    wait_for(lambda: not members(str(private)) and not private.exists())
    assert not env_file.parent.exists()

    def reapers() -> list[psutil.Process]:
        return [each for each in psutil.process_iter(["cmdline"]) if str(private) in (each.info["cmdline"] or ())]

    wait_for(lambda: not reapers())


def test_a_service_that_crashes_ends_the_launcher_with_its_last_words(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "stack.env")]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=plan_module.ROOT
    ) as launcher:
        assert launcher.stdout is not None
        private = Path(launcher.stdout.readline().strip())
        (origin,) = (process for process in members(str(private)) if "origin" in process.cmdline())
        origin.kill()
        _, said = launcher.communicate(timeout=30)
    assert launcher.returncode == 1
    assert "origin is gone" in said
    assert "killed by SIGKILL" in said
    assert_gone(private)


def producer(env: Mapping[str, str], *words: str) -> int:
    return finish(start(env, *words)).code


@pytest.mark.timeout(180)
def test_each_part_that_is_killed_is_started_again_and_the_jobs_end() -> None:
    lines: list[str] = []
    with Stack(dict.fromkeys(Pool, 2), flower=True, say=lines.append) as stack:
        env, parts, lines[:] = stack.plan.env("producer"), dict(stack.processes), []
        for pool in Pool:
            urls = [f"{stack.plan.origin_url}/paced/2/{pool}{n}?size=1000" for n in range(10)]
            assert producer(env, "submit", "--pool", pool, "--name", pool, *urls) == 0

        def up(name: str) -> bool:
            stack.revive()
            now = stack.processes[name]
            return now is not parts[name] and now.running and stack.plan.ready(name, now)

        for name, process in parts.items():
            os.kill(process.pid, signal.SIGKILL)
            wait_for(partial(up, name), seconds=60, what=f"{name} to be up again")
        times, said = zip(*(line.split(" ", 1) for line in lines), strict=True)
        assert said == tuple(f"{name} was killed by SIGKILL; it is started again in 1 s" for name in parts)
        assert all(time.strptime(each, "%H:%M:%S") for each in times)
        assert [producer(env, "watch", pool) for pool in Pool] == [0] * len(Pool)
        private = stack.plan.private
    assert_gone(private)


def test_a_part_that_keeps_ending_is_started_less_and_less_often(tmp_path: Path) -> None:
    lines: list[str] = []
    with Stack({}, sweep=False, say=lines.append) as stack:
        lines.clear()
        stack._restarts["origin"] = Restarts(0.1, 0.4)
        broken = replace(stack.plan.command("origin"), argv=["/bin/sh", "-c", "exit 7"])
        stack.processes["origin"].kill()
        stack.processes["origin"] = Process(broken)

        def ends() -> bool:
            stack.revive()
            return len(lines) == 5

        wait_for(ends, what="five ends")
        assert stack.processes["valkey"].running
    said = {line.split(" ", 1)[1].rpartition(";")[0] for line in lines}
    assert said == {"origin ended by itself with exit code 7"}
    assert stack._restarts["origin"].pause == 0.4


UP = """
import json, signal, sys
from pathlib import Path
from ledger.jobs import Pool
from stack.__main__ import _show_logs, ends_on_signals
from stack.stack import Stack
with ends_on_signals(), Stack(dict.fromkeys(Pool, 2), downloads=Path(sys.argv[1])) as stack:
    print(json.dumps([stack.plan.origin_url, stack.plan.env("producer")]), flush=True)
    _show_logs(stack)
"""


@pytest.mark.timeout(180)
@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system of its own needs root to be mounted")
def test_a_full_disk_under_valkey_costs_no_job(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=True, timeout=10)
    try:
        with subprocess.Popen(
            [sys.executable, "-c", UP, str(tmp_path / "downloads")],
            env={**os.environ, "TMPDIR": str(disk)},
            stdout=subprocess.PIPE,
            text=True,
            cwd=plan_module.ROOT,
        ) as launcher:
            assert launcher.stdout is not None
            origin, env = json.loads(launcher.stdout.readline())
            Thread(target=launcher.stdout.read).start()
            urls = [f"{origin}/paced/2/{n}?size=1000" for n in range(30)]
            assert producer(env, "submit", "--pool", "all", "--name", "b", *urls) == 0
            hog = disk / "hog"
            with contextlib.suppress(OSError), hog.open("wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
            wait_for(lambda: producer(env, "resume", "threads") == 3, seconds=30, what="Redis to refuse")
            stays(lambda: launcher.poll() is None, seconds=8, what="the stack to stay up")
            hog.unlink()
            assert producer(env, "watch", "b") == 0
            launcher.send_signal(signal.SIGTERM)
            assert launcher.wait(30) == 128 + signal.SIGTERM
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True, timeout=10)


@pytest.mark.parametrize("size", ["4k", "40k"])  # no keys; keys, and no room for a log
@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system of its own needs root to be mounted")
def test_a_stack_without_room_says_where_it_wants_some(tmp_path: Path, size: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)], check=True, timeout=10)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "stack", "demo"],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            cwd=plan_module.ROOT,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 1
        assert f" {tmp_path}/downpour-" in ended.stderr
        assert "Make room there, or choose another folder with TMPDIR." in ended.stderr
        assert "Traceback" not in ended.stderr
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True, timeout=10)


def test_workers_start_download_stop_and_start_again() -> None:
    with Stack({Pool.THREADS: 2, Pool.PREFORK: 1}) as stack:
        private = stack.plan.private
        stack.processes["worker-prefork"].kill()  # its child too, whatever it does
        assert members(str(private), stack.processes["worker-prefork"].pid) == []
        stack.start("worker-prefork")
        for pool in ("threads", "prefork"):
            url = f"{stack.plan.origin_url}/files/a"
            assert producer(stack.plan.env("producer"), "submit", "--wait", "--name", pool, "--pool", pool, url) == 0
            assert (stack.plan.downloads / pool / "a").stat().st_size == 65536
        assert stack.stop("worker-threads", "worker-prefork", grace=20) == []
        assert stack.processes["worker-threads"].returncode == 0
    assert_gone(private)
