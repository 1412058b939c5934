"""What surrounds the turns of an experiment: contestants, plans, order, exclusions, books, and what /proc says."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.jobs import Executor, Job, JobState, Pool, check_batch_name
from producer.comparison import contamination, cores, lateness, procfs, sampler, turns
from producer.comparison.arrivals import events
from producer.comparison.bench import LOOK_EVERY, _pause
from producer.comparison.contamination import Limits
from producer.comparison.contestants import Spec, contestants, parse
from producer.comparison.experiment import PLAIN, Books, Contestant, Setup, Spans
from producer.comparison.fleet import pool_of
from producer.comparison.planning import from_manifest
from producer.comparison.procfs import Machine
from producer.comparison.rounds import label, ordered, stamp
from producer.comparison.scenarios import SCENARIOS, Options, paced, sample
from producer.comparison.verdict import failed
from tests.experiments import Made, made
from tests.measured import EPOCH, attempt, on_its_pool, record, who
from tests.waiting import wait_for

THREADS = Contestant("threads:8", Pool.THREADS, 8)


# -- contestants and their order


def test_pools_are_those_of_the_running_stack_or_with_slots_workers_of_our_own() -> None:
    assert parse("prefork, gevent") == (Spec(Pool.PREFORK), Spec(Pool.GEVENT))
    assert [each.name for each in parse("threads:8,threads:100")] == ["threads:8", "threads:100"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("asyncio", "prefork, threads, gevent"),
        ("threads:8,threads:8", "each pool once"),
        ("threads:8,gevent", "for every pool"),
        ("threads:x", "with 1 to 1000 slots, got 'threads:x'"),
        ("prefork:65", "with 1 to 64 slots"),
        ("", "expected names"),
        ("threads+prefetch=4", r"expected threads:SLOTS before \+prefetch=4, got .* only workers of our own can have"),
        ("threads:8+prefetch=0", "prefetch=1 to 1000, events=off, got 'prefetch=0' in 'threads:8\\+prefetch=0'"),
        ("threads:8+workers=1", "expected options out of workers=2 to 16"),
        ("threads:8+events=on", "events=off, got 'events=on'"),
        ("threads:8+autoscale", "got 'autoscale' in"),
        ("threads:8+", "got '' in"),
        ("threads:8+prefetch=2+prefetch=4", "each option once"),
        ("prefork:32+workers=3", "at most 64 slots of prefork in all, got 3 × 32 from 'prefork:32"),
        ("threads:8+events=off+workers=2,threads:8+workers=2+events=off", "each set of options"),
    ],
)
def test_other_pools_are_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_options_are_part_of_the_name_in_an_order_of_their_own() -> None:
    found = parse("prefork:4+workers=2,threads:8+events=off+prefetch=4,threads:8")

    assert [each.setup for each in found] == [Setup(workers=2), Setup(prefetch=4, events=False), PLAIN]
    assert [each.name for each in found] == ["prefork:4+workers=2", "threads:8+prefetch=4+events=off", "threads:8"]
    assert parse(",".join(each.name for each in found)) == found


def test_a_contestant_has_the_slots_of_all_of_its_workers_and_a_command_that_starts_them() -> None:
    several, one = contestants(parse("prefork:4+workers=2,threads:8+prefetch=4+events=off"), serial=False)

    assert (several.slots, several.slots_each) == (8, 4)
    assert several.command == (
        "for n in $(seq 2); do celery -A worker.app worker -P prefork -Q downloads.prefork -n prefork-$n@%h -c 4 -E"
        " & done; wait"
    )
    assert one.command == (
        "celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -c 8 --prefetch-multiplier 4"
        " worker_send_task_events=off"
    )


def test_workers_that_were_started_by_such_a_command_belong_to_their_pool() -> None:
    assert [pool_of(name) for name in ("prefork@host", "prefork-2@host-3")] == ["prefork", "prefork"]


def test_the_longest_name_leaves_room_in_the_name_of_a_batch() -> None:
    (found,) = contestants(parse("threads:1000+prefetch=1000+events=off"), serial=False)

    assert label(found, 12) == "threads-1000-12"
    check_batch_name(f"manifest-{stamp()}-1000b-{label(found, 12)}-warm")


def test_the_yardstick_comes_last_with_one_slot_of_the_first_pool() -> None:
    found = contestants(parse("gevent:20,threads:2"), serial=True)

    assert [(each.name, each.pool, each.slots, each.serial) for each in found] == [
        ("gevent:20", Pool.GEVENT, 20, False),
        ("threads:2", Pool.THREADS, 2, False),
        ("serial", Pool.GEVENT, 1, True),
    ]


def test_over_as_many_rounds_as_contestants_each_has_every_place_once() -> None:
    found = contestants(parse("prefork:2,threads:8,gevent:20"), serial=True)

    places = Counter((each.name, place) for number in range(1, 5) for place, each in enumerate(ordered(found, number)))

    assert [each.name for each in ordered(found, 1)] == ["prefork:2", "threads:8", "gevent:20", "serial"]
    assert len(places) == 16
    assert set(places.values()) == {1}


# -- plans


@pytest.mark.parametrize("name", sorted(set(SCENARIOS) - {"article"}))
def test_a_scenario_gives_every_pool_the_same_jobs_and_scales(name: str) -> None:
    recipe = SCENARIOS[name]
    options = Options(7, 40, recipe.size or 1000)

    plans = [list(recipe.plan(options, pool)) for pool in Pool]

    assert plans[0] == plans[1] == plans[2]
    assert len({job.filename for job in plans[0]}) == 40
    assert plans[0] == list(recipe.plan(options, Pool.THREADS))


def test_a_sample_is_on_average_a_job_like_the_rest() -> None:
    """Given a hundred jobs of 1 to 100 s, I expect ten whose mean is that of all; of five all five."""
    jobs = [paced(str(n), n, 1) for n in range(1, 101)]

    chosen = [jobs[n].seconds or 0 for n in sample(jobs, 10)]

    assert len(chosen) == 10
    assert sum(chosen) / 10 == pytest.approx(50.5, abs=1)
    assert sample(jobs[:5], 10) == [0, 1, 2, 3, 4]


def test_the_yardstick_runs_a_sample_of_many_jobs_and_the_notes_say_so() -> None:
    found = contestants(parse("threads:8"), serial=True)
    work = from_manifest([Job(f"http://a/{n}", str(n)) for n in range(100)], "urls.txt", found)

    assert len(work.share(found[0]).jobs) == 100
    assert len(work.share(found[1]).jobs) == 20
    assert len(work.share(found[0], warm_up=True).jobs) == 25
    (note,) = work.notes(found)
    assert "serial ran 20 of the 100 jobs" in note
    assert work.notes(found[:1]) == []


def test_looking_adds_a_twentieth_to_a_job_that_is_run_alone() -> None:
    assert _pause(0.0) == 0.001
    assert _pause(0.2) == pytest.approx(0.01)
    assert _pause(60) == LOOK_EVERY


# -- spans and books


def test_spans_add_up_to_the_wall() -> None:
    slot = who(Pool.THREADS, 200, 201)
    first = replace(attempt(slot, 0.5, 2.0), first_byte=EPOCH + 0.75)
    asked = Job("http://a/p", "p.html", step="links")
    records = [
        record(Pool.THREADS, "p.html", first, queued=0.25, asked=asked, notes=("links: 7, 0.5000 s",)),
        record(Pool.THREADS, "b", attempt(slot, 1.0, 3.0), queued=0.25),
    ]

    assert turns.wall(EPOCH, records) == 3.0
    assert turns.spans(EPOCH, records) == Spans(
        queued=(0.25, 0.25), waited=(0.25, 0.75), ran=(1.5, 2.0), first_byte=(0.25, None), step=(0.5, 0.0)
    )


def test_a_turn_with_a_job_that_is_not_done_has_no_wall_and_no_spans() -> None:
    records = [record(Pool.THREADS, "a", attempt(who(Pool.THREADS, 1, 2), 0, 1), state=JobState.FAILED)]

    assert turns.wall(EPOCH, records) is None
    assert turns.spans(EPOCH, records) == Spans()


def test_an_arrival_is_put_between_queued_and_started() -> None:
    """Given a clock that is a second off, I expect no arrival before the submission nor after the claim."""
    found = record(Pool.THREADS, "a", attempt(who(Pool.THREADS, 1, 2), 1.0, 2.0), queued=0.5)

    for said, kept in ((-0.2, 0.5), (0.7, 0.7), (2.0, 1.0)):
        assert turns.measured_job(found, None, EPOCH + said, None).received == EPOCH + kept


@pytest.mark.parametrize(
    ("pool", "thread", "greenlet", "counted"),
    [
        (Pool.PREFORK, 7, None, "2 processes"),
        (Pool.THREADS, 8, None, "2 threads of 2 processes"),
        (Pool.GEVENT, 7, 3, "2 greenlets of 2 threads"),
    ],
)
def test_executors_with_the_same_ids_on_two_hosts_are_two(
    pool: Pool, thread: int, greenlet: int | None, counted: str
) -> None:
    found = [
        record(pool, host, attempt(Executor(f"{pool}@{host}", 7, thread, greenlet), 0, 1))
        for host in ("north", "south")
    ]

    assert turns.executors(pool, found) == counted


def test_without_a_digest_all_contestants_must_bring_the_same_bytes() -> None:
    asked, digests = Job("http://a/x", "x"), turns.Digests()
    slot = attempt(who(Pool.THREADS, 1, 2), 0, 1)
    records = [record(Pool.THREADS, "x", slot, asked=asked, sha256=letter * 64) for letter in "aab"]

    right = [turns.books(THREADS, 1, [each], on_its_pool(Pool.THREADS), digests).right for each in records]

    assert right == [1, 1, 0]


def test_the_books_tell_a_few_faults_and_count_the_rest() -> None:
    slot = attempt(who(Pool.GEVENT, 1, 1, 2), 0, 1)
    records = [record(Pool.THREADS, str(n), slot) for n in range(9)]

    books = turns.books(THREADS, 10, records, on_its_pool(Pool.THREADS), turns.Digests())

    assert (books.jobs, books.done, books.once, books.here, books.right) == (10, 9, 9, 0, 9)
    assert not books.balance
    assert books.faults[0] == "1 records are missing"
    assert books.faults[1] == "0 ran on gevent@host"
    assert books.faults[-1] == "and 5 more"


# -- exclusions


def test_a_job_of_somebody_elses_a_retry_and_other_bytes_exclude_a_turn() -> None:
    assert contamination.of_books(Books(5, 5, 5, 5, 5, "")) == []
    assert contamination.of_books(Books(5, 5, 4, 3, 5, "")) == [
        "2 of its jobs ran on another worker",
        "1 of its jobs were tried more than once",
    ]


BEFORE = Machine(busy=100, idle=100, stolen=0, swapped=0, major_faults=0)


@pytest.mark.parametrize(
    ("after", "ours", "reason"),
    [
        (replace(BEFORE, busy=118, idle=102), 17.0, None),  # busy, and it is we
        (replace(BEFORE, busy=118, idle=102), None, None),  # busy, and nobody knows who
        (replace(BEFORE, busy=115, idle=105), 5.0, None),  # strangers, but there was room
        (replace(BEFORE, busy=119, idle=101), 9.0, "other programs used 50% of the CPU, and 5% was idle"),
        (replace(BEFORE, busy=114, idle=103, stolen=3), 14.0, "15% of the CPU was stolen by the hypervisor"),
        (replace(BEFORE, busy=110, idle=110, swapped=5000), 10.0, "the machine swapped 500 pages/s"),
    ],
)
def test_a_machine_that_others_use_excludes_a_turn(after: Machine, ours: float | None, reason: str | None) -> None:
    """Given ten seconds of two cores."""
    found = contamination.of_machine(BEFORE, after, 10.0, ours, Limits())

    assert found == ([] if reason is None else [reason])


def test_contestants_with_fewer_rounds_than_asked_for_are_named() -> None:
    experiment = made(
        Made(Pool.THREADS, 8, 0.1, excluded={1: "noise", 2: "noise"}), Made(Pool.GEVENT, 20, 0.1), rounds=2
    )

    said = contamination.too_few(experiment.turns, ["threads:8", "gevent:20"], 2)

    assert said[0] == "threads:8: 0 of 2 rounds count; nothing is said of it"
    assert "--noise 1" in said[1]
    assert contamination.too_few(experiment.turns, ["gevent:20"], 2) == []


def test_a_spoiled_turn_that_was_run_again_is_no_failure_and_a_missing_job_is() -> None:
    experiment = made(Made(Pool.THREADS, 8, 0.1), rounds=1)
    wrong = Books(40, 40, 40, 39, 40, "", ("x ran on threads@elsewhere",))
    spoiled = replace(experiment.turns[1], books=wrong, excluded=("1 of its jobs ran on another worker",))

    again = replace(experiment, turns=(experiment.turns[0], spoiled, experiment.turns[1]))
    not_again = replace(experiment, turns=(experiment.turns[0], spoiled))

    assert not failed(experiment)
    assert not failed(again)
    assert failed(not_again)


# -- cores


def test_the_probe_finds_about_the_cores_that_there_are() -> None:
    """I expect more than nothing and, short of clock ticks, no more than there are."""
    assert 0.05 < cores.probe(seconds=0.1) <= cores.nominal() * 1.05


def test_a_drop_of_the_probe_is_told_and_the_median_kept() -> None:
    answers = iter([2.0, 1.9, 1.0])
    probes = cores.Probes(lambda: next(answers))
    assert probes.cores() is None

    dropped = []
    for _ in range(3):
        probes.look()
        dropped.append(probes.dropped(0.6))

    assert dropped == [None, None, "only 1.00 cores were ours before the round, 2.00 at its best"]
    found = probes.cores()
    assert found is not None
    assert (found.effective, found.probes) == (1.9, (2.0, 1.9, 1.0))


# -- /proc, as a folder


def process(proc: Path, pid: int, parent: int, *, ticks: int = 0, dead: int = 0, pss_kb: int = 1000) -> None:
    folder = proc / str(pid)
    (folder / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
    fields = ["S", str(parent), *["0"] * 9, str(ticks), "0", str(dead), "0", "0", "0", "3", "0"]
    (folder / "stat").write_text(f"{pid} (a name) with) {' '.join(fields)}")
    (folder / "smaps_rollup").write_text(f"0-1 ---p [rollup]\nRss: 9 kB\nPss: {pss_kb} kB\nPss_Dirty: 1 kB\n")
    (folder / "task" / str(pid) / "status").write_text(
        "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n"
    )


def test_processes_are_read_by_tree_whatever_their_names(tmp_path: Path) -> None:
    for pid, parent in ((10, 1), (11, 10), (12, 11), (13, 1)):
        process(tmp_path, pid, parent, ticks=procfs.TICK * pid, dead=procfs.TICK)

    assert procfs.tree([10, 99], tmp_path) == {10, 11, 12}
    assert procfs.process(11, tmp_path) == procfs.Process(parent=10, cpu=11.0, cpu_of_children=1.0, threads=3)
    assert procfs.process(99, tmp_path) is None
    assert procfs.pss(11, tmp_path) == 1000 * 1024
    assert procfs.switches(11, tmp_path) == (7, 2)
    assert (procfs.pss(99, tmp_path), procfs.switches(99, tmp_path)) == (0, (0, 0))


def test_children_that_come_and_go_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a child that used 3 s and ended, and a new one that used 1 s, I expect 4 s of CPU more, not 1 - 3."""
    for name in ("tree", "process", "pss", "switches"):
        monkeypatch.setattr(procfs, name, _in(tmp_path, getattr(procfs, name)))
    process(tmp_path, 10, 1, pss_kb=2000)
    process(tmp_path, 11, 10, ticks=2 * procfs.TICK)
    watch = sampler.Sampler([10], every=60)
    watch.start()

    process(tmp_path, 10, 1, dead=5 * procfs.TICK)  # 2 before, 3 since
    for file in sorted((tmp_path / "11").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (tmp_path / "11").rmdir()
    process(tmp_path, 12, 10, ticks=procfs.TICK)
    usage = watch.stop()

    assert usage is not None
    assert usage.cpu == 4.0
    assert usage.pss_idle == 3000 * 1024
    assert watch.pids == {10, 11, 12}


def test_all_processes_of_the_machine_are_walked_only_when_a_child_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given children that live on, I expect no walk after the first; given one that ends, its successor to be seen."""
    walks = []
    tree = procfs.tree
    for name in ("process", "pss", "switches"):
        monkeypatch.setattr(procfs, name, _in(tmp_path, getattr(procfs, name)))
    monkeypatch.setattr(procfs, "tree", lambda roots: walks.append(1) or tree(roots, tmp_path))
    monkeypatch.setattr(sampler, "_TREE_EVERY", 0.0)
    monkeypatch.setattr(sampler, "_LONGEST", 0.01)
    process(tmp_path, 10, 1, pss_kb=2000)
    process(tmp_path, 11, 10)
    watch = sampler.Sampler([10], every=0.01)
    watch.start()

    wait_for(lambda: watch._looks > 5, what="looks")
    assert len(walks) == 1
    process(tmp_path, 12, 10)
    for file in sorted((tmp_path / "11").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (tmp_path / "11").rmdir()
    wait_for(lambda: 12 in watch.pids, what="the successor")
    assert watch.stop() is not None


def _in(folder: Path, function: object) -> object:
    return lambda arg, _proc=folder: function(arg, folder)  # type: ignore[operator]


def test_of_processes_that_cannot_be_seen_there_is_no_usage() -> None:
    watch = sampler.Sampler([2**22 + 5])
    watch.start()

    assert watch.stop() is None


def test_a_process_that_burns_is_measured_as_such_and_looking_costs_little() -> None:
    """Given this very process, burning for a moment, I expect its CPU, and looks that cost a hundredth."""
    watch = sampler.Sampler([os.getpid()], every=0.05)
    watch.start()
    begun = procfs.process(os.getpid())
    while (now := procfs.process(os.getpid())) and begun and now.cpu - begun.cpu < 0.5:
        sum(range(10_000))
    usage = watch.stop()

    assert usage is not None
    assert 0.4 < usage.cpu < 1.5
    assert usage.pss_peak >= usage.pss_idle > 2**20
    assert watch.cost < 0.1 * usage.cpu


# -- what workers say


def test_lateness_is_read_for_the_turn_alone_and_for_its_processes(tmp_path: Path) -> None:
    pairs = [(n / 10, n / 1000) for n in range(100)]
    (tmp_path / "7").write_bytes(b"".join(struct.pack("dd", *pair) for pair in pairs) + b"half")
    (tmp_path / "8").write_bytes(struct.pack("dd", 5.0, 9.0))

    found = lateness.read(tmp_path, [7, 9], 2.0, 6.0)

    assert found is not None
    assert (found.samples, found.p50, found.worst) == (41, 0.04, 0.06)
    assert lateness.read(tmp_path, [9], 0.0, 9.0) is None


def test_events_come_alone_or_in_groups_and_rubbish_is_none() -> None:
    one, two = {"type": "task-received", "uuid": "b.1"}, {"type": "task-started", "uuid": "b.1"}
    envelope = {"body": json.dumps([one, two]), "properties": {}}

    assert list(events(json.dumps(envelope))) == [one, two]
    assert list(events(json.dumps({"body": json.dumps(one), "properties": {"body_encoding": "utf-8"}}))) == [one]
    for rubbish in ("", "[]", '{"body": 1}', "null"):
        assert list(events(rubbish)) == []
