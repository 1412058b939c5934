"""Where the bytes of an attempt go: counted, hashed and written in pieces of a size that no hub feels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from download.errors import SizeError, TooLargeError
from download.integrity import Validators
from download.partial import Partial

PIECE = 256 * 1024  # bytes read, written and hashed at a time
# Under gevent, handing a piece to a thread and waiting for it costs 100 µs; writing and hashing costs 60 µs for 64 KiB,
# 110 µs for 128 KiB. With every piece handed over, a gevent worker brings about 40 % fewer files of 1 KiB.
WORTH_HANDING_OVER = 128 * 1024  # bytes
FLUSH_EVERY = 1.0  # seconds until less than a piece is written, too

Run = Callable[[Callable[[], None]], None]  # calls what it is given; gevent's worker does so in a thread pool


class Sink:
    def __init__(self, partial: Partial, run: Run, most: int, wanted: int | None) -> None:
        """
        Args:
            most: the largest file.
            wanted: the expected length of this one.
        """
        self.partial = partial
        self._run = run
        self._most = most
        self._wanted = wanted
        self._digest = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._flushed = time.monotonic()

    @property
    def size(self) -> int:
        return self.partial.size + self._pending_size

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

        def hash_piece() -> None:
            self._digest.update(self.partial.read(PIECE, offset))

        while offset < self.partial.size:
            ask()
            self._run(hash_piece)
            offset += PIECE

    def start_again(self) -> None:
        self.partial.discard()
        self._digest = hashlib.sha256()

    def begin(self, validators: Validators) -> None:
        self.start_again()
        self.partial.begin(validators)

    def take(self, piece: bytes) -> bool:
        """Take what arrived; whether it is time to flush.

        Raises:
            TooLargeError: more than the largest file.
            SizeError: more than was wanted.
        """
        self._pending.append(piece)
        self._pending_size += len(piece)
        if self.size > self._most:
            raise TooLargeError(f"expected at most {self._most} bytes, got more")
        if self._wanted is not None and self.size > self._wanted:
            raise SizeError(f"expected {self._wanted} bytes, got more")
        return self._pending_size >= PIECE or time.monotonic() - self._flushed >= FLUSH_EVERY

    def flush(self) -> None:
        """Write, then hash: what is hashed is on disk."""
        piece = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending, self._pending_size = [], 0

        def write() -> None:
            self.partial.append(piece)
            self._digest.update(piece)

        if piece:
            self.partial.expect_append()
            if len(piece) >= WORTH_HANDING_OVER:
                self._run(write)
            else:
                write()
        self._flushed = time.monotonic()
