"""Real workers of all pools and jobs with more than a URL: headers, mirrors, names from servers, files present."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ledger.jobs import FailureKind, Job, JobState, Naming, Pool
from origin.content import Entity
from poolbench.workers import events
from producer.results import Style
from tests.producer_process import run
from tests.unit.download_kit import ok, reciting
from tests.waiting import wait_for
from tests.world import World, lasting, pools

SECRET = "Bearer s3cret-t0ken"  # noqa: S105


world = lasting(read_timeout=3.0, max_attempts=3)


def results(world: World, batch: str, style: str = "jsonl") -> str:
    return run(world.settings, "results", batch, "--format", style).out


@pools
def test_a_job_s_headers_reach_its_server_and_nobody_else_sees_their_values(
    world: World, batch: str, pool: Pool
) -> None:
    with reciting(ok(b"content")) as server:
        job = Job(server.url("/f"), "f", headers=(("Authorization", SECRET), ("X-Kind", "test")))
        world.submit(pool, [job], batch=batch)
        world.done(batch)
        assert f"\r\nAuthorization: {SECRET}\r\n" in server.requests[0]
    assert not any(SECRET in results(world, batch, style) for style in Style)
    row = json.loads(results(world, batch))
    assert row["headers"] == {"Authorization": "***", "X-Kind": "***"}
    assert not any(SECRET in service.text() for service in world.services)


@pools
def test_the_values_of_headers_go_when_the_job_is_done_and_stay_while_it_can_be_tried_again(
    world: World, batch: str, pool: Pool
) -> None:
    mark = f"mark-{batch}"
    headers = {"headers": {"Authorization": f"Bearer {mark}"}}
    rows = [{"url": f"{world.origin.url}/files/{name}?size=99"} | headers for name in ("a", "b")]
    missing = [{"url": f"{world.origin.url}/faults/status/404/c"} | headers]
    lines = "\n".join(map(json.dumps, [*rows, *missing]))
    submit = ["submit", "-i", "-", "--format", "jsonl", "--pool", pool.value, "--per-message", "3", "--name", batch]
    assert run(world.settings, *submit, given=lines).code == 0
    assert [record.state for record in world.finished(batch)] == [JobState.DONE, JobState.DONE, JobState.FAILED]
    redis = world.ledger.redis
    values = repr([redis.hgetall(key) for key in redis.scan_iter(_type="hash")])
    assert values.count(mark) == 1, "of the job that failed"

    again = run(world.settings, *submit, "--json", given=lines)
    assert (again.code, again.json["new"]) == (0, 0), again.err
    retried = run(world.settings, "retry", batch, "--all", "--json")
    assert retried.json["queued"] == 1
    assert "2 jobs stay done: their headers were dropped then" in retried.err
    assert [record.state for record in world.finished(batch)] == [JobState.DONE, JobState.DONE, JobState.FAILED]
    row = json.loads(results(world, batch).splitlines()[0])
    assert row["headers"] == {"Authorization": "***"}


@pools
def test_what_a_server_writes_and_what_a_url_hides_reach_no_log_and_no_page(
    world: World, batch: str, pool: Pool
) -> None:
    """Alone and in a group: redirects with a signed URL, and bytes that steer a terminal."""
    mark, group = f"s3cret-{batch}".encode(), f"{batch[:60]}-g"
    moved = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s?user=" + mark + b"\r\n\r\n"
    answers = [
        moved % b"",
        moved % b"ftp://h/",
        b"220 \x1b]0;title\x07 \x9b31m\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Encoding: \x1b[31m\r\nETag: "\x9b31m"\r\n\r\nx',
    ]
    with ExitStack() as open_:
        heard = open_.enter_context(world.ledger.redis.pubsub())  # type: ignore[no-untyped-call]
        heard.psubscribe("t:/0.celeryev/*")
        servers = [open_.enter_context(reciting(*[answer] * 4)) for answer in answers * 2]
        jobs = [Job(server.url(f"/f?sig={mark.decode()}"), f"f{n}") for n, server in enumerate(servers)]
        world.submit(pool, jobs[:4], batch=batch)
        world.submit(pool, jobs[4:], batch=group, carried=4)
        found = [*world.finished(batch), *world.finished(group)]
        told: list[dict[str, Any]] = []

        def flower_heard_of_both() -> bool:
            told.extend(events((heard.get_message(timeout=0.1) or {}).get("data") or ""))
            failed = [event["uuid"] for event in told if event["type"] == "task-failed"]
            return all(any(id_.startswith(f"{name}.") for id_ in failed) for name in (batch, group))

        wait_for(flower_heard_of_both, what="what Flower hears")
    assert [record.state for record in found] == ([JobState.FAILED] * 3 + [JobState.DONE]) * 2
    said = [text for event in told for text in event.values() if isinstance(text, str)]
    said += [results(world, name, style) for name in (batch, group) for style in Style]
    said.append(world.service(f"worker-{pool}").text())
    for text in said:
        assert mark.decode() not in text
        assert not [c for c in text if not (c.isprintable() or c == "\n")]


@pools
def test_user_and_password_of_a_url_reach_its_server_and_nobody_else_sees_them(
    world: World, batch: str, pool: Pool
) -> None:
    secret = base64.b64encode(b"me:s3 cret").decode()
    with reciting(ok(b"content")) as server:
        url = server.url("/f").replace("://", "://me:s3%20cret@")
        said = run(world.settings, "submit", "--name", batch, "--pool", pool.value, url)
        world.done(batch)
        assert f"\r\nAuthorization: Basic {secret}\r\n" in server.requests[0]
    shown = [said.err, *(results(world, batch, style) for style in (Style.CSV, Style.JSONL))]
    assert not any(each in text for each in (secret, "s3") for text in shown)
    assert not any(each in service.text() for each in (secret, "s3%20cret") for service in world.services)


@pools
def test_a_mirror_brings_what_the_server_cannot(world: World, batch: str, pool: Pool) -> None:
    good, url = world.file("m.bin", 5000), world.origin.url
    bad = [f"{url}/faults/status/404/m.bin", f"{url}/faults/cut-body/m.bin?size=5000", "http://169.254.169.254/m.bin"]
    jobs = [replace(good, url=first, filename=f"{n}", mirrors=(good.url,)) for n, first in enumerate(bad)]
    jobs.append(replace(good, url=bad[0], filename="3", mirrors=(bad[1], bad[2], good.url)))
    world.submit(pool, jobs, batch=batch)
    records = world.done(batch)
    assert all("mirror: 127.0.0.1" in record.notes for record in records)
    kinds = [[attempt.kind for attempt in record.attempts] for record in records]
    status, cut, refused = FailureKind.STATUS, FailureKind.TRUNCATED, FailureKind.REFUSED
    assert kinds == [[status, None], [cut, None], [refused, None], [status, cut, refused, None]]


@pools
def test_when_all_urls_have_failed_for_good_the_job_has_and_until_then_it_goes_round(
    world: World, batch: str, pool: Pool
) -> None:
    url = world.origin.url
    missing = [f"{url}/faults/status/{code}" for code in (404, 410)]
    world.submit(
        pool,
        [
            Job(missing[0], "a", mirrors=(missing[1],)),
            Job(missing[0], "b", mirrors=(f"{url}/faults/flaky/503?times=1&key={batch}&size=99",)),
        ],
        batch=batch,
    )
    a, b = world.finished(batch)
    assert (a.state, [attempt.status for attempt in a.attempts]) == (JobState.FAILED, [404, 410])
    assert (b.state, [attempt.status for attempt in b.attempts]) == (JobState.DONE, [404, 503, 200])


@pools
@pytest.mark.parametrize("begun", [b"a", b"b"], ids=["the same", "another edition"])
def test_with_a_digest_a_file_is_continued_without_an_etag_and_judged(tmp_path: Path, pool: Pool, begun: bytes) -> None:
    """Given two attempts; a beginning of another edition costs one more, from the beginning."""
    size, kinds = 200_000, [FailureKind.TRUNCATED]
    body, rest = b"a" * size, f"Content-Range: bytes 100000-{size - 1}/{size}"
    scripts = [ok(begun * 100_000, length=size), ok(body[100_000:], rest, status="206 P"), ok(body)]
    with World(tmp_path, max_attempts=2) as world, reciting(*scripts) as server:
        world.start(pool)
        world.submit(pool, [Job(server.url("/f"), "f", sha256=hashlib.sha256(body).hexdigest())])
        (record,) = world.done()
        assert "range: bytes=100000-" in server.requests[1].lower()
        kinds += [FailureKind.CHANGED] if begun == b"b" else []
        assert [attempt.kind for attempt in record.attempts] == [*kinds, None]
        world.check_files([record])


def proposing(world: World, value: str, name: str) -> Job:
    url = f"{world.origin.url}/faults/disposition/{name}?size=99&name={quote(name)}&value={quote(value)}"
    return Job(url, name, naming=Naming.SERVER)


@pools
def test_the_server_names_the_file_and_no_two_files_share_a_name(world: World, batch: str, pool: Pool) -> None:
    jobs = [
        proposing(world, 'attachment; filename="report.pdf"', "0"),
        proposing(world, 'attachment; filename="Report.PDF"', "1"),
        proposing(world, "attachment; filename*=UTF-8''%e2%82%ac.txt; filename=x", "2"),
        proposing(world, 'attachment; filename="../../etc/passwd"', "3"),
        proposing(world, "inline", "4"),
        proposing(world, 'attachment; filename="given.txt"', "5"),
        Job(f"{world.origin.url}/files/6?size=99", "Given.txt", naming=Naming.RESERVED),
        proposing(world, 'attachment; filename="folder"', "7"),
        Job(f"{world.origin.url}/files/8?size=99", "folder/x", naming=Naming.RESERVED),
    ]
    world.ledger.reserve_manifest_names(batch, enumerate(jobs))
    world.submit(pool, jobs, batch=batch)
    records = world.done(batch)
    names = [record.path.removeprefix(f"{batch}/") for record in records]
    assert names[:2] in (["report.pdf", "Report-1.PDF"], ["report-0.pdf", "Report.PDF"])
    assert names[2:] == ["€.txt", "passwd", "4", "given-5.txt", "Given.txt", "folder-7", "folder/x"]
    for record in records:
        world.content(record)
    assert sum(path.is_file() for path in (world.settings.downloads / batch).rglob("*")) == len(jobs)


@pools
def test_a_name_from_the_server_stays_in_its_shard(world: World, batch: str, pool: Pool) -> None:
    url = f"{world.origin.url}/faults/disposition/a?size=9&value={quote('attachment; filename=../report.pdf')}"
    lines = "\n".join(f"{url}&n={number}" for number in range(5))
    options = ["--names", "server", "--shard", "2", "--pool", pool.value, "--per-message", "5"]
    assert run(world.settings, "submit", "-i", "-", "--name", batch, *options, given=lines).code == 0
    records = world.done(batch)
    found = sorted(record.path.removeprefix(f"{batch}/") for record in records)
    assert all(world.content(record) for record in records)
    assert [name.partition("/")[0] for name in found] == ["0000", "0000", "0001", "0001", "0002"]
    assert {"0000/report.pdf", "0001/report.pdf", "0002/report.pdf"} <= set(found)


def test_the_producer_reserves_the_names_that_it_was_given(world: World, batch: str) -> None:
    url = f"{world.origin.url}/faults/disposition/a?size=9&value={quote('attachment; filename=kept.bin')}"
    lines = [
        json.dumps({"url": url}),
        json.dumps({"url": f"{world.origin.url}/files/b?size=9", "filename": "kept.bin"}),
    ]
    said = run(world.settings, "submit", "-i", "-", "--names", "server", "--name", batch, given="\n".join(lines))
    assert said.code == 0
    assert [record.path for record in world.finished(batch)] == [f"{batch}/kept-0.bin", f"{batch}/kept.bin"]


@pools
def test_a_file_that_is_there_and_has_the_digest_is_not_downloaded(world: World, batch: str, pool: Pool) -> None:
    names = [f"{batch}-{n}.bin" for n in range(3)]
    jobs = [world.file(name, 300_000) for name in names]
    world.submit(pool, jobs, batch=batch)
    first = world.finished(batch)
    (world.settings.downloads / first[1].path).write_bytes(b"touched by somebody")
    (world.settings.downloads / first[2].path).unlink()
    assert run(world.settings, "retry", batch, "--all", "--json").json["queued"] == 3
    there, touched, gone = world.finished(batch)
    assert (there.notes, gone.notes) == (("present",), ("repr-digest: verified",))
    assert touched.notes == ("repr-digest: verified", "name: taken by another file")
    assert (there.sha256, there.bytes) == (jobs[0].sha256, 300_000)
    asked = [sum(name in each["path"] for each in world.origin.requests()) for name in names]
    assert asked == [1, 2, 2]
    for record in (there, touched, gone):
        assert world.content(record)
        assert record.sha256 == record.job.sha256


@pools
@pytest.mark.parametrize("carried", [1, 7])
def test_each_digest_and_the_size_that_a_manifest_may_have_are_verified_alone_and_in_a_group(
    world: World, batch: str, pool: Pool, carried: int
) -> None:
    jobs = []
    for algorithm in ("md5", "sha1", "sha512"):
        plain = world.file(f"{batch}-{algorithm}.bin", 3000)
        digest = hashlib.new(algorithm, Entity(plain.filename, 3000).read(0, 3000)).hexdigest()
        for expected in (digest, digest[::-1]):
            name = f"{algorithm}-{expected == digest}"
            jobs.append(replace(plain, filename=name, sha256=None, digest=f"{algorithm}:{expected}"))
    jobs.append(replace(plain, filename="long", size=2999))
    world.submit(pool, jobs, batch=batch, carried=carried)
    *records, long = world.finished(batch)
    assert (long.state, long.last and long.last.kind) == (JobState.FAILED, FailureKind.SIZE)
    for good, bad in zip(records[::2], records[1::2], strict=True):
        algorithm = good.path.partition("/")[2].partition("-")[0]
        assert good.state is JobState.DONE
        assert f"{algorithm}: verified" in good.notes
        assert (bad.state, bad.last and bad.last.kind) == (JobState.FAILED, FailureKind.DIGEST)
        assert f"expected {algorithm} " in str(bad.last)
    # What is there is verified by the same digest.
    assert run(world.settings, "retry", batch, "--all", "--json").json["queued"] == 7
    again = world.finished(batch)[:6]
    assert [record.notes for record in again[::2]] == [("present",)] * 3
    assert [record.sha256 for record in again] == [record.sha256 for record in records]


def needs_attributes(folder: Path) -> None:
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.probe", b"x")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    finally:
        probe.unlink()


@pools
def test_a_file_that_the_server_says_is_unchanged_is_not_downloaded(world: World, batch: str, pool: Pool) -> None:
    needs_attributes(world.folder)
    names = [f"{batch}-{n}.bin" for n in range(3)]
    world.submit(pool, [replace(world.file(name, 300_000), sha256=None, size=None) for name in names], batch=batch)
    first = world.finished(batch)
    touched, replaced = (world.settings.downloads / record.path for record in first[1:])
    touched.touch()
    replaced.unlink()
    replaced.write_bytes(b"something else")
    run(world.settings, "retry", batch, "--all")
    again = world.finished(batch)
    assert [record.notes == ("unchanged",) for record in again] == [True, False, False]
    assert [record.last.status for record in again if record.last] == [304, 200, 200]
    assert [record.sha256 for record in again] == [record.sha256 for record in first]
    assert [record.path for record in again[:2]] == [record.path for record in first[:2]]
    assert replaced.read_bytes() == b"something else"
    for record in again:
        world.content(record)


@pools
@pytest.mark.parametrize("carried", [1, 4], ids=["single", "chunk"])
def test_a_file_in_the_way_that_is_not_the_job_s_is_kept(world: World, batch: str, pool: Pool, carried: int) -> None:
    folder, jobs = world.settings.downloads / batch, [replace(world.file(f"{n}.bin"), sha256=None) for n in range(4)]
    folder.mkdir(parents=True)
    (folder / "0.bin").write_text("a user's own")
    (folder / "1.bin").mkdir()
    equal = Entity("2.bin", 4096).read(0, 4096)
    (folder / "2.bin").write_bytes(equal)
    inode = (folder / "2.bin").stat().st_ino
    for name in ("3.bin", "3-3.bin", "3-3-3.bin", "3-3-3-3.bin"):
        (folder / name).write_text("a user's own")
    world.submit(pool, jobs, batch=batch, carried=carried)
    own, beside_folder, same, none = records = world.finished(batch)
    assert [record.state for record in records] == [JobState.DONE] * 3 + [JobState.FAILED]
    assert [record.path for record in records[:3]] == [f"{batch}/{name}" for name in ("0-0.bin", "1-1.bin", "2.bin")]
    assert "name: taken by another file" in own.notes
    assert "name: taken by another file" in beside_folder.notes
    assert "name: taken by another file" not in same.notes
    assert none.last is not None
    assert none.last.kind is FailureKind.NAME
    assert "expected a free name like '3.bin'" in str(none.last.reason)
    for record in records[:3]:
        world.content(record)
    assert {(folder / name).read_text() for name in ("0.bin", "3.bin", "3-3-3-3.bin")} == {"a user's own"}
    assert (folder / "2.bin").stat().st_ino == inode
    assert not list((world.settings.downloads / ".partial").glob(f"{batch}.*"))


@pools
def test_a_file_in_the_way_is_replaced_only_if_it_was_published_for_this_name_and_not_touched(
    world: World, batch: str, pool: Pool
) -> None:
    needs_attributes(world.folder)
    other, mine = batch.upper(), world.settings.downloads / batch / "f"
    bodies = [b"one", b"two", b"six", b"ten", b"end"]
    with reciting(*map(ok, bodies)) as server:
        job = Job(server.url("/f"), "f", mirrors=(server.url("/mirror"),))  # asks once, see download.many
        world.submit(pool, [job], batch=other)
        (record,) = world.finished(other)
        mine.parent.mkdir()
        mine.hardlink_to(world.settings.downloads / record.path)  # as where case does not count
        world.submit(pool, [job], batch=batch)
        (record,) = world.finished(batch)
        assert (record.path, mine.read_bytes()) == (f"{batch}/f-0", bodies[0])

        mine = mine.with_name("f-0")
        for body in bodies[2:4]:
            run(world.settings, "retry", batch, "--all")
            (record,) = world.finished(batch)
            assert (record.path, mine.read_bytes()) == (f"{batch}/f-0", body)  # its own of before
            note = json.loads(os.getxattr(mine, "user.downpour"))
            assert note.pop("wanted")
            os.setxattr(mine, "user.downpour", json.dumps(note).encode())  # as the version before wrote it

        mine.write_bytes(b"edited")
        run(world.settings, "retry", batch, "--all")
        (record,) = world.finished(batch)
        assert (record.path, mine.read_bytes()) == (f"{batch}/f-0-0", b"edited")
        assert world.content(record) == bodies[4]


@pools
def test_a_file_has_the_time_that_its_server_says(world: World, batch: str, pool: Pool) -> None:
    date = "Tue, 15 Nov 1994 12:45:26 GMT"
    with reciting(ok(b"content", f"Last-Modified: {date}")) as server:
        world.submit(pool, [Job(server.url("/f"), "f")], batch=batch)
        (record,) = world.finished(batch)
    assert (world.settings.downloads / record.path).stat().st_mtime == parsedate_to_datetime(date).timestamp()
