"""A sink that touches the disk late: a small file stays in memory until it is whole and verified.

So a file that fails leaves nothing behind, and one that does not costs one write and one link. Beyond
``WORTH_KEEPING``, where an attempt that breaks is worth continuing, it is the ordinary sink.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from download.errors import DiskFullError, LeaseLostError
from download.integrity import WORTH_KEEPING, Validators
from download.partial import Partial, publish
from download.sink import Sink

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Draft(Sink):
    def __init__(self, partial: Partial, most: int, wanted: int | None) -> None:
        super().__init__(partial, lambda work: work(), most, wanted)
        self._validators: Validators | None = None  # of a file that is not on disk yet
        self._body: bytes | None = None  # of a file that never was
        self._body_sha256 = ""
        self._temp = str(partial.path)

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
        return super().take(piece) and (not self._validators or self.size >= WORTH_KEEPING)

    def flush(self) -> None:
        if validators := self._validators:
            self._validators = None
            super().begin(validators)
            if validators.total is not None and validators.total > self.room:
                raise DiskFullError(f"expected room for {validators.total} bytes, got {self.room}")
        super().flush()

    def keep(self) -> None:
        """The attempt broke: put on disk what a later one can continue."""
        if self._validators and self._validators.worth_keeping and self.size >= WORTH_KEEPING:
            with suppress(OSError, DiskFullError):
                self.flush()

    def end(self) -> None:
        """Every byte is here."""
        if self._validators:
            self._body = b"".join(self._pending)
            self._body_sha256 = hashlib.sha256(self._body).hexdigest()
        else:
            self.flush()

    def publish(
        self, final: str, *, fsync: bool, replace: bool = False, stamp: Callable[[Path | int], None] = lambda _: None
    ) -> None:
        """See ``download.partial.publish``.

        Args:
            stamp: gives the file, which has no name yet, what else it should have; takes its path or descriptor.
        """
        if self._body is None or fsync or replace:
            self.save()
            stamp(self.partial.path)
            publish(self.partial.path, Path(final), fsync=fsync, replace=replace)
            return
        # Nobody else can have taken this temp file over: its name is this claim's, and it has no validators.
        self._write(self._body, stamp)
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
            self._write(self._body, lambda _: None)

    def _write(self, body: bytes, stamp: Callable[[int], None]) -> None:
        try:
            fd = os.open(self._temp, _FLAGS, 0o666)
        except FileNotFoundError:
            self.partial.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._temp, _FLAGS, 0o666)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(fd, view) :]
            stamp(fd)
        except OSError:
            with suppress(OSError):
                self.partial.path.unlink()
            raise
        finally:
            os.close(fd)
