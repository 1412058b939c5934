"""Three projects as others have them are compared without a changed line, and their own servers are never asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.poolbench import foreign_projects
from tests.poolbench.environment import Compared, Installed, Listener, slow_server

pytestmark = pytest.mark.timeout(400)  # the first one makes the environment


def test_a_plain_project_from_the_root_folder_in_all_pools(
    installed: Installed, theirs: Listener, tmp_path: Path
) -> None:
    project = foreign_projects.write(tmp_path / "project", foreign_projects.plain(theirs.url))
    with slow_server(0.1) as url:
        (tmp_path / "args.jsonl").write_text("".join(f'["{url}{n}"]\n' for n in range(10)))
        done = installed.run(
            "run", "-A", "shop.celery", "--task", "shop.tasks.fetch",
            "--args", tmp_path / "args.jsonl", "--pools", "prefork:2,threads:8,gevent:20", "--jobs", 40,
            "--seconds", 10, "--repeat", 1, "--noise", 1, "--json", "run.json", "-o", "report.html", cwd=project,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert theirs.came == []

    found = Compared(done.stdout, json.loads((project / "run.json").read_text()))
    for turn in found.turns.values():
        checks = turn["checks"]
        assert [checks[name] for name in ("jobs", "done", "once", "here", "right")] == [40] * 5
        assert turn["usage"]["cpu"] > 0
        assert turn["usage"]["pss_peak"] > 10_000_000
        assert turn["usage"]["scheduling"]["p99"] > 0
        for job in turn["jobs"]:
            assert job["queued"] <= job["received"] <= job["attempts"][0]["started"] < job["attempts"][0]["finished"]
    who = {name: [job["attempts"][0]["executor"] for job in turn["jobs"]] for name, turn in found.turns.items()}
    assert len({each["pid"] for each in who["prefork:2"]}) == 2
    assert {(len({each["pid"] for each in who[name]})) for name in ("threads:8", "gevent:20")} == {1}
    assert len({each["thread"] for each in who["threads:8"]}) == 8
    assert len({each["greenlet"] for each in who["gevent:20"]}) >= 20
    assert found.turns["threads:8"]["wall"] < found.turns["prefork:2"]["wall"]
    # The time was told before it was taken.
    assert 0 < done.stdout.index("\nabout ") < done.stdout.index("round 1 of 1")
    assert any("shop.tasks.fetch reached 127.0.0.1:" in note for note in found.run["notes"])
    assert found.run["deployments"][0]["command"] == (
        "celery -A shop.celery worker -P prefork -Q work -n prefork@%h -c 2"
    )
    assert "threads:8" in (project / "report.html").read_text()


DJANGO = (
    foreign_projects.django,
    ("celery", "-A", "mysite", "poolbench", "run"),
    ("orders.tasks.count", 200),
    ("prefork:2", "threads:4"),
)
FLASK = (
    foreign_projects.flask,
    ("poolbench", "run", "-A", "make_celery"),
    ("web.greet", "world"),
    ("threads:2", "gevent:10"),
)


@pytest.mark.parametrize("framework", [DJANGO, FLASK], ids=["django, as a command of celery", "flask, with a factory"])
def test_a_project_with_a_framework(
    installed: Installed, theirs: Listener, tmp_path: Path, framework: tuple[Any, ...]
) -> None:
    files, program, call, pools = framework
    project = foreign_projects.write(tmp_path, files(theirs.url))
    found = installed.compare(project, [call], "--jobs", 20, "--pools", ",".join(pools), program=program)
    assert theirs.came == []
    assert {name: turn["checks"]["once"] for name, turn in found.turns.items()} == dict.fromkeys(pools, 20)


def test_what_fails_in_one_pool_only_is_named(installed: Installed, theirs: Listener, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path, foreign_projects.plain(theirs.url))
    calls = [(f"shop.tasks.{name}",) for name in ("loops", "crashes", "unawaited", "stubborn", "loops")]
    found = installed.compare(project, calls, "--jobs", 10, "--pools", "prefork:2,threads:4,gevent:10", code=1)

    def where(error: str) -> str:
        return next(str(note) for note in found.run["caveats"] if note.startswith(f"{error} in "))

    assert "gevent:10" in where("RuntimeError")
    assert "nowhere else: asyncio.run() cannot be called from a running event loop" in where("RuntimeError")
    assert where("WorkerLostError").startswith("WorkerLostError in prefork:2 (")
    assert "nowhere else" in where("WorkerLostError")
    assert "signal 6 (SIGABRT)" in where("WorkerLostError")
    assert "Jobs failed, and a measurement counts only if" in found.text
    for error in ("NeverAwaited", "ValueError"):  # an async def task, and one that gives up at once
        assert "nowhere else" not in where(error)
        assert all(pool in where(error) for pool in ("prefork:2", "threads:4", "gevent:10"))
    jobs = [job for turn in found.turns.values() for job in turn["jobs"] if job["filename"].startswith("stubborn-")]
    assert {len(job["attempts"]) for job in jobs} == {1}  # no retry, though the task asks for 50


def test_what_fails_in_every_pool_cannot_be_compared(installed: Installed, theirs: Listener, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path, foreign_projects.plain(theirs.url))
    found = installed.compare(
        project, [("shop.tasks.stubborn",)], "--jobs", 4, "--pools", "threads:2,threads:4", code=1
    )
    said = "Every call of shop.tasks.stubborn failed with ValueError in every pool: nothing can be compared."
    assert said in found.text


def test_retries_and_time_are_capped(installed: Installed, theirs: Listener, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path, foreign_projects.plain(theirs.url))
    calls = [("shop.tasks.stubborn",), ("shop.tasks.nap", 300), ("shop.tasks.parent",)]
    words = ("--pools", "threads:6", "--jobs", 3, "--retries", 2, "--limit", 2)
    found = installed.compare(project, calls, *words, code=1)
    assert "1 job had not ended after 2 s (--limit)" in found.text
    jobs = {job["filename"]: job for turn in found.turns.values() for job in turn["jobs"]}
    assert len(jobs["stubborn-0"]["attempts"]) == 3
    assert jobs["nap-1"]["state"] == "running"
    # A task that a task sends is counted; it waits in the private broker.
    assert jobs["parent-2"]["state"] == "done"
    sent = [note for note in found.run["notes"] if "shop.tasks.parent sent shop.tasks.nap (" in note]
    assert any("was not run" in note for note in sent)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-A", "nothing.here", "--task", "x"), "expected a Celery app for -A nothing.here"),
        (("-A", "shop.celery", "--task", "shop.tasks.fetsch"), "it has shop.tasks.fetch"),
        (("-A", "shop.celery", "--task", "shop.tasks.fetch"), "missing 1 required positional argument"),
        (("-A", "shop.celery"), "expected --task NAME, or --args FILE"),
        (("-A", "shop.celery", "--task", "shop.tasks.parent", "--pools", "threads"), "expected POOL:CONCURRENCY"),
        (("-A", "shop.celery", "--task", "shop.tasks.parent", "--arrivals", "fast"), "expected rates per second"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_started(
    installed: Installed, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    project = foreign_projects.write(tmp_path, foreign_projects.plain("redis://127.0.0.1:1/0"))
    done = installed.run("run", *words, cwd=project)
    assert done.returncode == 2
    assert said in " ".join((done.stdout + done.stderr).split())
