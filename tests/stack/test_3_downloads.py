"""Jobs go in through the producer's container, come out of every pool, and are what the origin serves."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from tests.stack.compose_project import Stack

# Run where the origin is: what it serves, without any code of ours that downloads.
FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().hex())"


def results(stack: Stack, batch: str) -> list[dict[str, Any]]:
    said = stack.producer("results", batch, "--format", "jsonl")
    assert said.code in (0, 1), said.err  # 1: not every job is done
    return list(said.lines())


def workers_of(records: list[dict[str, Any]]) -> Counter[str]:
    return Counter(attempt["worker"] for record in records for attempt in record["attempt_list"])


def test_what_is_submitted_to_all_pools_arrives_byte_by_byte(stack: Stack) -> None:
    # Given files of some sizes, one of them empty, one of them slow
    urls = [f"http://origin:8080/files/stack-{size}.bin?size={size}" for size in (0, 1, 65_536, 1_000_003, 5_000_000)]
    urls.append("http://origin:8080/paced/2/stack-slow.bin?size=300000")

    # If they are submitted to each pool in turn
    said = stack.producer("submit", *urls, "--pool", "all", "--name", "stack-all", "--wait")

    # I expect success, and files that are those of the origin
    assert said.code == 0, said.out + said.err
    records = results(stack, "stack-all")
    assert [record["outcome"] for record in records] == ["done"] * len(urls)
    assert {worker.partition("@")[0] for worker in workers_of(records)} == {"prefork", "threads", "gevent"}
    for url, record in zip(urls, records, strict=True):
        served = bytes.fromhex(stack.inside("origin", "python", "-c", FETCH, url.replace("origin:", "127.0.0.1:")))
        path = f"/downloads/stack-all/{url.split('?')[0].rpartition('/')[2]}"
        on_disk = stack.inside("worker-threads", "sha256sum", path).split()[0]
        assert on_disk == hashlib.sha256(served).hexdigest(), url
        assert record["sha256"] == on_disk


def test_a_file_that_does_not_exist_is_a_failed_job_and_an_exit_code(stack: Stack) -> None:
    url = "http://origin:8080/faults/status/404"
    said = stack.producer("submit", url, "--pool", "threads", "--name", "stack-missing", "--wait")
    assert said.code not in (0, 2), said.out + said.err
    assert [record["outcome"] for record in results(stack, "stack-missing")] == ["failed"]


def test_redis_and_its_neighbours_cannot_be_downloaded_from(stack: Stack) -> None:
    urls = ["http://redis:8080/", "http://flower:8080/", "http://127.0.0.1:8080/", "http://169.254.169.254/latest"]
    said = stack.producer("submit", *urls, "--pool", "all", "--name", "stack-refused", "--wait")
    assert said.code != 0
    kinds = [record["kind"] for record in results(stack, "stack-refused")]
    # Flower is on no network of the workers' but the back end; a name that does not resolve is as good as refused.
    assert set(kinds) <= {"refused", "dns"}, kinds


def test_the_comparison_runs_against_the_containers(stack: Stack) -> None:
    said = stack.producer("compare", "--no-serial", "--seed", "1", "--json", "-", seconds=300)
    assert said.code == 0, said.out[-2000:] + said.err[-2000:]
    experiment = json.loads(said.out)
    assert {each["pool"] for each in experiment["deployments"]} == {"prefork", "threads", "gevent"}
    books = [turn["checks"] for turn in experiment["measurements"]]
    assert len(books) == 3
    assert all(book["jobs"] == book["done"] == book["once"] == book["here"] == book["right"] for book in books)


def test_three_workers_of_one_pool_share_its_queue(stack: Stack) -> None:
    # Given two more workers
    stack.up("--no-recreate", "--scale", "worker-threads=3")
    assert [c["State"]["Health"]["Status"] for c in stack.containers()["worker-threads"]] == ["healthy"] * 3

    # If more jobs come than two workers can run at once
    urls = [f"http://origin:8080/paced/3/scaled-{n}.bin?size=1000" for n in range(24)]
    said = stack.producer("submit", *urls, "--pool", "threads", "--name", "stack-scaled", "--wait")

    # I expect that all three took part
    assert said.code == 0, said.out + said.err
    assert len(workers_of(results(stack, "stack-scaled"))) == 3
    stack.up("--no-recreate", "--scale", "worker-threads=1")
    assert len(stack.containers()["worker-threads"]) == 1
