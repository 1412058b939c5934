"""The temp file of one attempt, what it leaves to the next one, and the commit.

Guarantees:

- The validators are on disk before the first byte that they vouch for, so whatever is found after a
  SIGKILL at any moment can be continued: the kept prefix is as long as the file is.
- One writer. An attempt writes to a path of its own, which the caller gives to no other attempt, under
  a lock that the kernel releases when its process dies. What a frozen process still holds is never
  adopted, and a published file never is.
- ``publish`` overwrites nothing, unless the caller proves that it may.

Not guaranteed: that the bytes survive a crash of the operating system. Therefore a prefix written
before the last boot is not continued.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

from download.errors import LeaseLostError
from download.integrity import Validators

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Partial:
    def __init__(self, place: Path | str) -> None:
        self.place = place  # as a path only when it is needed: most files of a chunk never have a temp file
        self.size = 0  # bytes kept, all of them written
        self.validators: Validators | None = None
        self._fds: list[int] = []  # at most one; popping it is atomic
        self.busy = False  # writing, perhaps in a thread
        self._closing = False

    @property
    def path(self) -> Path:
        return Path(self.place)

    def adopt(self, leftover: Path) -> None:
        """Continue what an earlier attempt left, if it left something that can be continued."""
        try:
            fd = os.open(leftover, _FLAGS)
        except OSError:  # none there, or not for us
            return
        validators = _read_validators(leftover)
        if validators is None or not _is_abandoned(fd, leftover):
            os.close(fd)
            return
        if leftover != self.path:
            self._clear()
            _write_validators(self.path, validators)
            leftover.rename(self.path)
            validators_path(leftover).unlink(missing_ok=True)
        self._open(fd)
        self.validators, self.size = validators, os.fstat(fd).st_size
        if validators.total is not None:
            # Ask for at least one byte: only an answer proves that the rest is unchanged.
            self.cut(min(self.size, max(0, validators.total - 1)))

    def begin(self, validators: Validators) -> None:
        """Start with an empty file of ours; never touch the bytes of one that somebody may have linked."""
        self.discard()
        self._clear()
        self._open(self._create())
        _lock(self._fd)
        if validators.worth_keeping:
            _write_validators(self.path, validators)
            self.validators = validators

    def _create(self) -> int:
        flags = _FLAGS | os.O_CREAT | os.O_EXCL
        try:
            return os.open(self.place, flags, 0o666)
        except FileNotFoundError:  # the first file of all
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.place, flags, 0o666)

    def cut(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self.size = size

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def expect_writing(self) -> None:
        """Announce ``writing`` in another thread: until that is over the file stays open.

        A greenlet can be killed while it waits for that thread. Were the file closed under it, the write
        could hit whatever file gets the same descriptor next.
        """
        self.busy = True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What was announced."""
        try:
            yield
        finally:
            self.busy = False
            if self._closing:
                self.close()

    def append(self, piece: bytes | memoryview) -> None:
        view = memoryview(piece)
        while view:  # a disk that fills up takes a part first
            written = os.pwrite(self._fd, view, self.size)
            self.size += written
            view = view[written:]

    @property
    def room(self) -> int:
        """Bytes that the file system has left for us."""
        stat = os.fstatvfs(self._fd)
        return stat.f_bavail * stat.f_frsize

    def close(self) -> None:
        self._closing = True
        if not self.busy:
            with suppress(IndexError):
                os.close(self._fds.pop())

    def _clear(self) -> None:
        """Free the path, validators last: alone they vouch for nothing, beside other bytes they would lie."""
        for path in companions(self.path):
            if os.path.lexists(path):
                path.unlink(missing_ok=True)

    def _open(self, fd: int) -> None:
        self._fds, self._closing = [fd], False

    @property
    def _fd(self) -> int:
        return self._fds[0]

    def discard(self) -> None:
        """Remove what is ours."""
        if self._fds:
            self._clear()
            self.close()
        self.size, self.validators = 0, None


def publish(temp: Path, final: Path, *, fsync: bool = False, replace: bool = False) -> None:
    """Give a whole, verified file its name. The link is the commit; a kill before it leaves no final name.

    Args:
        replace: whatever has the name gives way. Only for a caller who proved that it is its own.

    Raises:
        FileExistsError: something has that name already; temp stays.
        LeaseLostError: temp is gone or being written to: another attempt adopted it.
    """
    try:
        fd = os.open(temp, _FLAGS)
    except FileNotFoundError as error:
        raise LeaseLostError(f"expected {temp.name}, but another attempt has taken it over") from error
    try:
        if not _lock(fd):
            raise LeaseLostError(f"expected {temp.name} to be ours, but another attempt writes to it")
        if fsync:
            os.fsync(fd)
        if replace:
            temp.replace(final)  # does nothing if both are one file already, hence the unlink
        else:
            _link(temp, final)
        temp.unlink(missing_ok=True)
        validators_path(temp).unlink(missing_ok=True)
    finally:
        os.close(fd)
    if fsync:
        sync_folder(final.parent)


def companions(temp: Path) -> tuple[Path, Path]:
    """A temp file and its validators: what to move or remove together, in this order."""
    return temp, validators_path(temp)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link(temp: Path, final: Path) -> None:
    try:
        final.hardlink_to(temp)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links cannot do both in one step. An empty file that holds the name for
        # a moment would be a half-written one if we died; a rare overwritten one is the smaller evil.
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from error
        temp.rename(final)


def _lock(fd: int) -> bool:
    """Whether we hold the file now. A file system without locks is taken at the caller's word."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
    return True


def _is_abandoned(fd: int, path: Path) -> bool:
    """Whether nobody writes to an opened file, and it still is what its path names, and nothing else names it."""
    if not _lock(fd):
        return False
    opened = os.fstat(fd)
    with suppress(FileNotFoundError):
        named = path.stat(follow_symlinks=False)
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) and opened.st_nlink == 1
    return False


def validators_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _write_validators(path: Path, validators: Validators) -> None:
    target = validators_path(path)
    fresh = target.with_name(target.name + ".new")
    fresh.write_text(json.dumps({**asdict(validators), "boot": _boot()}))
    fresh.replace(target)


def _read_validators(path: Path) -> Validators | None:
    """None: there are none, or they cannot be read, or the machine was booted since."""
    try:
        fields = json.loads(validators_path(path).read_text())
        return Validators(**fields) if fields.pop("boot") == _boot() else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
