"""Replacing the workers one after the other under load, as a deployment does: nothing is lost, nothing is repeated."""

from __future__ import annotations

from tests.stack.compose_project import WORKERS, Stack
from tests.stack.test_3_downloads import results
from tests.stack.test_5_stopping import states
from tests.waiting import wait_for

JOBS = 90


def test_workers_recreated_under_load_lose_and_repeat_nothing(stack: Stack) -> None:
    # Given more jobs of 3 seconds than the workers can run at once, so that some run and others wait
    urls = "".join(f"http://origin:8080/paced/3/rolling-{n}.bin?size=30000\n" for n in range(JOBS))
    said = stack.producer("submit", "-i", "-", "--pool", "all", "--name", "stack-rolling", stdin=urls)
    assert said.code == 0, said.out + said.err
    wait_for(lambda: "running" in states(stack, "stack-rolling"), seconds=30, what="jobs run", every=0.5)

    # If each worker is replaced by a new container while they run
    for worker in WORKERS:
        before = stack.containers()[worker][0]["Id"]
        stack.done("up", "--detach", "--wait", "--force-recreate", worker, seconds=120)
        assert stack.containers()[worker][0]["Id"] != before

    # I expect every job to be done, by exactly one attempt that came to its end
    wait_for(lambda: set(states(stack, "stack-rolling")) == {"done"}, seconds=120, what="all jobs are done", every=0.5)
    for record in results(stack, "stack-rolling"):
        kinds = [attempt["kind"] for attempt in record["attempt_list"]]
        assert "lost" not in kinds, record["id"]
        assert sum(attempt["bytes"] for attempt in record["attempt_list"]) == 30_000, "something was downloaded twice"
