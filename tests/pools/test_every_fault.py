"""Every row of the origin's table of faults as a job on real workers of all pools, alone and in a message of many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from download.tempfile import FOLDER
from ledger.jobs import Attempt, FailureKind, Job, JobRecord, JobState, Pool
from tests.hostile import ALLOWED, CASES, LIMITS, ROWS, TIMES, Case
from tests.world import World, pools

_BEFORE_STATUS = (FailureKind.PROTOCOL, FailureKind.TIMEOUT, FailureKind.TRUNCATED, FailureKind.REFUSED)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(
        tmp_path_factory.mktemp("world"), max_attempts=TIMES, retry_base=0.05, allow_networks=ALLOWED, **LIMITS
    ) as world:
        bomb = next(case for case in CASES if case.name == "bomb").url(world.origin.url, "")
        urllib3.request("GET", bomb, preload_content=False, decode_content=False).release_conn()  # it is made once
        yield world.start(*Pool, slots=10)


def test_each_row_of_the_table_has_what_must_become_of_it() -> None:
    assert [case.row for case in CASES] == list(ROWS)


@pytest.fixture(scope="module")
def agreed() -> dict[str, Any]:
    """What the first pool and path recorded of each row."""
    return {}


@pools
@pytest.mark.parametrize("carried", [1, len(CASES)], ids=["alone", "in a chunk"])
def test_whatever_a_server_does_the_file_is_whole_or_the_record_says_why(
    world: World, agreed: dict[str, Any], pool: Pool, carried: int
) -> None:
    batch = f"{pool}-{carried}"
    jobs = [Job(case.url(world.origin.url, f"{batch}-{case.name}"), case.name) for case in CASES]
    world.submit(pool, jobs, batch=batch, carried=carried)
    records = world.finished(batch, seconds=90)
    said = {case.row: differs(world, case, record) for case, record in zip(CASES, records, strict=True)}
    wrong = {row: what for row, what in said.items() if what}
    assert wrong == {}
    expected = sorted(case.name for case in CASES if case.works)
    assert sorted(path.name for path in (world.settings.downloads / batch).iterdir()) == expected
    assert list((world.settings.downloads / FOLDER).glob(f"{batch}.*")) == []
    for case, record in zip(CASES, records, strict=True):
        attempts = [(attempt.kind, attempt.status) for attempt in record.attempts]
        told = attempts, record.notes, record.sha256, record.content_type, record.final_url
        assert agreed.setdefault(case.row, told) == told, case.row
    login = records[[case.name for case in CASES].index("login.bin")]
    assert login.final_url == f"{world.origin.url}/faults/login.bin/sign-in"
    assert login.content_type == "text/html; charset=utf-8"


def differs(world: World, case: Case, record: JobRecord) -> str | None:
    """What is not as it must be."""
    ends = tuple(attempt.kind for attempt in record.attempts)
    if ends != case.ends or (record.state is JobState.DONE) != case.works:
        return f"{record.state} after {ends}: {[attempt.reason for attempt in record.attempts]}"
    if silent := [attempt for attempt in record.attempts if not tells_all(attempt)]:
        return f"an attempt that does not tell all: {silent}"
    return another_file(world, case, record) if case.works else None


def tells_all(attempt: Attempt) -> bool:
    """Who, how long, why, and with which status if the server got as far as that."""
    reason = attempt.kind is None or attempt.reason
    status = attempt.status is not None or (attempt.kind in _BEFORE_STATUS and not attempt.bytes)
    in_order = attempt.started <= attempt.finished  # an attempt can be shorter than the record's milliseconds
    return bool(attempt.executor and in_order and reason and status)


def another_file(world: World, case: Case, record: JobRecord) -> str | None:
    content = (world.settings.downloads / record.path).read_bytes()
    if not hashlib.sha256(content).hexdigest() == case.sha256 == record.sha256:
        return f"another file: {len(content)} bytes"
    if record.bytes != len(content) or (case.note and case.note not in record.notes):
        return f"{record.bytes} bytes, notes {record.notes}"
    return None
