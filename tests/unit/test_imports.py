"""What the commands that people wait for do not import. A list instead of a time: the time of a start is noise."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ledger.settings import Settings
from tests.worker_process import ROOT, environment_of

NEVER = {"celery", "kombu", "billiard", "vine", "gevent", "urllib3", "pycurl", "psutil", "jinja2", "stack", "poolbench"}
ONLY_A_WATCH = {"rich.console", "rich.live", "rich.progress", "rich.table"}
ONLY_REDIS = {"redis", "pydantic", "pydantic_settings", "rich", "asyncio", "ledger.ledger", "ledger.settings"}
ONLY_A_SUBMISSION = {"producer.manifest", "producer.formats", "producer.submit", "pyexpat"}
ONLY_WHAT_IS_ASKED_FOR = {"producer.compare", "producer.downloads", "producer.watch"}


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], NEVER | ONLY_A_WATCH | ONLY_REDIS | ONLY_A_SUBMISSION | ONLY_WHAT_IS_ASKED_FOR),
        (["status"], NEVER | ONLY_A_WATCH | ONLY_A_SUBMISSION | ONLY_WHAT_IS_ASKED_FOR),
        (["submit", "http://a/x"], NEVER | ONLY_A_WATCH | ONLY_WHAT_IS_ASKED_FOR),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_quick_command_imports_little(settings: Settings, words: list[str], absent: set[str]) -> None:
    program = (
        "import sys\nfrom producer.cli import run\n"
        f"code = run({words!r})\nprint(*sys.modules, file=sys.__stderr__)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment_of(settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert absent & set(done.stderr.splitlines()[-1].split()) == set()
