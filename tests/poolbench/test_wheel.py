"""The wheel, in an environment that has nothing else of this repository."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import pytest

from tests.poolbench.environment import ROOT, Installed

pytestmark = pytest.mark.timeout(400)  # the first one makes the environment


def test_it_has_one_top_level_name_and_says_that_it_is_typed(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = wheel.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"poolbench"}
    assert {"poolbench/py.typed", "poolbench/tasks/probe.py"} <= set(names)


def test_the_command_its_version_and_its_completion(installed: Installed) -> None:
    done = installed.run("--version")
    assert (done.returncode, done.stdout.startswith("poolbench, version ")) == (0, True)
    listed = installed.run("--help").stdout
    assert all(f"\n  {name} " in listed for name in ("run", "record", "report", "recommend"))
    completed = installed.call(
        "python", "-c", "import os, poolbench.cli as c; os.environ['_POOLBENCH_COMPLETE'] = 'bash_source'; c.main()",
        cwd=Path("/"),
    )  # fmt: skip
    assert "complete -o nosort" in completed.stdout


def test_celery_lists_it_and_does_not_load_it(installed: Installed) -> None:
    """Celery imports its plug-ins in every worker, so also in those that are measured."""
    assert "  poolbench  Which pool" in installed.call("celery", "--help", cwd=Path("/")).stdout
    program = "import sys, celery.bin.celery; print(*sys.modules)"
    loaded = installed.call("python", "-c", program, cwd=Path("/")).stdout
    ours = {name for name in loaded.split() if name.partition(".")[0] in ("poolbench", "pydantic", "rich", "jinja2")}
    assert ours == {"poolbench", "poolbench.tasks", "poolbench.tasks.plugin"}


def test_an_exit_code_is_that_of_the_command(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert installed.run("recommend", tmp_path / "run.json").returncode == 2
    assert installed.call("celery", "poolbench", "recommend", tmp_path / "run.json", cwd=Path("/")).returncode == 2


def test_the_example_of_the_readme_runs_as_it_stands(installed: Installed, tmp_path: Path) -> None:
    text = (ROOT / "poolbench/README.md").read_text()
    program = re.search(
        r"```python\n(.*?)```\n\n```sh\necho '(.*?)' > args.jsonl\npoolbench (.*?)\n```", text, re.DOTALL
    )
    assert program
    (tmp_path / "shop.py").write_text(program[1])
    (tmp_path / "args.jsonl").write_text(program[2])
    quick = ("--pools", "threads:12", "--seconds", 10, "--repeat", 1, "--noise", 1)
    done = installed.run(*shlex.split(program[3]), *quick, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "At 40/s threads:12 keeps p99 below" in " ".join(done.stdout.split())


def test_links_and_options_of_its_pages_exist(installed: Installed) -> None:
    folder = ROOT / "poolbench"
    text = "".join((folder / name).read_text() for name in ("README.md", "METHOD.md"))
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (folder / link).exists()
    known = "".join(installed.run(name, "--help").stdout for name in ("run", "record", "report", "recommend"))
    named = set(re.findall(r"`(?:[^`\n]* )?(--[a-z-]+)", text)) - {"--help"}
    assert len(named) > 8
    assert {option for option in named if option not in known} == set()
