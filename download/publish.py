"""The commit: a whole, verified temp file gets its final name.

It overwrites nothing, unless the caller proves that it may. It does not survive a crash of the operating system, unless
``fsync`` is asked for.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from download.errors import LeaseLostError
from download.partial import FLAGS, lock, validators_path

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def publish(temp: Path, final: Path, *, fsync: bool = False, replace: bool = False) -> None:
    """Give a whole, verified file its name. The link is the commit; a kill before it leaves no final name.

    Args:
        replace: whatever has the name gives way. Only for a caller who proved that it is its own.

    Raises:
        FileExistsError: something has that name already; temp stays.
        LeaseLostError: temp is gone or being written to: another attempt adopted it.
    """
    try:
        fd = os.open(temp, FLAGS)
    except FileNotFoundError as error:
        raise LeaseLostError(f"expected {temp.name}, but another attempt has taken it over") from error
    try:
        if not lock(fd):
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
