"""Three projects as others have them are compared without a changed line, and their own servers are never asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.poolbench import foreign_projects
from tests.poolbench.environment import Installed, Listener, read, slow_server

pytestmark = pytest.mark.timeout(400)  # the first one makes the environment

QUICK = ("--seconds", 10, "--repeat", 1, "--noise", 1)


def by_deployment(run: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {turn["deployment"]: turn for turn in run["measurements"]}


def test_a_plain_project_from_the_root_folder_in_all_pools(
    installed: Installed, theirs: Listener, tmp_path: Path
) -> None:
    project = foreign_projects.write(tmp_path / "project", foreign_projects.plain(theirs.url))
    with slow_server(0.1) as url:
        (project / "args.jsonl").write_text("".join(json.dumps([f"{url}{n}"]) + "\n" for n in range(10)))
        done = installed.run(
            "run", "--workdir", project, "-A", "shop.celery", "--task", "shop.tasks.fetch",
            "--args", project / "args.jsonl", "--pools", "prefork:2,threads:8,gevent:20", "--jobs", 40, *QUICK,
            "--json", tmp_path / "run.json", "-o", tmp_path / "report.html",
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert theirs.came == []

    run = read(tmp_path / "run.json")
    measured = by_deployment(run)
    for turn in measured.values():
        checks = turn["checks"]
        assert [checks[name] for name in ("jobs", "done", "once", "here", "right")] == [40] * 5
        assert turn["usage"]["cpu"] > 0
        assert turn["usage"]["pss_peak"] > 10_000_000
        assert turn["usage"]["scheduling"]["samples"] > 0
        for job in turn["jobs"]:
            assert job["queued"] <= job["received"] <= job["attempts"][0]["started"] < job["attempts"][0]["finished"]
    who = {name: [job["attempts"][0]["executor"] for job in turn["jobs"]] for name, turn in measured.items()}
    assert len({each["pid"] for each in who["prefork:2"]}) == 2
    assert {(len({each["pid"] for each in who[name]})) for name in ("threads:8", "gevent:20")} == {1}
    assert len({each["thread"] for each in who["threads:8"]}) == 8
    assert len({each["greenlet"] for each in who["gevent:20"]}) >= 20
    assert measured["threads:8"]["wall"] < measured["prefork:2"]["wall"]
    # The time was told before it was taken.
    assert 0 < done.stdout.index("\nabout ") < done.stdout.index("round 1 of 1")
    assert any("shop.tasks.fetch reached 127.0.0.1:" in note for note in run["notes"])
    assert run["deployments"][0]["command"] == "celery -A shop.celery worker -P prefork -c 2 -Q work"
    assert "threads:8" in (tmp_path / "report.html").read_text()


def test_a_django_project_as_a_command_of_celery(installed: Installed, theirs: Listener, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path / "project", foreign_projects.django(theirs.url))
    (tmp_path / "args.jsonl").write_text('{"task": "orders.tasks.count", "args": [200]}\n')
    done = installed.call(
        "celery", "-A", "mysite", "poolbench", "run", "--args", tmp_path / "args.jsonl",
        "--pools", "prefork:2,threads:4", "--jobs", 20, *QUICK, "--json", tmp_path / "run.json", cwd=project,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert theirs.came == []
    measured = by_deployment(read(tmp_path / "run.json"))
    assert {name: turn["checks"]["once"] for name, turn in measured.items()} == {"prefork:2": 20, "threads:4": 20}


def test_a_flask_project_with_its_factory(installed: Installed, theirs: Listener, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path / "project", foreign_projects.flask(theirs.url))
    (tmp_path / "args.jsonl").write_text('["world"]\n')
    done = installed.run(
        "run", "-A", "make_celery", "--task", "web.greet", "--args", tmp_path / "args.jsonl",
        "--pools", "threads:2,gevent:10", "--jobs", 20, *QUICK, "--json", tmp_path / "run.json", cwd=project,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert theirs.came == []
    measured = by_deployment(read(tmp_path / "run.json"))
    assert {name: turn["checks"]["once"] for name, turn in measured.items()} == {"threads:2": 20, "gevent:10": 20}


def test_what_fails_in_one_pool_only_is_named(installed: Installed, theirs: Listener, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path / "project", foreign_projects.plain(theirs.url))
    names = ["loops", "crashes", "unawaited", "stubborn", "loops"]
    (tmp_path / "calls.jsonl").write_text("".join(f'{{"task": "shop.tasks.{name}"}}\n' for name in names))
    done = installed.run(
        "run", "-A", "shop.celery", "--args", tmp_path / "calls.jsonl", "--pools", "prefork:2,threads:4,gevent:10",
        "--jobs", 10, *QUICK, "--json", tmp_path / "run.json", cwd=project,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    notes: list[str] = read(tmp_path / "run.json")["caveats"]

    def where(error: str) -> str:
        return next(note for note in notes if note.startswith(f"{error} in "))

    assert "gevent:10" in where("RuntimeError")
    assert "nowhere else: asyncio.run() cannot be called from a running event loop" in where("RuntimeError")
    assert where("WorkerLostError").startswith("WorkerLostError in prefork:2 (")
    assert "nowhere else" in where("WorkerLostError")
    assert "signal 6 (SIGABRT)" in where("WorkerLostError")
    assert "Jobs failed, and a measurement counts only if" in " ".join(done.stdout.split())
    for error in ("NeverAwaited", "ValueError"):  # an async def task, and one that gives up at once
        assert "nowhere else" not in where(error)
        assert all(pool in where(error) for pool in ("prefork:2", "threads:4", "gevent:10"))
    attempts = [
        len(job["attempts"])
        for turn in read(tmp_path / "run.json")["measurements"]
        for job in turn["jobs"]
        if "stubborn" in job["url"]
    ]
    assert set(attempts) == {1}  # no retry, though the task asks for 50


def test_retries_and_time_are_capped(installed: Installed, theirs: Listener, tmp_path: Path) -> None:
    project = foreign_projects.write(tmp_path / "project", foreign_projects.plain(theirs.url))
    (tmp_path / "calls.jsonl").write_text(
        '{"task": "shop.tasks.stubborn"}\n{"task": "shop.tasks.nap", "args": [300]}\n{"task": "shop.tasks.parent"}\n'
    )
    done = installed.run(
        "run", "-A", "shop.celery", "--args", tmp_path / "calls.jsonl", "--pools", "threads:6", "--jobs", 3, *QUICK,
        "--retries", 2, "--limit", 2, "--json", tmp_path / "run.json", cwd=project, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 job had not ended after 2 s (--limit)" in done.stdout
    run = read(tmp_path / "run.json")
    jobs = {job["filename"]: job for turn in run["measurements"] for job in turn["jobs"]}
    assert len(jobs["stubborn-0"]["attempts"]) == 3
    assert jobs["nap-1"]["state"] == "running"
    # A task that a task sends is counted; it waits in the private broker.
    assert jobs["parent-2"]["state"] == "done"
    assert any("shop.tasks.parent sent shop.tasks.nap (" in note and "was not run" in note for note in run["notes"])


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
    project = foreign_projects.write(tmp_path / "project", foreign_projects.plain("redis://127.0.0.1:1/0"))
    done = installed.run("run", *words, cwd=project)
    assert done.returncode == 2
    assert said in " ".join((done.stdout + done.stderr).split())
