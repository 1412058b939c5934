"""The page of the doctor is what its checks make, and the evidence of each check exists and says what it should."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from poolbench.doctor.diagnosis import CHECKS
from tests.doctor import page

ROOT = Path(__file__).parents[2]
TESTS = {"test": "tests/service/test_doctor.py", "pools": "tests/pools/test_doctor_evidence.py"}
# What the matrix must say, so that the words of a check are true: row, columns, outcome.
MATRIX = {
    "P01": ("soft-time-limit", "threads gevent", "ignored"),
    "P02": ("hard-time-limit", "threads", "ignored"),
    "P03": ("max-tasks-per-child", "threads gevent", "ignored"),
    "P07": ("autoscale", "threads", "crashes the worker"),
    "P08": ("heartbeat", "gevent", "silent"),
    "P09": ("async-def-ignore-result", "prefork threads gevent", "never runs"),
    "R01": ("worker-killed-acks-late-tuned", "gevent", "not in time"),
    "R02": ("longer-than-visibility", "prefork threads", "runs twice"),
    "R03": ("worker-killed", "prefork threads gevent", "lost"),
    "R04": ("poison", "prefork", "repeats for ever"),
    "R05": ("redis-restarts", "prefork threads", "crashes the worker"),
    "R09": ("worker-killed-acks-late", "prefork threads", "not in time"),
    "D01": ("docker-stop", "prefork threads gevent", "lost"),
}


def test_the_page_is_what_the_checks_make() -> None:
    assert (ROOT / "docs/doctor.md").read_text() == page.page()


@pytest.mark.parametrize("code", CHECKS)
def test_the_command_of_the_evidence_selects_a_test(code: str) -> None:
    found = re.fullmatch(r'make (test|pools|matrix) ARGS="-k ([\w-]+)"', CHECKS[code].again)
    assert found, CHECKS[code].again
    target, key = found.groups()
    if target == "matrix":
        assert MATRIX[code][0] == key
    else:
        names = re.findall(r"^def (test_\w+)\(", (ROOT / TESTS[target]).read_text(), re.MULTILINE)
        assert any(key in name for name in names), names


@pytest.mark.parametrize("code", MATRIX)
def test_the_matrix_says_what_the_check_says(code: str) -> None:
    row, columns, outcome = MATRIX[code]
    cells = json.loads((ROOT / "tests/matrix/expected.json").read_text())["cells"][row]
    assert {pool: cells[f"Celery {pool}"] for pool in columns.split()} == {pool: [outcome] for pool in columns.split()}
    assert CHECKS[code].again == f'make matrix ARGS="-k {row}"'
