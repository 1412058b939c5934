"""The same code with patched sockets: the essential tests again, and a hub that stays lively."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from download.fetch import _BURST, WORTH_HANDING_OVER, Fetcher, Wanted, _Alone
from download.http1 import Response
from download.tempfile import PIECE
from download.threads import native_runner
from download.timeouts import Limits
from download.validators import Validators
from tests.origin_process import ROOT
from tests.unit.download_kit import LOOPBACK, Desk, ok, reciting

PATCHED = """
from gevent import monkey; monkey.patch_all()
import gevent, hashlib, os, sys, threading, time
from pathlib import Path
from download.errors import CancelledError
from download.fetch import Fetcher
from download.tempfile import TempFile
from download.threads import native, native_runner
from tests.origin_process import OriginProcess
from tests.unit.download_kit import LOOPBACK, Desk, ok, reciting
from tests.waiting import wait_for
"""
PYTEST = "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
ESSENTIAL = [
    "tests/unit/test_download_tls.py",
    "tests/unit/test_download_faults.py::test_framing_that_cannot_be_trusted_is_an_error",
    "tests/unit/test_download_faults.py::test_an_honest_answer_becomes_a_file",
    "tests/unit/test_download_faults.py::test_a_connection_is_used_again_and_one_that_went_away_is_no_failure",
    "tests/unit/test_download_resume.py::test_an_unchanged_file_is_continued",
    "tests/unit/test_download_resume.py::test_what_must_not_be_continued_is_not",
    "tests/unit/test_download_patience.py::test_an_address_that_is_silent_costs_a_moment_and_only_once[single]",
    "tests/unit/test_download_patience.py::test_an_idle_connection_is_ended_after_a_moment",
    "tests/unit/test_download_patience.py::test_a_cancel_ends_every_phase_and_check_is_asked_at_least_every_half_second",
]

LIVELY = """
from gevent.event import Event
from worker.process import this_worker
late, over = [], Event()
def tick():
    begun = time.monotonic()
    while not over.wait(0.005):
        late.append(time.monotonic() - begun - 0.005)
        begun = time.monotonic()
with OriginProcess() as origin:
    desks = [Desk(Path(sys.argv[1]) / str(n), this_worker.fetcher()) for n in range(4)]
    ticker = gevent.spawn(tick)
    jobs = [gevent.spawn(desk.fetch, f"{origin.url}/files/n{n}?size=50000000") for n, desk in enumerate(desks)]
    gevent.joinall(jobs, timeout=60, raise_error=True)
    assert all(job.value.size == 50_000_000 for job in jobs)
    over.set()
    ticker.join()
late.sort()
print(len(late), late[len(late) // 2], late[-1])
"""


def printed(program: str, *arguments: str, **variables: str) -> str:
    """What a program printed in a process of its own: what is patched stays patched."""
    result = subprocess.run(
        [sys.executable, "-c", PATCHED + program, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout[-5000:]
    return result.stdout


def test_the_essential_tests_pass_with_patched_sockets() -> None:
    printed(PYTEST, "-q", "-x", "-p", "no:cacheprovider", *ESSENTIAL)


def test_four_fast_downloads_leave_the_hub_free(tmp_path: Path) -> None:
    told = printed(LIVELY, str(tmp_path), DOWNPOUR_ALLOW_NETWORKS="127.0.0.0/8", DOWNPOUR_ALLOW_PORTS="")
    _, median, _ = told.split()
    assert float(median) < 0.05  # seconds; inline writing and hashing makes it several times this


CLOSING = """
body = os.urandom(30_000_000)
desk = Desk(Path(sys.argv[1]), Fetcher(LOOPBACK, run=native_runner()))
with reciting(*[ok(body, "Connection: close")] * 5, ok(body, "Connection: close", length=len(body) + 1)) as server:
    for _ in range(5):
        assert desk.fetch(server.url()).sha256 == hashlib.sha256(body).hexdigest()
    print(desk.fails(server.url()))
"""


def test_an_answer_that_ends_its_connection_is_closed_by_the_hubs_own_thread(tmp_path: Path) -> None:
    """Given large bodies, most of which another thread receives; the last one is cut."""
    assert printed(CLOSING, str(tmp_path)) == "expected 30000001 bytes, got the end after 30000000 bytes\n"


CANCELLED = """
hub, asked = threading.get_ident(), []
def check():
    asked.append(threading.get_ident())
    if asked[-1] != hub:
        raise CancelledError("enough")
with OriginProcess() as origin:
    try:
        Desk(Path(sys.argv[1]), Fetcher(LOOPBACK, run=native_runner())).fetch(
            f"{origin.url}/files/n?size=2000000000", check=check)
    except CancelledError as error:
        print(error, asked[-1] != hub)
"""


def test_what_a_thread_meets_reaches_the_download_and_is_no_accident_of_the_hub(tmp_path: Path) -> None:
    """Given a cancel that a thread sees which receives for its greenlet."""
    assert printed(CANCELLED, str(tmp_path)) == "enough True\n"


KILLED = """
begun = sys.argv[2] == "True"
identity = native("_thread", "get_ident")
hub, run, append, log = identity(), native_runner(1), TempFile._append, []
def asking(work):
    log.append("asked")
    run(work)
def held(temp, piece):
    if identity() == hub:
        return append(temp, piece)
    log.append("begun")
    native("time", "sleep")(0.5)
    assert str(Path(f"/proc/self/fd/{temp._fd}").readlink()) == str(temp.path)
    append(temp, piece)
    log.append("written")
def opened():
    return sum(str(path.readlink()).startswith(("socket", sys.argv[1]))
               for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
TempFile._append = held
with OriginProcess() as origin:
    desk = Desk(Path(sys.argv[1]), Fetcher(LOOPBACK, run=asking))
    before = opened()
    if not begun:
        gevent.spawn(run, lambda: native("time", "sleep")(2))
    job = gevent.spawn(desk.fetch, f"{origin.url}/files/n?size=20000000")
    wait_for(lambda: ("begun" if begun else "asked") in log)
    job.kill()
    ended = list(log)
    run(lambda: None)  # whatever stood before it in the thread's queue has had its turn
    assert log == ended, log
    print(job.exception, ended.count("begun"), ended.count("written"), opened() - before)
"""


@pytest.mark.parametrize("begun", [True, False])
def test_a_killed_greenlet_ends_when_its_thread_is_done(tmp_path: Path, begun: bool) -> None:
    """Its file and its connection are closed after that; what the thread has not begun, it never begins."""
    assert printed(KILLED, str(tmp_path), str(begun)) == f"None {int(begun)} {int(begun)} 0\n"


class Endless:
    """A server that always has more: the greenlet would never be asked again whether to stop."""

    def __init__(self) -> None:
        self.glances: list[float] = []

    def glance(self, room: memoryview) -> int:
        self.glances.append(time.monotonic())
        return len(room)


def test_a_thread_goes_on_for_a_moment_and_no_longer(tmp_path: Path) -> None:
    attempt = _Alone(Wanted("http://h/"), tmp_path / "t.part", Limits(), lambda: None, user_agent="x")
    temp, endless = attempt.temp, Endless()
    temp.begin(Validators("http://h/", None, None, None))
    while len(temp.space()) < PIECE:
        temp.took(len(temp.space()))
        temp.write()
    temp.took(PIECE)
    before, begun = temp.written, time.monotonic()
    attempt._write_on(cast("Response", endless))
    assert len(endless.glances) > 1
    assert begun + _BURST <= time.monotonic()
    assert temp.written == before + (1 + len(endless.glances)) * PIECE
    temp.close()


def test_only_pieces_that_are_worth_it_are_handed_over(tmp_path: Path) -> None:
    handed: list[Callable[[], None]] = []

    def run(work: Callable[[], None]) -> None:
        handed.append(work)
        work()

    desk = Desk(tmp_path, Fetcher(LOOPBACK, run=run))
    for body in (b"s" * (WORTH_HANDING_OVER - 1), b"l" * 3 * WORTH_HANDING_OVER):
        with reciting(ok(body)) as server:
            desk.fetch(server.url())
        assert desk.temp.read_bytes() == body
        assert bool(handed) == (len(body) >= WORTH_HANDING_OVER)


def test_processes_and_threads_write_where_they_are() -> None:
    ran_in: list[int] = []
    native_runner()(lambda: ran_in.append(threading.get_ident()))
    assert ran_in == [threading.get_ident()]
