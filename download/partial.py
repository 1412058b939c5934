"""The temp file of one attempt, and what it leaves to the next one.

Guarantees:

- The validators are on disk before the first byte that they vouch for, so whatever is found after a
  SIGKILL at any moment can be continued: the kept prefix is as long as the file is.
- One writer. An attempt writes to a path of its own, which the caller gives to no other attempt, under
  a lock that the kernel releases when its process dies. What a frozen process still holds is never
  adopted, and a published file never is.

Not guaranteed: that the bytes survive a crash of the operating system. Therefore a prefix written
before the last boot is not continued.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

from download.threads import Run, hand_over
from download.validators import Validators

FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Partial:
    def __init__(self, place: Path | str) -> None:
        self.place = place  # as a path only when it is needed: most files of a chunk never have a temp file
        self.size = 0  # bytes kept, all of them written
        self.validators: Validators | None = None
        self._fds: list[int] = []  # at most one; popping it is atomic
        self.lent = False  # used by another thread
        self._closing = False

    @property
    def path(self) -> Path:
        return Path(self.place)

    def adopt(self, leftover: Path) -> None:
        """Continue what an earlier attempt left, if it left something that can be continued."""
        try:
            fd = os.open(leftover, FLAGS)
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
        lock(self._fd)
        if validators.worth_keeping:
            _write_validators(self.path, validators)
            self.validators = validators

    def _create(self) -> int:
        flags = FLAGS | os.O_CREAT | os.O_EXCL
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

    def lend(self, run: Run, work: Callable[[Callable[[], bool]], None]) -> None:
        """Have somebody else use the open file; until that is over it stays open. See ``hand_over`` for ``work``."""
        self.lent = True
        hand_over(run, work, self._came_back)

    def _came_back(self) -> None:
        self.lent = False
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
        if not self.lent:
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


def companions(temp: Path) -> tuple[Path, Path]:
    """A temp file and its validators: what to move or remove together, in this order."""
    return temp, validators_path(temp)


def lock(fd: int) -> bool:
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
    if not lock(fd):
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
