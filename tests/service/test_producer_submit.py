"""Submitting: records before messages, nothing twice, nothing lost, whatever happens to the producer in between."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.jobs import Batch, Job, JobState, Pool, Ref
from ledger.ledger import Ledger
from ledger.redis_client import connect
from ledger.settings import Settings
from ledger.sweep import Sweep
from tests.producer_process import Said, finish, run, start
from tests.waiting import wait_for
from tests.worker_process import ROOT, environment_of


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    redis = connect(settings)
    yield Ledger(redis, settings.key_prefix)
    redis.close()


def batch_of(ledger: Ledger) -> Batch:
    batch = ledger.batch("b")
    assert batch is not None
    return batch


def manifest(folder: Path, count: int) -> Path:
    file = folder / "manifest.txt"
    file.write_text("".join(f"http://host.example/files/{number}.bin\n" for number in range(count)))
    return file


def queued_refs(ledger: Ledger, pool: Pool = Pool.THREADS) -> Counter[str]:
    messages = ledger.redis.lrange(ledger.keys.queue(pool), 0, -1)
    return Counter(json.loads(message)["headers"]["id"] for message in messages)


def test_each_job_has_a_record_and_one_message_and_the_batch_is_sealed(ledger: Ledger, settings: Settings) -> None:
    said = run(settings, "submit", "--name", "b", "http://a/x", "http://a/y?token=secret", "http://u:secret@a/x")
    assert (said.code, said.out) == (0, "b\n")
    assert "secret" not in said.err
    batch = batch_of(ledger)
    assert batch.total == 3
    records = list(ledger.read_batch(batch))
    assert [record.path for record in records] == ["b/x", "b/y", "b/x-2"]
    assert {record.state for record in records} == {JobState.QUEUED}
    assert queued_refs(ledger) == Counter(["b.0", "b.1", "b.2"])


def test_all_spreads_the_jobs_over_the_three_queues_in_turn(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    said = run(settings, "submit", "-i", manifest(tmp_path, 10), "--pool", "all", "--json")
    batch = said.json["batch"]
    assert said.json == {"batch": batch, "jobs": 10, "new": 10, "bad_lines": 0}
    for turn, pool in enumerate(Pool):
        assert queued_refs(ledger, pool) == Counter(f"{batch}.{ordinal}" for ordinal in range(turn, 10, 3))


def test_one_message_may_carry_many_jobs(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    run(settings, "submit", "-i", manifest(tmp_path, 120), "--name", "b", "--per-message", "50")
    assert queued_refs(ledger) == Counter(["b.0-49", "b.50-99", "b.100-119"])
    assert len(list(ledger.read(f"b.{n}" for n in range(200)))) == 120


def test_the_same_manifest_again_changes_nothing(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    words = ("submit", "-i", manifest(tmp_path, 1200), "--name", "b", "--json")
    first, again = run(settings, *words), run(settings, *words)
    assert (first.json["new"], again.json["new"], again.code) == (1200, 0, 0)
    assert queued_refs(ledger) == Counter(f"b.{n}" for n in range(1200))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("http://a/0\nhttp://a/other\n", "batch 'b' already has another job number 1"),
        ("http://a/0\nhttp://a/other\nhttp://a/more\n", "the manifest does not have 1 of its jobs"),
        ("http://a/0\n", "batch 'b' has 2 jobs, the manifest only 1"),
    ],
)
def test_another_manifest_under_the_same_name_is_refused(
    ledger: Ledger, settings: Settings, other: str, said: str
) -> None:
    run(settings, "submit", "--name", "b", "http://a/0", "http://a/1")
    refused = run(settings, "submit", "--name", "b", "-i", "-", given=other)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    batch = batch_of(ledger)
    assert (batch.total, batch.known) == (2, 2)


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("per_message", ["1", "50"])
def test_a_batch_grows_and_is_mended_under_its_name(
    ledger: Ledger, settings: Settings, tmp_path: Path, per_message: str, piped: bool
) -> None:
    lines = [f"http://host.example/{number}/f.bin\n" for number in range(700)]
    file = tmp_path / "m.txt"

    def submit(*some: str) -> Said:
        file.write_text("".join(some))
        words = ("submit", "--name", "b", "--json", "--per-message", per_message)
        if not piped:
            return run(settings, *words, "-i", file)
        with file.open() as source, start(settings, *words, "-i", "-", stdin=subprocess.PIPE) as process:
            assert process.stdin
            process.stdin.write(source.read())
            return finish(process)

    # Given a batch with a bad line,
    said = submit(*lines[:100], "nonsense\n", *lines[101:600])
    assert (said.code, said.json) == (1, {"batch": "b", "jobs": 599, "new": 599, "bad_lines": 1})
    # if there are more lines at its end,
    said = submit(*lines[:100], "nonsense\n", *lines[101:650])
    # I expect those to be new,
    assert (said.code, said.json) == (1, {"batch": "b", "jobs": 649, "new": 50, "bad_lines": 1})
    # and if the bad one is mended while others come, I expect the mended one and those to be new, and none twice.
    for new in (51, 0):
        said = submit(*lines)
        assert (said.code, said.json) == (0, {"batch": "b", "jobs": 700, "new": new, "bad_lines": 0})
    batch = batch_of(ledger)
    assert (batch.total, batch.count(JobState.QUEUED)) == (700, 700)
    records = list(ledger.read_batch(batch))
    assert Counter(record.job.url for record in records) == Counter(line.strip() for line in lines)
    assert len({record.path for record in records}) == 700
    queued = Counter(ordinal for ref in queued_refs(ledger) for ordinal in Ref.parse(ref).ordinals)
    assert set(queued) == set(range(700))
    assert submit(*lines[:-1]).code == 2


def test_what_is_new_is_what_this_producer_has_added(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    # Given two producers with one name and one manifest at once, the second one's longer,
    (tmp_path / "other").mkdir()
    words = ("submit", "--name", "b", "--json", "-i")
    with start(settings, *words, manifest(tmp_path, 4000)) as first:
        wait_for(lambda: ledger.batch("b"), every=0.001, what="the batch")
        with start(settings, *words, manifest(tmp_path / "other", 5000)) as second:
            said = [finish(process) for process in (first, second)]
    # I expect each job to be counted as new by one of them.
    assert said[1].json["jobs"] == 5000
    new = [each.json["new"] for each in said if each.code == 0]
    assert sum(new) == 5000 if len(new) == 2 else "the manifest only 4000" in said[0].err
    assert batch_of(ledger).total == 5000


def test_another_manifest_at_the_same_time_is_refused_and_adds_nothing(
    ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    def words(scheme: str, count: int) -> tuple[str, ...]:
        file = tmp_path / scheme
        file.write_text("".join(f"{scheme}://a/{number}\n" for number in range(count)))
        return ("submit", "--name", "b", "--json", "-i", str(file))

    processes = [start(settings, *words(*each)) for each in (("http", 3000), ("https", 1500))]
    said = [finish(process) for process in processes]
    (winner,) = [each for each in said if each.code == 0]
    (loser,) = [each for each in said if each.code]
    assert winner.json["new"] == winner.json["jobs"] == batch_of(ledger).total
    assert (loser.code, loser.out) == (2, "")
    assert "batch 'b' already has another job number 0" in loser.err


def test_a_batch_that_was_cancelled_stays_so_and_the_command_that_revives_it_is_named(
    ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    words = ("submit", "-i", manifest(tmp_path, 5), "--name", "b", "--json")
    run(settings, *words)
    run(settings, "cancel", "b", "1-2")
    said = run(settings, *words)
    assert said.json["new"] == 0
    assert "2 jobs of batch b stay cancelled; `producer retry b --cancelled` queues them again" in said.err
    assert run(settings, "retry", "b", "--cancelled", "--json").json["queued"] == 2
    assert "cancelled" not in run(settings, *words).err


def test_the_last_line_of_a_pipe_without_its_end_is_reported_and_counts(ledger: Ledger, settings: Settings) -> None:
    for given, strict in (("http://a/x\nhttp://a/y", ()), ("http://a/x\nhttp://a/y", ("--strict",))):
        with start(settings, "submit", "--name", "b", "-i", "-", *strict) as process:
            assert process.stdin
            process.stdin.write(given)
            said = finish(process)
        assert said.code == 0
        assert said.err.count("line 2: the last line has no line end") == 1
    assert batch_of(ledger).total == 2


def test_columns_are_named_on_the_command_line(ledger: Ledger, settings: Settings) -> None:
    given = "id|URL|TEXT|md5\n1|http://u:s3cret@a/x|a, b|" + "AB" * 16 + "\n"
    for columns in ("url", "nonsense=url", "url,url", "filename=TEXT", ""):
        assert run(settings, "submit", "-i", "-", "--columns", columns, "--name", "b", given=given).code == 2
    said = run(settings, "submit", "-i", "-", "--columns", "url=URL,filename=TEXT,md5", "--name", "b", given=given)
    assert (said.code, "s3cret" in said.err) == (0, False)
    (record,) = ledger.read(["b.0"])
    expected = (("Authorization", "Basic " + base64.b64encode(b"u:s3cret").decode()),)
    assert record.job == Job("http://a/x", "a, b", headers=expected, digest=f"md5:{'ab' * 16}")
    for style in ("table", "csv", "jsonl"):
        out = run(settings, "results", "b", "--format", style).out
        assert not any(secret in out for secret in ("s3cret", expected[0][1]))


def test_bad_lines_are_named_and_the_good_ones_submitted(ledger: Ledger, settings: Settings) -> None:
    given = "url,filename\nhttp://a/x,t/x\nhttp://a/y,../y\nftp://a/z,z\nhttp://a/w,w\n"
    said = run(settings, "submit", "--name", "b", "-i", "-", given=given)
    assert said.code == 1
    assert "line 3: expected filename to be a relative path" in said.err
    assert "line 4: expected an http or https URL, got 'ftp://a/z'" in said.err
    assert [record.path for record in ledger.read(["b.0", "b.1", "b.2"])] == ["b/t/x", "b/w"]


@pytest.mark.parametrize("from_stdin", [True, False])
def test_strict_submits_nothing_when_a_line_is_bad(
    ledger: Ledger, settings: Settings, tmp_path: Path, from_stdin: bool
) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text('{"url": "http://a/x"}\n' * 600 + '{"url": "nonsense"}\n')
    source = "-" if from_stdin else file
    said = run(settings, "submit", "--strict", "--name", "b", "-i", source, given=file.read_text())
    assert (said.code, said.out) == (2, "")
    assert "line 601: expected an http or https URL, got 'nonsense': it has no scheme" in said.err
    assert ledger.redis.dbsize() == 0
    file.write_text('{"url": "http://a/x"}\n' * 600)
    assert run(settings, "submit", "--strict", "--name", "b", "-i", source, given=file.read_text()).code == 0
    batch = batch_of(ledger)
    assert batch.total == 600


@pytest.mark.parametrize(
    ("count", "summary"),
    [(1, "batch b: 1 job, 1 of them new, 0 bad lines"), (2, "batch b: 2 jobs, 2 of them new, 0 bad lines")],
)
def test_what_was_submitted_is_said_in_the_right_number(
    ledger: Ledger, settings: Settings, count: int, summary: str
) -> None:
    said = run(settings, "submit", "--name", "b", *(f"http://a/{n}" for n in range(count)))
    assert summary in said.err.splitlines()


def test_a_bad_url_is_refused_with_one_reason_and_what_came_of_it(ledger: Ledger, settings: Settings) -> None:
    said = run(settings, "submit", "ftp://a/x")
    assert (said.code, said.err.count("expected")) == (2, 1)
    assert said.err.endswith("producer: found no usable URL; nothing was submitted\n")
    assert ledger.redis.dbsize() == 0


def test_an_empty_manifest_leaves_no_batch(ledger: Ledger, settings: Settings) -> None:
    said = run(settings, "submit", "-i", "-", given="# nothing\n")
    assert said.code == 2
    assert "found no usable URL; nothing was submitted" in said.err
    assert ledger.redis.dbsize() == 0


@pytest.mark.parametrize("before", [0, 10])
def test_a_producer_killed_in_the_middle_is_completed_by_the_same_command(
    ledger: Ledger, settings: Settings, tmp_path: Path, before: int
) -> None:
    # Given a submission of 10,000 jobs, to a new batch or one that grows, that is killed after some thousands,
    if before:
        run(settings, "submit", "-i", manifest(tmp_path, before), "--name", "b")
        assert batch_of(ledger).total == before
    words = ("submit", "-i", manifest(tmp_path, 10_000), "--name", "b", "--json")
    with start(settings, *words) as process:
        wait_for(lambda: (batch := ledger.batch("b")) and batch.known >= 3000, every=0.001, what="3,000 jobs")
        process.kill()
        process.wait(10)
    cut = batch_of(ledger)
    assert cut.total is None
    assert 3000 <= cut.known < 10_000
    # if the same command runs again,
    said = run(settings, *words)
    # I expect every job once in the ledger, and one message for each, but for those that the sweep will send.
    assert said.json == {"batch": "b", "jobs": 10_000, "new": 10_000 - cut.known, "bad_lines": 0}
    batch = batch_of(ledger)
    assert (batch.total, batch.known, batch.count(JobState.QUEUED)) == (10_000, 10_000, 10_000)
    assert [record.id for record in ledger.read_batch(batch)] == [f"b.{n}" for n in range(10_000)]
    refs = queued_refs(ledger)
    assert set(refs.values()) == {1}
    everything = {f"b.{n}" for n in range(10_000)}
    missing = everything - set(refs)
    assert len(missing) <= 500
    sweep = Sweep(settings)
    wait_for(lambda: sweep.round() and set(queued_refs(ledger)) == everything, what="the sweep", every=0.3)


def test_a_long_manifest_takes_little_memory(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    """Many jobs per message, because this is about the manifest: the rate is the benchmarks' business."""
    words = ["submit", "-i", str(manifest(tmp_path, 100_000)), "--name", "b", "--per-message", "100"]
    # Its own word on its peak: what the kernel tells a parent includes what a forked child inherited before its exec.
    program = (
        "import sys, runpy, atexit\n"
        "hwm = lambda: next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "atexit.register(lambda: print(hwm().split()[1], file=sys.__stdout__))\n"
        f"sys.argv = ['producer', *{words!r}]\n"
        "runpy.run_module('producer', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment_of(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 150 * 1024  # KiB
    batch = batch_of(ledger)
    assert batch.total == 100_000
    assert Ref.parse(next(iter(queued_refs(ledger)))).batch == "b"


def test_cancel_takes_what_is_queued(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    run(settings, "submit", "-i", manifest(tmp_path, 1300), "--name", "b")
    said = run(settings, "cancel", "b", "3", "5-9", "--json")
    assert said.json == {"batch": "b", "cancelled": 6, "stopping": 0, "ended_before": 0}
    said = run(settings, "cancel", "b")
    assert said.out == "batch b: 1,294 cancelled, 0 running and told to stop, 6 had ended\n"
    batch = batch_of(ledger)
    assert batch.finished
    assert batch.count(JobState.CANCELLED) == 1300
    assert run(settings, "cancel", "b", "1300").code == 2
    assert run(settings, "cancel", "other").code == 2


@pytest.mark.parametrize("strict", [(), ("--strict",)])
def test_repeated_lines_are_left_out_on_request_and_said_in_the_summary(
    ledger: Ledger, settings: Settings, strict: tuple[str, ...]
) -> None:
    lines = "http://a/x\nhttp://a/y\nhttp://a/x\n"
    said = run(settings, "submit", "-i", "-", "--dedup", "--name", "b", "--json", *strict, given=lines)
    assert said.json == {"batch": "b", "jobs": 2, "new": 2, "bad_lines": 0, "repeated_lines": 1}
    assert "1 repeated ones left out" in said.err


def test_a_batch_in_front_is_taken_before_all_that_waits_and_in_its_own_order(
    ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    assert run(settings, "submit", "-i", manifest(tmp_path, 3), "--name", "first").code == 0
    assert run(settings, "submit", "-i", manifest(tmp_path, 4), "--name", "urgent", "--front").code == 0
    assert run(settings, "submit", "-i", manifest(tmp_path, 2), "--name", "last").code == 0
    queue = ledger.redis.lrange(ledger.keys.queue(Pool.THREADS), 0, -1)
    taken = [json.loads(message)["headers"]["id"] for message in reversed(queue)]  # workers take from the right
    assert taken == [f"{name}.{n}" for name, count in (("urgent", 4), ("first", 3), ("last", 2)) for n in range(count)]


def test_many_files_go_into_folders_of_so_many_and_those_that_are_named_where_they_are_named(
    ledger: Ledger, settings: Settings
) -> None:
    lines = [json.dumps({"url": f"http://a/{number}/f.bin"}) for number in range(5)]
    lines.insert(2, json.dumps({"url": "http://a/x", "filename": "mine/x"}))
    given = "\n".join(lines)
    for _ in range(2):  # the same manifest, the same names
        assert run(settings, "submit", "-i", "-", "--name", "b", "--shard", "2", given=given).code == 0
    batch = batch_of(ledger)
    assert [record.job.filename for record in ledger.read_batch(batch)] == [
        "0000/f.bin",
        "0000/f-2.bin",
        "mine/x",
        "0001/f.bin",
        "0002/f.bin",
        "0002/f-2.bin",
    ]


def test_sigterm_ends_it_in_an_orderly_way_and_what_was_accepted_stays(ledger: Ledger, settings: Settings) -> None:
    with start(settings, "submit", "--name", "b", "--wait", "http://host.example/x") as process:
        wait_for(lambda: sum(queued_refs(ledger).values()), what="the message")
        process.terminate()
        said = finish(process, seconds=10)
    assert (said.code, said.err.splitlines()[-1]) == (143, "interrupted")
    assert queued_refs(ledger) == Counter(["b.0"])
