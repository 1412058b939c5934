"""Faults of the worker's own machine: a disk that is full, read-only or gone; no descriptors, threads or memory left.

They say nothing about a job: what follows from one is told in ``docs/claims.md``.

A job may fail alone on a machine that is well: a name that the file system refuses, one file that cannot be replaced.
``fault_behind`` tells the two apart by a probe. Kept true by ``tests/fault/test_machine.py``.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import time
from contextlib import suppress
from pathlib import Path

from download.errors import DiskFullError, DownloadError, MachineError
from download.tempfile import FOLDER
from download.threads import Run
from ledger.jobs import FailureKind
from ledger.settings import Settings
from ledger.switches import Fault, Switches

log = logging.getLogger("downpour.worker")

ROOM = 64 * 2**20  # bytes; a disk with so much room is well, and a job that needs more waits alone
_NEED_FOR = 30.0  # seconds; then a note's need is forgotten: the job that had it may be gone
_DESCRIPTORS = 8  # that must be free
_PER_SLOT = 2  # descriptors: a connection and a file
_BESIDE = 100  # descriptors that a worker has open beside its slots
_SOON = 60.0  # seconds; a fault that returns within them is probed later each time,
_LONGEST_PAUSE = 30.0  # ... up to this

# The system may answer these instead of saying that a descriptor is missing.
_PERHAPS_DESCRIPTORS = frozenset({FailureKind.DNS, FailureKind.CONNECT, FailureKind.TLS})


def fault_behind(error: DownloadError, downloads: Path, run: Run) -> str | None:
    """What is wrong with this machine; None: the failure is the job's own, or the server's.

    Args:
        run: where the disk is tried.
    """
    if isinstance(error, MachineError):
        return f"{error}; more descriptors: ulimit -n" if _no_descriptors() else str(error)
    if error.kind in _PERHAPS_DESCRIPTORS:
        return _no_descriptors()
    if error.kind not in (FailureKind.DISK, FailureKind.DISK_FULL, FailureKind.RESET):
        return None
    if error.kind is FailureKind.RESET and error.errno != errno.ENOTCONN:  # a file system in user space that ended
        return None
    found: list[str | None] = []
    need = error.need if isinstance(error, DiskFullError) and error.need <= capacity(downloads) else 0
    run(lambda: found.append(probe(downloads, need)))
    return found[0]


def probe(downloads: Path, need: int = 0) -> str | None:
    """Try the downloads folder and the descriptors; what is wrong, None: nothing.

    Args:
        need: bytes of room that should be there; beyond ``ROOM`` they do not count.
    """
    if missing := _no_descriptors():
        return missing
    mine = f".probe-{os.uname().nodename}-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder = downloads / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        temp, final = folder / mine, downloads / mine
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            temp.rename(final)
            os.write(fd, bytes(4096))
            os.fsync(fd)
            room = _room(fd)
        finally:
            os.close(fd)
            for path in (temp, final):
                with suppress(OSError):
                    path.unlink()
    except OSError as error:
        return f"{downloads} cannot be written to: {error.strerror or error}"
    if room < min(need, ROOM):
        return f"expected {need:,} bytes of room in {downloads}, got {room:,}; make room there"
    return None


def capacity(downloads: Path) -> int:
    """Bytes that the file system of the downloads folder has in all; 0 if it does not say."""
    with suppress(OSError):
        found = os.statvfs(downloads)
        return found.f_blocks * found.f_frsize
    return 0


def _room(fd: int) -> int:
    found = os.fstatvfs(fd)
    return found.f_bavail * found.f_frsize


def _no_descriptors() -> str | None:
    opened: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"{error.strerror}: process {os.getpid()} may have {limit}; raise it with ulimit -n, or lower -c"
    finally:
        for fd in opened:
            os.close(fd)
    return None


def allow_descriptors(slots: int, chunk: int) -> str | None:
    """Raise the limit of open files to what the slots may need, as far as is allowed; a warning if that is too little.

    Args:
        chunk: downloads at once within a slot.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least, most = _PER_SLOT * slots + _BESIDE, (chunk + _PER_SLOT) * slots + _BESIDE
    if soft == resource.RLIM_INFINITY or soft >= most:
        return None
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= least:
        return None
    return (
        f"{slots} slots need about {least} open files, the limit is {allowed}: downloads will wait for descriptors. "
        f"Raise it before the start with ulimit -n {least} (Docker: --ulimit nofile={least}), or lower -c"
    )


class MachineHealth:
    """What the worker's main process knows of its machine."""

    def __init__(self, settings: Settings) -> None:
        self.fault: Fault | None = None
        self.noted = True  # a fault, whichever worker's, as far as is known: else there is nothing to ask
        self._connected = False
        self._settings = settings
        self._begun = 0.0  # when the present fault was noticed; this and what follows by time.monotonic()
        self._ended = -_SOON
        self._pause = 0.0  # seconds from a fault's begin until the first probe

    def look(self, switches: Switches, worker: str, now: float) -> None:
        """See whether a fault was noted, and whether it is over.

        Raises:
            redis.RedisError: Redis is away.
        """
        if self._connected and not self.noted and self.fault is None:
            return
        self._connected = True  # while there are descriptors: under gevent its thread needs some of its own
        faults = switches.faults()
        if others := faults.keys() - {worker}:
            switches.forget_faults_of_the_gone(others)
        known, self.fault = self.fault, faults.get(worker)
        if self.fault is None:
            self._ended = now if known else self._ended
            return
        if known is None:
            again = now - self._ended < _SOON
            self._begun, self._pause = now, min(_LONGEST_PAUSE, max(1.0, 2 * self._pause)) if again else 0.0
            log.warning("takes no jobs: a fault of this machine: %s", self.fault.reason)
        if now - self._begun < self._pause:
            return
        need = self.fault.need if now - self._begun < _NEED_FOR else 0
        if probe(self._settings.downloads, need) is None:
            switches.note_well(worker)
            self.fault, self._ended = None, now
            log.info("takes jobs again: this machine is well after %.1f s", now - self._begun)
