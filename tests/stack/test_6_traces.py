"""After all of that: what the stack has left in its logs."""

from __future__ import annotations

import re

from tests.stack.compose_project import WORKERS, Stack

NOISE = re.compile(r"ERROR|CRITICAL|Traceback|WARNING|Warning|Exception")


def test_redis_had_to_deny_nobody_anything(stack: Stack) -> None:
    assert stack.redis("acl", "log") == ""


def test_the_workers_sweep_and_flower_logged_no_warnings(stack: Stack) -> None:
    noise = [line for line in stack.logs(*WORKERS, "sweep", "flower").splitlines() if NOISE.search(line)]
    assert noise == []


def test_nothing_half_written_is_left_and_what_redis_holds_is_what_it_accepted(stack: Stack) -> None:
    assert stack.inside("worker-prefork", "find", "/downloads/.partial", "-type", "f").split() == []
