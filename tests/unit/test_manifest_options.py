"""Headers and mirrors of a manifest's lines."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from ledger.jobs import Job, Naming
from ledger.records import decode_job, encode_job
from producer.formats import Format
from producer.manifest import BadLine, Names, read


def one(text: str, *, server_names: bool = False) -> Job | BadLine:
    (item,) = read(io.BytesIO(text.encode()), server_names=server_names)
    return item


def line(**fields: object) -> str:
    return json.dumps({"url": "http://a/f", **fields})


def test_json_lines_have_an_object_and_a_list() -> None:
    job = one(line(headers={"Authorization": "Bearer x"}, mirrors=["http://b/f", "http://a/f", "http://b/f"]))
    assert isinstance(job, Job)
    assert (job.headers, job.mirrors) == ((("Authorization", "Bearer x"),), ("http://b/f",))
    assert not job.plain


@pytest.mark.parametrize("cell", ["http://b/f http://c/f", '"[""http://b/f"",""http://c/f""]"'])
def test_csv_cells_hold_json_or_urls(cell: str) -> None:
    text = f'url,headers,mirrors\nhttp://a/f,"{{""X-Key"":""v""}}",{cell}\n'
    job = one(text)
    assert isinstance(job, Job)
    assert (job.headers, job.mirrors) == ((("X-Key", "v"),), ("http://b/f", "http://c/f"))


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": "text"},
        {"headers": ["a"]},
        {"headers": {"a b": "x"}},
        {"headers": {"Host": "x"}},
        {"headers": {"RANGE": "bytes=0-"}},
        {"headers": {"a": "x\r\nb: y"}},
        {"headers": {"a": ""}},
        {"headers": {"a": 1}},
        {"headers": {"a": "ü"}},
        {"headers": {"a": "x", "A": "y"}},
        {"headers": {"a": "x" * 9000}},
        {"mirrors": {"a": "b"}},
        {"mirrors": [1]},
        {"mirrors": ["ftp://b/f"]},
        {"mirrors": "b/f"},
        {"mirrors": [f"http://{n}/f" for n in range(21)]},
    ],
)
def test_what_would_break_or_mislead_a_request_is_a_bad_line(fields: dict[str, object]) -> None:
    item = one(line(**fields))
    assert isinstance(item, BadLine)
    assert "expected" in item.problem


@pytest.mark.parametrize(
    "text",
    [
        '{"url": "http://a/f", "headers": {"Authorization": "Bearer s3cret"',
        '{"url": "http://a/f", "headers": {"Authorization": "s3cret\\n"}}',
        '{"url": "http://a/f", "headers": {"s3cret": 5}, "headers": "s3cret"}',
        '{"headers": {"Authorization": "s3cret"}}',
        '["headers", {"Authorization": "s3cret"}]',
    ],
)
def test_a_bad_line_does_not_repeat_what_its_headers_say(text: str) -> None:
    (item,) = read(io.BytesIO(text.encode()), Format.JSONL)
    assert isinstance(item, BadLine)
    assert "s3cret" not in str(item)


def test_who_names_the_file_is_said_only_where_servers_may() -> None:
    namings = [one(text, server_names=True) for text in (line(), line(filename="x"))]
    assert [job.naming for job in namings if isinstance(job, Job)] == [Naming.SERVER, Naming.RESERVED]
    job = one(line())
    assert isinstance(job, Job)
    assert job.plain


def test_a_line_that_comes_again_is_left_out_and_counted() -> None:
    names = Names(dedup=True)
    lines = [line(), line(filename="x"), line(), line(filename="x", size=1), line(filename="y"), line(url="http://b/f")]
    jobs = list(read(io.BytesIO("\n".join(lines).encode()), names=names))
    assert [job.filename for job in jobs if isinstance(job, Job)] == ["f", "x", "y", "f-2"]
    assert names.repeated == 2


def test_without_being_asked_to_nobody_leaves_a_line_out() -> None:
    assert len(list(read(io.BytesIO(b"http://a/f\nhttp://a/f\n")))) == 2


@pytest.mark.parametrize("sha256", [None, "ab" * 32])
@pytest.mark.parametrize("filename", ["f", "other"])
@pytest.mark.parametrize(
    "options",
    [{}, {"headers": (("A", "b"),)}, {"mirrors": ("http://b/f",)}, {"naming": Naming.SERVER}],
)
def test_options_are_read_back_as_they_were_written(sha256: str | None, filename: str, options: dict[str, Any]) -> None:
    job = Job("http://a/f", filename, sha256, None, **options)
    assert decode_job(encode_job(job)) == job


def test_a_job_without_options_takes_no_room_for_them() -> None:
    assert len(json.loads(encode_job(Job("http://a/f", "f", "ab" * 32, 7)))) == 4
