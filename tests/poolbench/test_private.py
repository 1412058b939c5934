"""Nothing of a project's own is asked while its tasks are measured, and tasks reach only what was allowed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.poolbench import foreign_projects
from tests.poolbench.environment import Installed, Listener
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(400)  # the first one makes the environment

ONE = ("--pools", "threads:1")
AWAY = "redis://127.0.0.1:1/0"


def test_the_listener_counts_who_asks_the_projects_own_broker(
    installed: Installed, theirs: Listener, tmp_path: Path
) -> None:
    """Or the tests below could not fail."""
    project = foreign_projects.write(tmp_path, foreign_projects.plain(theirs.url))
    installed.call("celery", "-A", "shop.celery", "inspect", "ping", "--timeout", "0.1", cwd=project, timeout=60)
    assert theirs.came


@pytest.mark.parametrize("setting", ["broker_url", "broker_write_url", "broker_read_url", "result_backend"])
def test_each_address_of_a_project_is_replaced(
    installed: Installed, theirs: Listener, tmp_path: Path, setting: str
) -> None:
    files = foreign_projects.plain(AWAY, f'app.conf.{setting} = "{theirs.url}"')
    project = foreign_projects.write(tmp_path, files)
    installed.compare(project, [("shop.tasks.parent",)], "--jobs", 2, *ONE)
    assert theirs.came == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "from celery.signals import worker_init\n"
            "@worker_init.connect\ndef again(**_): app.conf.broker_read_url = {url!r}; import os; "
            "os.environ['CELERY_BROKER_READ_URL'] = {url!r}\n",
            "broker for reading is redis://",
        ),
        (
            "from celery.backends.redis import RedisBackend\nimport celery\n"
            "class Own(celery.Task):\n    _backend = RedisBackend(url={url!r}, app=app)\napp.Task = Own\n",
            "result store of shop.tasks.fetch is redis://",
        ),
    ],
    ids=["set again in the worker", "a task's own store"],
)
def test_a_project_that_insists_on_its_address_is_refused_before_the_first_task(
    installed: Installed, theirs: Listener, tmp_path: Path, more: str, said: str
) -> None:
    project = foreign_projects.write(tmp_path, foreign_projects.plain(theirs.url, more.format(url=theirs.url)))
    done = installed.run("run", "-A", "shop.celery", "--task", "shop.tasks.parent", *ONE, cwd=project)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "refused before the first task" in done.stderr
    assert said in done.stderr
    assert theirs.came == []


def _calls(outside: Listener, *tasks: str) -> list[tuple[object, ...]]:
    return [(f"shop.tasks.{task}", outside.host, outside.port) for task in tasks]


def test_the_fence_refuses_what_is_not_allowed_and_says_so(
    installed: Installed, outside: Listener, tmp_path: Path
) -> None:
    project = foreign_projects.write(tmp_path, foreign_projects.plain(AWAY))
    at = f"{outside.host}:{outside.port}"
    asked = {"call_out": at, "datagram": at, "look_up": "example.org", "look_back": "198.51.100.7"}
    names = [("shop.tasks.look_up", "example.org"), ("shop.tasks.look_back", "198.51.100.7")]
    words = ("--jobs", 8, "--network", "fence", "--pools", "threads:2,gevent:4")
    found = installed.compare(project, [*_calls(outside, "call_out", "datagram"), *names], *words, code=1)
    assert outside.came == []
    caveats, reaches = found.run["caveats"], found.run["reaches"]
    for task, to in asked.items():
        assert any(note.startswith(f"shop.tasks.{task} was refused {to} (") for note in caveats), caveats
        assert any(each["task"] == f"shop.tasks.{task}" and each["address"] == to for each in reaches), reaches
    assert not any(each["allowed"] for each in reaches if each["address"] == at)
    errors = [note for note in caveats if note.startswith("PermissionError in ")]
    assert errors
    assert all("nowhere else" not in note for note in errors)


@pytest.mark.parametrize("caught", [False, True])
def test_the_fence_stands_before_the_project_is_imported(
    installed: Installed, outside: Listener, tmp_path: Path, caught: bool
) -> None:
    """Here and in the workers, in which nothing else would hold a project that goes on without its connection."""
    more = f"import contextlib, socket\nwith contextlib.suppress({'OSError' if caught else ''}):\n"
    more += f"    socket.create_connection(({outside.host!r}, {outside.port}), 2)"
    project = foreign_projects.write(tmp_path, foreign_projects.plain(AWAY, more))
    if caught:
        found = installed.compare(project, [("shop.tasks.parent",)], "--jobs", 2, "--network", "fence", *ONE)
        at = f"{outside.host}:{outside.port}"
        assert any(note.startswith(f"code outside of a task was refused {at} (") for note in found.run["caveats"])
    else:
        done = installed.run("run", "-A", "shop.celery", "--task", "x", "--network", "fence", cwd=project)
        assert "may not be reached; allow it with --allow" in done.stderr
        assert done.returncode == 2
    assert outside.came == []


def test_what_is_allowed_is_reached(installed: Installed, outside: Listener, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path, foreign_projects.plain(AWAY))
    at = f"{outside.host}:{outside.port}"
    found = installed.compare(project, _calls(outside, "call_out"), "--jobs", 2, *ONE, "--allow", at)
    assert len(outside.came) >= 2
    assert any(f"shop.tasks.call_out reached {at} (" in note for note in found.run["notes"])
    assert any("there is no network namespace, so C libraries" in note for note in found.run["notes"])


def test_no_packet_of_a_c_library_leaves_the_namespace(installed: Installed, outside: Listener, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--net", "true"], capture_output=True).returncode:
        pytest.skip("this system does not allow a network namespace")
    project = foreign_projects.write(tmp_path, foreign_projects.plain(AWAY))
    calls = _calls(outside, "call_out_in_c")
    installed.compare(project, calls, "--jobs", 2, *ONE, "--network", "fence")
    assert outside.came, "a C library passes the fence, or this test could not fail"

    outside.came.clear()
    found = installed.compare(project, calls, "--jobs", 2, *ONE, "--network", "namespace")
    assert outside.came == []
    assert "a network namespace has nothing but loopback" in found.text


def test_a_namespace_and_a_host_beyond_it_exclude_each_other(installed: Installed, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path, foreign_projects.plain(AWAY))
    words = ("--network", "namespace", "--allow", "198.51.100.1:80")
    done = installed.run("run", "-A", "shop.celery", "--task", "shop.tasks.parent", *words, cwd=project)
    assert done.returncode == 2
    assert "198.51.100.1 cannot be reached in a network namespace; use --network fence" in done.stderr

    words = ("--network", "namespace", "--allow", "localhost:80")  # there is no need to choose
    done = installed.run("run", "-A", "shop.celery", "--task", "shop.tasks.none", *words, cwd=project)
    assert "expected a task of the project" in done.stderr


def test_a_private_broker_that_is_killed_is_one_sentence_and_leaves_nothing(
    installed: Installed, tmp_path: Path
) -> None:
    project = foreign_projects.write(tmp_path / "project", foreign_projects.plain(AWAY))
    (tmp_path / "args").write_text("[0.2]\n")
    words = ("run", "-A", "shop.celery", "--task", "shop.tasks.nap", "--args", tmp_path / "args", "--seconds", 60)
    argv = [installed.command("poolbench"), *map(str, words), "--pools", "threads:2"]
    with subprocess.Popen(argv, cwd=project, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:

        def children(name: str) -> list[psutil.Process]:
            found = psutil.process_iter(["ppid", "cmdline"])
            return [
                each for each in found if each.info["ppid"] == run.pid and name in " ".join(each.info["cmdline"] or ())
            ]

        worker = wait_for(lambda: children(" worker "), seconds=60, what="a worker")
        (broker,) = children("valkey-server")
        broker.kill()
        assert run.stderr is not None
        said = run.stderr.read()
        assert run.wait(60) == 2, said
    assert "Traceback" not in said
    assert "the private broker ended " in said
    wait_for(lambda: not any(each.is_running() for each in worker), what="the worker to be gone")
