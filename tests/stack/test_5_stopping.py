"""`docker compose stop` in the middle of long jobs: in time, with clean exits, and nothing is lost."""

from __future__ import annotations

import time

from tests.stack.compose_project import LASTING, WORKERS, Stack
from tests.stack.test_3_downloads import results
from tests.waiting import wait_for

JOBS = 6


def states(stack: Stack, batch: str) -> list[str]:
    return [record["outcome"] for record in results(stack, batch)]


def test_a_stop_in_the_middle_hands_the_jobs_back_and_the_next_start_finishes_them(stack: Stack) -> None:
    # Given jobs of 40 seconds, all of them running, more than the grace of 20 seconds
    urls = [f"http://origin:8080/paced/40/long-{n}.bin?size=400000" for n in range(JOBS)]
    said = stack.producer("submit", *urls, "--pool", "all", "--name", "stack-long")
    assert said.code == 0, said.out + said.err
    wait_for(lambda: states(stack, "stack-long") == ["running"] * JOBS, seconds=30, what="all jobs run", every=0.5)
    assert stack.redis("acl", "log") == ""  # Redis forgets this log when it stops
    books = stack.producer("results", "stack-all", "--format", "jsonl").out

    # If the stack is stopped
    began = time.monotonic()
    stack.done("stop", seconds=120)
    took = time.monotonic() - began

    # I expect that nobody had to be killed
    assert took < 32, f"took {took:.1f} s"
    exits = {name: found[0]["State"]["ExitCode"] for name, found in stack.containers().items()}
    assert exits == dict.fromkeys(["keys", *LASTING], 0)
    assert not any(found[0]["State"]["OOMKilled"] for found in stack.containers().values())

    # ... and that the books are the same and the jobs go on when the stack is started again
    stack.up()
    assert books
    assert stack.producer("results", "stack-all", "--format", "jsonl").out == books
    assert "failed" not in states(stack, "stack-long")
    wait_for(lambda: states(stack, "stack-long") == ["done"] * JOBS, seconds=90, what="all jobs are done", every=0.5)
    assert "LOST" not in stack.logs(*WORKERS)


def test_a_killed_worker_comes_back_and_its_jobs_are_run_again(stack: Stack) -> None:
    urls = [f"http://origin:8080/paced/6/killed-{n}.bin?size=60000" for n in range(3)]
    said = stack.producer("submit", *urls, "--pool", "gevent", "--name", "stack-killed")
    assert said.code == 0, said.out + said.err
    wait_for(lambda: states(stack, "stack-killed") == ["running"] * 3, seconds=30, what="all jobs run", every=0.5)
    stack.inside("worker-gevent", "sh", "-c", "kill -KILL $(cat /proc/1/task/1/children)")  # 1 is the init
    wait_for(lambda: states(stack, "stack-killed") == ["done"] * 3, seconds=60, what="all jobs are done", every=0.5)
    stack.up()  # everybody healthy again
