"""A sink that touches the disk late: a small file stays in memory until it is whole and verified.

So a file that fails leaves nothing behind, and one that does not costs one write and one link. Beyond
``WORTH_KEEPING``, where an attempt that breaks is worth continuing, it is the ordinary sink.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from download.errors import DiskFullError, LeaseLostError
from download.partial import Partial
from download.publish import publish
from download.sink import PIECE, Sink
from download.threads import in_place
from download.validators import WORTH_KEEPING, Validators

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNNAMED = os.O_WRONLY | os.O_CLOEXEC | getattr(os, "O_TMPFILE", os.O_CREAT | os.O_EXCL)  # the latter always fails
# File systems that know no unnamed files, and systems that do not.
_NOT_HERE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ENOENT})


class Draft(Sink):
    def __init__(self, partial: Partial, most: int, wanted: int | None) -> None:
        super().__init__(partial, in_place, most, wanted)
        self._pieces: list[bytes] = []  # what waits
        self._validators: Validators | None = None  # of a file that is not on disk yet
        self._body: bytes | None = None  # of a file that never was
        self._body_sha256 = ""
        self._temp = os.fspath(partial.place)

    @property
    def room(self) -> int:
        return sys.maxsize if self._validators else super().room

    @property
    def sha256(self) -> str:
        if self._body is None:
            return super().sha256
        return self._body_sha256

    def begin(self, validators: Validators) -> None:
        self._validators = validators

    def take(self, piece: bytes) -> bool:
        """Take what arrived; whether to flush.

        Raises:
            TooLargeError, SizeError: too many bytes by now.
        """
        self._pieces.append(piece)
        self._count(len(piece))
        if self._validators and self.size < WORTH_KEEPING:
            return False
        return self._waiting >= PIECE or self._overdue

    def flush(self) -> None:
        if validators := self._validators:
            self._validators = None
            super().begin(validators)
            if validators.total is not None and validators.total > self.room:
                raise DiskFullError(f"expected room for {validators.total} bytes, got {self.room}")
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._write(b"".join(pieces))
        self._flushed = time.monotonic()

    def keep(self) -> None:
        """The attempt broke: put on disk what a later one can continue."""
        if self._validators and self._validators.worth_keeping and self.size >= WORTH_KEEPING:
            with suppress(OSError, DiskFullError):
                self.flush()

    def end(self) -> None:
        """Every byte is here."""
        if self._validators:
            self._body = b"".join(self._pieces)
            self._body_sha256 = hashlib.sha256(self._body).hexdigest()
        else:
            self.flush()

    def publish(
        self, final: str, *, fsync: bool, replace: bool = False, stamp: Callable[[Path | int], None] = lambda _: None
    ) -> None:
        """See ``download.publish``.

        Args:
            stamp: gives the file, which has no name yet, what else it should have; takes its path or descriptor.
        """
        if self._body is None or fsync or replace:
            self.save()
            stamp(self.partial.path)
            publish(self.partial.path, Path(final), fsync=fsync, replace=replace)
            return
        if not _publish_unnamed(self._body, final, stamp):  # what it could not do, the other does or explains
            self._publish_named(self._body, final, stamp)

    def _publish_named(self, body: bytes, final: str, stamp: Callable[[int], None]) -> None:
        # Nobody else can have taken this temp file over: its name is this claim's, and it has no validators.
        self._create(body, stamp)
        try:
            os.link(self._temp, final)  # a Path takes as long as the call
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            if self.partial.path.exists():
                raise
            raise LeaseLostError(f"expected {self.partial.path.name}, but a later claim removed it") from error
        except OSError:  # a file system without links
            publish(self.partial.path, Path(final))
        with suppress(FileNotFoundError):
            os.unlink(self._temp)  # noqa: PTH108

    def save(self) -> None:
        """Put what is in memory into the temp file."""
        if self._body is not None and not self.partial.path.exists():
            self._create(self._body, lambda _: None)

    def _create(self, body: bytes, stamp: Callable[[int], None]) -> None:
        try:
            fd = os.open(self._temp, _FLAGS, 0o666)
        except FileNotFoundError:
            self.partial.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._temp, _FLAGS, 0o666)
        try:
            _fill(fd, body)
            stamp(fd)
        except OSError:
            with suppress(OSError):
                self.partial.path.unlink()
            raise
        finally:
            os.close(fd)


def _publish_unnamed(body: bytes, final: str, stamp: Callable[[int], None]) -> bool:
    """Write a file that has no name until it gets its final one, so a kill leaves nothing; False: impossible here.

    On ext4 that takes a third less than a temp file's name, which is made and removed again.
    Nobody can take it away, either: a process that was frozen just before the link, and whose job was cancelled
    meanwhile, publishes a whole file of a cancelled job, where a temp file would be gone.
    """
    try:
        fd = os.open(os.path.dirname(final), _UNNAMED, _mode())  # noqa: PTH120 - as above
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        raise
    try:
        _fill(fd, body)
        stamp(fd)
        # Naming a folder makes it linkat(), which alone follows the link that stands for the open file.
        os.link(f"/proc/self/fd/{fd}", final, src_dir_fd=fd, follow_symlinks=True)
    except FileExistsError:
        raise
    except OSError:  # no /proc, or no links
        return False
    finally:
        os.close(fd)
    return True


@cache
def _mode() -> int:
    """What the umask leaves of 0666. Kernels before 6.0 forget it for unnamed files on file systems without ACLs.

    Asked of /proc: umask() itself would set another one for a moment, in all threads.
    """
    with suppress(OSError, IndexError, ValueError):
        return 0o666 & ~int(Path("/proc/self/status").read_text().partition("\nUmask:")[2].split()[0], 8)
    return 0o666


def _fill(fd: int, body: bytes) -> None:
    view = memoryview(body)
    while view:  # a disk that fills up takes a part first
        view = view[os.write(fd, view) :]
