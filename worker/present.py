"""What is there already: a published file that proves to be the one that is wanted is not downloaded again.

With an expected sha256 the file is hashed, and no server is asked. Without one, the server is asked whether anything
changed since we published it: what it said then is kept in an extended attribute of the file. A file system without
those means that the file is downloaded again, and so does a file that was touched since.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path

from download.fetch import Fetched
from download.tempfile import PIECE
from download.threads import Run

_ATTRIBUTE = "user.downpour"
_MOST = 2048  # bytes; file systems keep small attributes with the file's other properties


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a published file came from, and how it was then."""

    url: str  # its digest
    sha256: str
    size: int
    mtime_ns: int  # a file with another one was touched since
    etag: str | None
    last_modified: str | None

    @property
    def conditions(self) -> dict[str, str]:
        """Headers that ask for the file only if it is another one now."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified} if self.last_modified else {}


def stamp(temp: Path | int, fetched: Fetched, url: str) -> None:
    """Give a whole file, which has no name yet, its time and its origin. What cannot be noted is left out.

    Args:
        temp: path, or descriptor of the open file.
    """
    mtime_ns = None
    with suppress(OSError, ValueError, OverflowError):
        changed = _nanoseconds(fetched.last_modified or "")
        os.utime(temp, ns=(changed, changed))
        mtime_ns = changed
    if not (fetched.etag or fetched.last_modified):
        return
    with suppress(OSError, AttributeError):  # no such attributes on this file system, or on this system
        if mtime_ns is None:
            mtime_ns = os.stat(temp).st_mtime_ns  # noqa: PTH116 - of a descriptor, too
        origin = Origin(_mark(url), fetched.sha256, fetched.size, mtime_ns, fetched.etag, fetched.last_modified)
        text = json.dumps({name: getattr(origin, name) for name in Origin.__slots__}).encode()  # asdict is slow
        if len(text) <= _MOST:
            os.setxattr(temp, _ATTRIBUTE, text)


@lru_cache(1000)  # files of one server often have one date
def _nanoseconds(date: str) -> int:
    return int(parsedate_to_datetime(date).timestamp()) * 10**9


def origin_of(final: Path, url: str) -> Origin | None:
    """What a published file says of itself, if it came from this URL and nobody touched it since."""
    try:
        origin = Origin(**json.loads(os.getxattr(final, _ATTRIBUTE, follow_symlinks=False)))
        found = final.stat(follow_symlinks=False)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    same = (origin.url, origin.size, origin.mtime_ns) == (_mark(url), found.st_size, found.st_mtime_ns)
    return origin if same else None


def holds(final: Path, sha256: str, size: int | None, ask: Callable[[], None], run: Run) -> int | None:
    """The length of a file whose content has this digest; None: there is no such file.

    Args:
        size: expected length, if known: then another one costs no reading.
        ask: asked between pieces; what it raises goes through.
        run: where a piece is read and hashed.
    """
    try:
        fd = os.open(final, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or size not in (None, found.st_size):
            return None
        return found.st_size if _digest(fd, ask, run) == sha256 else None
    except OSError:  # a disk that cannot read it can perhaps still be written to
        return None
    finally:
        os.close(fd)


def _digest(fd: int, ask: Callable[[], None], run: Run) -> str:
    digest = hashlib.sha256()
    more = True

    def hash_piece() -> None:
        nonlocal more
        piece = os.read(fd, PIECE)
        digest.update(piece)
        more = bool(piece)

    while more:
        ask()
        run(hash_piece)
    return digest.hexdigest()


def _mark(url: str) -> str:
    """A URL may be a secret, its digest is none."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]
