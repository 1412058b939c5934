"""After all of that: what the stack has left in its logs."""

from __future__ import annotations

import re

from tests.stack.compose_project import WORKERS, Stack

NOISE = re.compile(r"ERROR|CRITICAL|Traceback|WARNING|Warning|Exception")


def test_redis_had_to_deny_nobody_anything(stack: Stack) -> None:
    assert stack.redis("acl", "log") == ""


def test_no_script_failed_and_no_command_was_rejected(stack: Stack) -> None:
    statistics = stack.redis("info", "commandstats").splitlines()
    assert [line for line in statistics if re.search(r"rejected_calls=[1-9]", line)] == []


def test_the_workers_sweep_and_flower_logged_no_warnings(stack: Stack) -> None:
    noise = [line for line in stack.logs(*WORKERS, "sweep", "flower").splitlines() if NOISE.search(line)]
    assert noise == []


def test_nothing_half_written_carries_a_final_name(stack: Stack) -> None:
    files = stack.inside("worker-prefork", "find", "/downloads", "-type", "f", "-printf", "%P\n").split()
    assert files
    assert [file for file in files if re.search(r"(^|/)\.|\.part|\.tmp", file)] == []
