"""Where the bytes of an attempt go: counted, hashed and written in pieces of a size that no hub feels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from download.errors import SizeError, TooLargeError
from download.partial import Partial
from download.threads import Run, in_place
from download.validators import Validators

PIECE = 1024 * 1024  # bytes written and hashed at a time, at the most; 256 KiB cost a tenth more, 4 MiB leave the cache
# Under gevent, handing a piece to a thread and waiting for it costs 100 µs; writing and hashing costs 60 µs for 64 KiB,
# 110 µs for 128 KiB. With every piece handed over, a gevent worker brings about 40 % fewer files of 1 KiB.
WORTH_HANDING_OVER = 128 * 1024  # bytes
FLUSH_EVERY = 1.0  # seconds until less than a piece is written, too

# A download has room for what comes within a tenth of a second, so a thousand slow ones need little. The room is kept
# while the download lasts: pages that come fresh from the system for each piece cost as much as receiving into them.
_FIRST_ROOM = 8 * 1024  # bytes; four times as many when it was filled quickly
_QUICKLY = 0.1  # seconds
_IN_A_ROW = 4  # times; a server that sends slowly still sends what it sends at once
_BURST = 0.05  # seconds for which a thread goes on with what was handed over to it


class Sink:
    """What both ways of downloading share: the count, the digest and the temp file."""

    def __init__(self, partial: Partial, run: Run, most: int, wanted: int | None) -> None:
        """
        Args:
            run: where much is hashed, and in a ``Buffer`` received and written, at once.
            most: the largest file.
            wanted: the expected length of this one.
        """
        self.partial = partial
        self._run = run
        self._most = most
        self._wanted = wanted
        self._digest = hashlib.sha256()
        self._waiting = 0  # bytes taken and not written yet
        self._flushed = time.monotonic()

    @property
    def size(self) -> int:
        return self.partial.size + self._waiting

    @property
    def room(self) -> int:
        """Bytes that the disk has left for this file."""
        return self.partial.room

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def hash_kept(self, ask: Callable[[], None]) -> None:
        """Hash what an earlier attempt left, asking between the pieces."""
        offset = 0

        def hash_piece(_wanted: Callable[[], bool]) -> None:
            self._digest.update(self.partial.read(PIECE, offset))

        while offset < self.partial.size:
            ask()
            self.partial.lend(self._run, hash_piece)
            offset += PIECE

    def start_again(self) -> None:
        self.partial.discard()
        self._digest = hashlib.sha256()

    def begin(self, validators: Validators) -> None:
        self.start_again()
        self.partial.begin(validators)

    def flush(self) -> None:
        """Write what waits."""
        raise NotImplementedError

    def _count(self, count: int) -> None:
        """
        Raises:
            TooLargeError: more than the largest file.
            SizeError: more than was wanted.
        """
        self._waiting += count
        if self.size > self._most:
            raise TooLargeError(f"expected at most {self._most} bytes, got more")
        if self._wanted is not None and self.size > self._wanted:
            raise SizeError(f"expected {self._wanted} bytes, got more")

    @property
    def _overdue(self) -> bool:
        return time.monotonic() - self._flushed >= FLUSH_EVERY

    def _write(self, piece: bytes | memoryview) -> None:
        """Write all that waits, then hash it: what is hashed is on disk."""
        self._waiting = 0  # whatever part of it is written now counts there
        self.partial.append(piece)
        self._digest.update(piece)


class Buffer(Sink):
    """A sink that has room of its own, to receive into."""

    def __init__(self, partial: Partial, run: Run, most: int, wanted: int | None) -> None:
        super().__init__(partial, run, most, wanted)
        self._room = memoryview(bytearray(_FIRST_ROOM))
        self._quick = 0  # times in a row

    def space(self) -> memoryview:
        """Where the next bytes go; never empty after a flush."""
        return self._room[self._waiting :]

    def took(self, count: int) -> bool:
        """So many bytes were put there; whether to flush.

        Raises:
            TooLargeError, SizeError: too many by now.
        """
        self._count(count)
        return self.full or self._overdue

    @property
    def full(self) -> bool:
        return self._waiting == len(self._room)

    def flush(self, refill: Callable[[float], bool] | None = None) -> None:
        """Write what waits, in another thread if that is worth it.

        Args:
            refill: fills the space once more with what is here at once, until a time.monotonic(); whether it did. A
                thread that something was handed over to goes on with it for a moment, since each handing over costs
                as much as a piece.
        """
        if not self._waiting or self.partial.lent:  # lent: a greenlet was killed, and its thread has not noticed yet
            return
        begun = time.monotonic()
        self._quick = self._quick + 1 if self.full and begun - self._flushed < _QUICKLY else 0
        if self._waiting >= WORTH_HANDING_OVER and self._run is not in_place:
            self._hand_over(begun + _BURST, refill)
        else:
            self._write(self._room[: self._waiting])
        if self._quick >= _IN_A_ROW and len(self._room) < PIECE:
            self._grow()
        self._flushed = time.monotonic()

    def _hand_over(self, until: float, refill: Callable[[float], bool] | None) -> None:
        def work(wanted: Callable[[], bool]) -> None:
            self._write(self._room[: self._waiting])
            while refill and time.monotonic() < until and refill(until):
                if not wanted():  # the connection may be closed, and its number somebody else's
                    return
                self._write(self._room)

        self.partial.lend(self._run, work)

    def _grow(self) -> None:
        room = memoryview(bytearray(min(PIECE, 4 * len(self._room))))
        room[: self._waiting] = self._room[: self._waiting]  # what came last, and did not fill it
        self._room, self._quick = room, 0
