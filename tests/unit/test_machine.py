"""Whose fault a failure is: the machine's, the job's or the server's; how many descriptors a worker allows itself."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from download.errors import DiskError, DiskFullError, DnsError, DownloadError, ServerError, TlsError, translate
from download.threads import in_place
from worker import machine
from worker.machine import fault_behind, probe


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
