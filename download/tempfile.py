"""The temp file of one attempt: bytes are counted, written and hashed into it; then it is published, or continued.

Guarantees:

- The validators are on disk before the first byte that they vouch for, so whatever is found after a SIGKILL at any
  moment can be continued: the kept prefix is as long as the file is.
- One writer. An attempt writes to a path of its own, which the caller gives to no other attempt, under a lock that the
  kernel releases when its process dies. What a frozen process still holds is never adopted, and a published file
  never is.
- A final name is a link to a whole, verified file. It replaces nothing, unless the caller proves that it may.

Not guaranteed: that the bytes survive a crash of the operating system, unless ``fsync`` is asked for. Therefore a
prefix written before the last boot is not continued.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from download.errors import DiskFullError, SizeError, TempLostError, TooLargeError
from download.threads import Run
from download.validators import WORTH_KEEPING, Validators

# Below the downloads: on their file system, so publishing is a link, and outside the batches' folders.
FOLDER = ".partial"

PIECE = 1024 * 1024  # bytes written and hashed at a time, at the most; 256 KiB cost a tenth more, 4 MiB leave the cache
FLUSH_EVERY = 1.0  # seconds until less than a piece is written, too

# A download has a buffer for what comes within a tenth of a second, so a thousand slow ones need little. The buffer is
# kept while the download lasts: pages that come fresh from the system for each piece cost as much as receiving.
_FIRST_BUFFER = 8 * 1024  # bytes; four times as many when it was filled quickly
_QUICKLY = 0.1  # seconds
_IN_A_ROW = 4  # times; a server that sends slowly still sends what it sends at once

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_UNNAMED = os.O_WRONLY | os.O_CLOEXEC | getattr(os, "O_TMPFILE", os.O_CREAT | os.O_EXCL)  # the latter always fails
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_FROZEN = 2.0  # seconds; a process that holds a lock for so long stands still
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


class TempFiles:
    """Paths of a job's temp files: each belongs to one claim, ``downloads/.partial/JOB.CLAIM.part``.

    Where case does not count, batches that differ in nothing else share no temp file: ``B.1`` is written ``~b.1``.
    """

    def __init__(self, downloads: Path, job: str, claim: int) -> None:
        name = job if job.islower() else re.sub("[A-Z]", lambda capital: f"~{capital[0].lower()}", job)
        self._places = [f"{downloads}/{FOLDER}/{name}.{number}.part" for number in range(claim, 0, -1)]
        self.place = self._places[0]  # of this claim's temp file

    @property
    def mine(self) -> Path:
        return Path(self.place)

    @property
    def newest(self) -> Path:
        """What to resume: my own, or the newest that an earlier claim left."""
        return next((path for path in map(Path, self._places) if path.exists()), self.mine)

    def clear(self) -> None:
        """Remove what this claim and earlier ones left. The folder stays: another job may be about to use it."""
        with suppress(OSError):
            for place in self._places:
                _remove(Path(place))


@dataclass(eq=False, kw_only=True)
class TempFile:
    """A small file that is ``late`` stays in memory until it is whole and verified.

    If it fails, it leaves nothing behind; else it costs one write and one link. From ``WORTH_KEEPING`` on, it is an
    ordinary temp file.
    """

    place: Path | str = field(kw_only=False)  # a Path only when it is needed: most files of a group have no temp file
    max_bytes: int = sys.maxsize  # length of the largest file
    expected: int | None = None  # length of this one, in bytes
    algorithm: str | None = None  # of a digest to compute beside sha256, as hashlib names it
    late: bool = False  # it is made when the file is whole

    def __post_init__(self) -> None:
        self.written = 0  # bytes on disk
        self.waiting = 0  # bytes in the buffer
        self.total: int | None = None  # announced length
        self.resumed_from = 0  # bytes that an earlier attempt had left
        self.validators: Validators | None = None  # on disk, too, if they are worth keeping
        self.identity: tuple[int, int] | None = None  # of the file: device and inode; another may have its name one day
        self._in_memory = False  # begun, and not on disk yet
        self._hash_anew()
        self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        self._flushed = time.monotonic()
        self._quick = 0  # times in a row that the buffer was filled quickly
        self._fd: int | None = None

    @property
    def path(self) -> Path:
        return Path(self.place)

    @property
    def size(self) -> int:
        return self.written + self.waiting

    @property
    def full(self) -> bool:
        return self.waiting == len(self._buffer)

    def digest(self, algorithm: str) -> str:
        return self._digests[algorithm].hexdigest()

    def _hash_anew(self) -> None:
        self._digests = {"sha256": hashlib.sha256()}
        if self.algorithm:
            self._digests[self.algorithm] = hashlib.new(self.algorithm, usedforsecurity=False)

    def _hash(self, piece: bytes | memoryview) -> None:
        for digest in self._digests.values():
            digest.update(piece)

    # -- begin, or continue

    def adopt(self, leftover: Path, ask: Callable[[], None], run: Run) -> None:
        """Continue what an earlier attempt left, if it left something that can be continued; and hash it.

        Args:
            ask: asked between the pieces; what it raises goes through.
            run: where a piece is read and hashed.
        """
        try:
            fd = os.open(leftover, _OPEN)
        except OSError:  # none there, or not for us
            return
        validators = _read_validators(leftover)
        if validators is None or not _is_abandoned(fd, leftover):
            os.close(fd)
            return
        self._fd, self.identity = fd, _identity(fd)
        if leftover != self.path:
            _remove(self.path)
            _write_validators(self.path, validators)
            leftover.rename(self.path)
            validators_path(leftover).unlink(missing_ok=True)
        self.validators, self.written = validators, os.fstat(fd).st_size
        if validators.total is not None:
            # Ask for at least one byte: only an answer proves that the rest is unchanged.
            self.written = min(self.written, max(0, validators.total - 1))
            os.ftruncate(fd, self.written)
        for offset in range(0, self.written, PIECE):
            ask()
            run(lambda at=offset: self._hash(os.pread(fd, PIECE, at)))  # type: ignore[misc]

    def go_on(self, total: int) -> None:
        """The server proved that what was adopted is the beginning of its file, and announced its length.

        Raises:
            SizeError, TooLargeError: not the length that is wanted.
        """
        self.resumed_from = self.written
        self._announced(total)

    def begin(self, validators: Validators) -> None:
        """Start with an empty file.

        Raises:
            SizeError, TooLargeError, DiskFullError: this file is not wanted, or has no room.
        """
        self._announced(validators.total)
        if self._fd is not None:
            self.discard()
        self.resumed_from, self.validators, self._in_memory = 0, validators, self.late
        if not self.late:
            self._create()

    def _announced(self, total: int | None) -> None:
        self.total = total
        if total is not None and self.expected not in (None, total):
            raise SizeError(f"expected {self.expected} bytes, the server announces {total}")
        if total is not None and total > self.max_bytes:
            raise TooLargeError(
                f"expected at most {self.max_bytes} bytes (DOWNPOUR_MAX_BYTES), the server announces {total}"
            )

    def _create(self) -> None:
        """Make a file of our own; never touch the bytes of one that may have been linked."""
        _remove(self.path)
        flags = _OPEN | os.O_CREAT | os.O_EXCL
        try:
            fd = os.open(self.place, flags, 0o666)
        except FileNotFoundError:  # the first file of all
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.place, flags, 0o666)
        self._fd, self.identity = fd, _identity(fd)
        _lock(fd)
        if self.validators and self.validators.worth_keeping:
            _write_validators(self.path, self.validators)
        disk = os.fstatvfs(fd)
        room = disk.f_bavail * disk.f_frsize
        if self.total is not None and self.total > room:
            raise DiskFullError(f"expected room for {self.total} bytes, got {room}")

    # -- receive

    def space(self) -> memoryview:
        """Where the next bytes go; never empty after a write."""
        return self._buffer[self.waiting :]

    def took(self, count: int) -> bool:
        """So many bytes were put there; whether to write.

        Raises:
            TooLargeError, SizeError: too many by now.
        """
        self.waiting += count
        if self.size > self.max_bytes:
            raise TooLargeError(f"expected at most {self.max_bytes} bytes (DOWNPOUR_MAX_BYTES), got more")
        if self.expected is not None and self.size > self.expected:
            raise SizeError(f"expected {self.expected} bytes, got more")
        if self._in_memory and self.size < WORTH_KEEPING:
            if self.full:
                self._grow()
            return False
        return self.full or time.monotonic() - self._flushed >= FLUSH_EVERY

    def take(self, piece: bytes) -> None:
        """Take what arrived elsewhere; as ``space``, ``took`` and ``write``."""
        view = memoryview(piece)
        while view:
            space = self.space()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            view = view[count:]
            if self.took(count):
                self.write()

    def write(self) -> None:
        """Write all that waits, then hash it: what is hashed is on disk."""
        if not self.waiting:
            return
        if self._in_memory:
            self._in_memory = False
            self._create()
        begun, piece = time.monotonic(), self._buffer[: self.waiting]
        self._quick = self._quick + 1 if self.full and begun - self._flushed < _QUICKLY else 0
        self.waiting = 0  # whatever part of it is written now counts there
        self._append(piece)
        self._hash(piece)
        if self._quick >= _IN_A_ROW and len(self._buffer) < PIECE:
            self._grow()
        self._flushed = time.monotonic()

    def _append(self, view: memoryview) -> None:
        assert self._fd is not None  # noqa: S101 - begun
        while view:  # a disk that fills up takes a part first
            written = os.pwrite(self._fd, view, self.written)
            self.written += written
            view = view[written:]

    def _grow(self) -> None:
        buffer = memoryview(bytearray(min(PIECE, 4 * len(self._buffer))))
        buffer[: self.waiting] = self._buffer[: self.waiting]
        self._buffer, self._quick = buffer, 0

    # -- end

    def end(self) -> None:
        """Every byte is here: the digest is that of the whole file."""
        if self._in_memory:
            self._hash(self._buffer[: self.waiting])
        else:
            self.write()

    def save(self) -> None:
        """Put on disk a file that ended in memory."""
        if self._in_memory:
            try:
                self._create()
                self._append(self._buffer[: self.waiting])
            except BaseException:
                self.discard()
                raise
            self._in_memory, self.waiting = False, 0
            self.close()

    def publish(
        self, final: str, *, fsync: bool, replace: bool = False, stamp: Callable[[Path | int], None] = lambda _: None
    ) -> None:
        """As ``download.tempfile.publish``, for a file that may be in memory.

        Args:
            stamp: gives the file, which has no name yet, what else it should have; takes its path or descriptor.
        """
        body = self._buffer[: self.waiting]
        if self._in_memory and not (fsync or replace) and _publish_unnamed(body, final, stamp):
            return
        self.save()
        stamp(self.path)
        publish(self.path, Path(final), fsync=fsync, replace=replace, identity=self.identity)

    def give_up(self, *, keep: bool) -> None:
        """The attempt failed: what a later one can continue stays if it may, the rest is removed."""
        keep = keep and self.validators is not None and self.validators.worth_keeping
        if keep and (self.size >= WORTH_KEEPING or not self._in_memory):
            with suppress(OSError, DiskFullError):
                self.write()
        if not keep or not self.written:
            self.discard()

    def discard(self) -> None:
        """Remove what is ours."""
        if self._fd is not None:
            _remove(self.path)
            self.close()
        self.written, self.waiting = 0, 0
        self.validators, self._in_memory = None, False
        self._hash_anew()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def publish(
    temp: Path, final: Path, *, fsync: bool = False, replace: bool = False, identity: tuple[int, int] | None = None
) -> None:
    """Give a whole, verified file its name. The link is the commit; a kill before it leaves no final name.

    Args:
        replace: whatever has the name gives way. Only for a caller that proved that it is its own.
        identity: device and inode of the file that was verified, if they are known.

    Raises:
        FileExistsError: something has that name already; temp stays.
        TempLostError: temp is gone, locked, or another file than the one that was verified.
    """
    try:
        with _opened(temp, _OPEN) as fd:
            if not _lock(fd):
                raise TempLostError(f"expected {temp.name} for this attempt alone, but another process has locked it")
            if identity not in (None, _identity(fd)):
                raise TempLostError(f"expected {temp.name} as it was written, but another file has its name")
            if fsync:
                os.fsync(fd)
            if replace:
                temp.replace(final)  # does nothing if both are one file already, hence the unlink
            else:
                _link(temp, final)
            _remove(temp)
    except OSError as error:
        if (error.errno == errno.ENOENT and not os.path.lexists(temp)) or temp.is_symlink():
            raise TempLostError(f"expected the temp file {temp.name}, but it was removed") from error
        raise
    if fsync:
        with _opened(final.parent, _OPEN_FOLDER) as folder:
            os.fsync(folder)


def _link(temp: Path, final: Path) -> None:
    try:
        final.hardlink_to(temp)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links cannot do both in one step. An empty file that holds the name for a moment would
        # be a half-written one if we died. So no two of ours do it at once, and the moment of another program is short.
        with _opened(temp.parent, _OPEN_FOLDER) as folder:
            until = time.monotonic() + _FROZEN
            while not _lock(folder) and time.monotonic() < until:
                time.sleep(0.01)
            if os.path.lexists(final):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from error
            temp.rename(final)


def _publish_unnamed(body: memoryview, final: str, stamp: Callable[[int], None]) -> bool:
    """Write a file that has no name until it gets its final one, so a kill leaves nothing; False: impossible here.

    On ext4 that takes a third less than a temp file's name, which is made and removed again.
    It cannot be taken away, either: a process that was frozen just before the link, and whose job was cancelled
    meanwhile, publishes a whole file of a cancelled job, where a temp file would be gone.
    """
    try:
        fd = os.open(os.path.dirname(final), _UNNAMED, _mode())  # noqa: PTH120 - a Path takes as long as the call
    except OSError:  # the file system knows none, or has a fault that a temp file meets, too
        return False
    try:
        while body:  # a disk that fills up takes a part first
            body = body[os.write(fd, body) :]
        stamp(fd)
        try:
            # Naming a folder makes it linkat(), which alone follows the link that stands for the open file.
            os.link(f"/proc/self/fd/{fd}", final, src_dir_fd=fd, follow_symlinks=True)
        except FileExistsError:
            raise
        except OSError:  # no /proc, or no links
            return False
        return True
    finally:
        os.close(fd)


@cache
def _mode() -> int:
    """What the umask leaves of 0666. Kernels before 6.0 forget it for unnamed files on file systems without ACLs.

    Asked of /proc: umask() itself would set another one for a moment, in all threads.
    """
    with suppress(OSError, IndexError, ValueError):
        return 0o666 & ~int(Path("/proc/self/status").read_text().partition("\nUmask:")[2].split()[0], 8)
    return 0o666


# -- the lock, and the validators beside the file


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # gevent closes folders later
        os.close(fd)


def _lock(fd: int) -> bool:
    """Whether we hold the file now. A file system without locks is taken at the caller's word."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _is_abandoned(fd: int, path: Path) -> bool:
    """Whether an opened file has no writer, and still is what its path names, and has no other name."""
    if not _lock(fd):
        return False
    with suppress(FileNotFoundError):
        named = path.stat(follow_symlinks=False)
        return (named.st_dev, named.st_ino) == _identity(fd) and named.st_nlink == 1
    return False


def _remove(temp: Path) -> None:
    """Free a path, validators last: alone they vouch for nothing, beside other bytes they would lie."""
    for path in (temp, validators_path(temp)):
        if os.path.lexists(path):  # mostly there is none
            path.unlink(missing_ok=True)


def validators_path(temp: Path) -> Path:
    return temp.with_name(temp.name + ".json")


def _write_validators(temp: Path, validators: Validators) -> None:
    """A part of it cannot be read, so it vouches for nothing."""
    validators_path(temp).write_text(json.dumps({**asdict(validators), "boot": _boot()}))


def _read_validators(temp: Path) -> Validators | None:
    """None: there are none, or they cannot be read, or the machine was booted since."""
    try:
        fields = json.loads(validators_path(temp).read_text())
        return Validators(**fields) if fields.pop("boot") == _boot() else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
