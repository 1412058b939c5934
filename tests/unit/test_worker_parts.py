"""Parts of a worker that need no Redis: its machine, its throttle of notes, a job's URLs, who leads a group."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from download.errors import DiskError, DiskFullError, DnsError, DownloadError, ServerError, TlsError, translate
from download.threads import in_place
from ledger.jobs import FailureKind, Job
from tests.waiting import wait_for
from worker import machine
from worker.claim import Throttle
from worker.gather import _Recent, _without_core
from worker.machine import fault_behind, probe
from worker.mirrors import Route, headers_for

# -- whose fault a failure is: the machine's, the job's or the server's; how many descriptors a worker allows itself


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """As many as are open, and one more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fd = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, hard))
    os.close(fd)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def os_error(number: int) -> DownloadError:
    return translate(OSError(number, os.strerror(number)))


def test_a_probe_leaves_nothing_and_makes_the_folder(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    assert probe(downloads, 4096) is None
    assert [path.name for path in downloads.rglob("*")] == [".partial"]


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_that_is_gone_is_the_machines_fault_and_one_that_is_there_the_jobs(tmp_path: Path, number: int) -> None:
    assert fault_behind(os_error(number), tmp_path, in_place) is None
    (tmp_path / "gone").write_text("no folder")
    assert "cannot be written to" in str(fault_behind(os_error(number), tmp_path / "gone" / "downloads", in_place))


def test_room_that_a_job_lacks_is_the_machines_fault_unless_the_disk_could_never_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_room", lambda _fd: 10_000)
    full = DiskFullError("full")
    full.need = 20_000
    assert "expected 20,000 bytes of room" in str(fault_behind(full, tmp_path, in_place))
    full.need = machine.capacity(tmp_path) + 1
    assert fault_behind(full, tmp_path, in_place) is None


def test_a_job_that_needs_much_more_than_there_is_waits_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_room", lambda _fd: machine.ROOM)
    full = DiskFullError("full")
    full.need = machine.ROOM + 1
    assert fault_behind(full, tmp_path, in_place) is None


@pytest.mark.parametrize("error", [os_error(errno.EMFILE), DnsError("no address"), TlsError("no issuer")])
def test_without_descriptors_it_is_the_machines_fault(
    tmp_path: Path, few_descriptors: None, error: DownloadError
) -> None:
    assert "ulimit -n" in str(fault_behind(error, tmp_path, in_place))


@pytest.mark.parametrize("error", [DnsError("x"), TlsError("x"), ServerError("x"), os_error(errno.ECONNRESET)])
def test_on_a_machine_that_is_well_it_is_not(tmp_path: Path, error: DownloadError) -> None:
    assert fault_behind(error, tmp_path, in_place) is None


def test_a_server_that_fails_costs_no_probe(tmp_path: Path) -> None:
    assert fault_behind(ServerError("status 503"), tmp_path / "nowhere", in_place) is None
    assert fault_behind(DiskError("x"), tmp_path / "now", in_place) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["now"]


ALLOW = "from worker.machine import *; print(allow_descriptors({slots}, 16)); print(resource.getrlimit(7)[0])"


@pytest.mark.parametrize(
    ("limits", "slots", "warns", "soft"),
    [
        ("100:5000", 10, False, 280),
        ("100:150", 10, False, 150),
        ("100:110", 10, True, 110),
        ("9000:9000", 10, False, 9000),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_slots_may_need(
    limits: str, slots: int, warns: bool, soft: int
) -> None:
    command = ["prlimit", f"--nofile={limits}", sys.executable, "-c", ALLOW.format(slots=slots)]
    said, limit = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert ("need about 120 open files, the limit is 110" in said and "ulimit -n 120" in said) == warns
    assert int(limit) == soft


# -- all jobs of a process share a pace of notes


def test_few_never_notice_it() -> None:
    pace = Throttle(50, at_once=50)
    assert all(pace.allows(second / 2) for second in range(100) for _ in range(25))


def test_many_get_what_the_pace_gives_and_no_burst_later_than_that() -> None:
    pace, chance = Throttle(50, at_once=10), random.Random(1)
    moments = sorted(chance.uniform(0, 20) for _ in range(40_000))
    allowed = [moment for moment in moments if pace.allows(moment)]
    assert 20 * 50 - 2 <= len(allowed) <= 20 * 50 + 10
    assert all(later - earlier >= 0.2 - 1e-9 for earlier, later in zip(allowed[20:], allowed[40:], strict=False))


def test_each_of_many_has_its_turn() -> None:
    """A thousand jobs ask once a second, each at a moment of its own; I expect none to be left out for long."""
    pace, chance = Throttle(50, at_once=50), random.Random(2)
    last, longest = dict.fromkeys(range(1000), 0.0), 0.0
    for moment, job in sorted((second + chance.random(), job) for second in range(300) for job in range(1000)):
        if pace.allows(moment):
            longest, last[job] = max(longest, moment - last[job]), moment
    assert longest < 250
    assert min(last.values()) > 50


# -- the way through a job's URLs


SERVER, STATUS, DISK = FailureKind.SERVER, FailureKind.STATUS, FailureKind.DISK_FULL


@pytest.mark.parametrize(
    ("kinds", "url"),
    [
        ([], "a"),
        ([SERVER], "b"),
        ([SERVER, SERVER], "c"),
        ([SERVER, SERVER, SERVER], "a"),
        ([STATUS, SERVER, SERVER], "b"),
        ([STATUS, SERVER, STATUS], "b"),
        ([None, FailureKind.LOST, DISK], "a"),
        ([SERVER, DISK], "b"),
    ],
)
def test_the_next_url_follows_from_the_attempts_so_far(kinds: list[FailureKind | None], url: str) -> None:
    assert Route("abc", kinds).url == url


def test_a_mirror_has_its_turn_at_once_and_a_second_round_a_pause() -> None:
    route = Route("ab")
    assert [route.failed(SERVER) for _ in range(4)] == [True, False, True, False]


@given(st.integers(1, 5), st.lists(st.none() | st.sampled_from(FailureKind), max_size=30))
def test_a_new_holder_is_where_the_old_one_was(count: int, kinds: list[FailureKind | None]) -> None:
    urls = [str(number) for number in range(count)]
    old = Route(urls)
    for kind in kinds:
        old.failed(kind)
    assert Route(urls, kinds).url == old.url


def test_what_is_meant_for_one_origin_is_not_shown_to_a_mirror() -> None:
    job = Job("https://a.example/f", "f", headers=(("Authorization", "secret"), ("Accept", "text/plain")))
    assert headers_for(job, job.url) == {"Authorization": "secret", "Accept": "text/plain"}
    assert headers_for(job, "https://a.example/other") == {"Authorization": "secret", "Accept": "text/plain"}
    assert headers_for(job, "https://b.example/f") == {"Accept": "text/plain"}
    assert headers_for(job, "http://a.example/f") == {"Accept": "text/plain"}
    assert headers_for(job, "nonsense") == {}


def test_a_job_s_headers_are_not_in_its_repr() -> None:
    assert "secret" not in repr(Job("https://a.example/f", "f", headers=(("Authorization", "secret"),)))


# -- whose turn it is to lead a group, and when no message waits for one


@pytest.fixture
def recent() -> _Recent:
    recent = _Recent()
    recent.note(0.01)
    return recent


class Message:
    """Arrives in a thread of its own; ``leads`` once it is known whether it may."""

    def __init__(self, recent: _Recent) -> None:
        self.leads: bool | None = None
        self._recent = recent
        self._known = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.leads = self._recent.begin()
        self._known.set()

    def wait(self) -> bool | None:
        assert self._known.wait(10)
        return self.leads


def test_a_new_process_knows_nothing_and_one_short_job_is_enough() -> None:
    recent = _Recent()
    assert not recent.begin()
    recent.note(0.01)
    assert recent.begin()


def test_after_a_long_job_several_short_ones_are_needed(recent: _Recent) -> None:
    recent.note(60.0)
    needed = 0
    while not recent.short:
        recent.note(0.01)
        needed += 1
    assert 3 <= needed <= 10


def test_messages_lead_one_after_the_other_in_the_order_in_which_they_came(recent: _Recent) -> None:
    assert recent.begin()
    waiting = []
    for number in range(3):
        waiting.append(Message(recent))
        wait_for(lambda count=number + 1: len(recent._waiting) == count)  # type: ignore[misc]
    for message in waiting:
        assert [other.leads for other in waiting[waiting.index(message) :]] == [None] * (3 - waiting.index(message))
        recent.end()
        assert message.wait()
    recent.end()
    assert recent.begin()


def test_no_message_waits_for_a_group_that_takes_long(recent: _Recent) -> None:
    assert recent.begin()
    first, second = Message(recent), Message(recent)
    assert [first.wait(), second.wait()] == [False, False]
    recent.end()
    assert recent.begin()


def test_no_message_waits_once_a_job_of_the_group_is_long(recent: _Recent) -> None:
    assert recent.begin()
    waiting = Message(recent)
    wait_for(lambda: recent._waiting)
    recent.note(1.0)
    assert waiting.wait() is False
    assert not recent.begin()


def test_of_many_threads_that_end_at_one_moment_one_reads_what_the_process_waited(
    recent: _Recent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand threads that each read a thousand files held up each other's ends for 20 s."""
    reading, go_on = threading.Event(), threading.Event()
    reads = []

    def without_core() -> float:
        reads.append(threading.get_ident())
        reading.set()
        assert go_on.wait(10)
        return 0.0

    monkeypatch.setattr("worker.gather._without_core", without_core)
    recent._starved = (recent._starved[0] - 5.0, 0.0, 0.25)
    first = threading.Thread(target=recent.starved)
    first.start()
    assert reading.wait(10)
    assert [recent.starved() for _ in range(3)] == [0.25] * 3
    go_on.set()
    first.join(10)
    assert len(reads) == 1
    assert recent.starved() == 0.0


def test_threads_that_end_while_it_is_read_take_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = list(Path("/proc/self/task").iterdir())
    monkeypatch.setattr(Path, "iterdir", lambda _: [Path("/proc/self/task/999999999"), *listed])
    total = sum(int((task / "schedstat").read_text().split()[1]) for task in listed) / 1e9
    assert _without_core() >= total > 0
