"""What `submit` was given: URLs or a manifest, read once or, to be strict, twice."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ledger.jobs import Job
from producer.errors import ManifestError
from producer.manifest import BadLine, Format, format_of, read, read_urls
from producer.once import Once

_MOST_SAID = 100  # bad lines named one by one


class Intake:
    """Args: report is told of each bad line."""

    def __init__(
        self,
        urls: Sequence[str],
        stream: BinaryIO | None,
        format_: Format | None,
        *,
        report: Callable[[str], None],
        server_names: bool = False,
        dedup: bool = False,
        shard: int = 0,
    ) -> None:
        self._urls = urls
        self._stream = stream
        self._format = format_
        if stream is not None and format_ is None:
            self._format = format_of(Path(str(getattr(stream, "name", ""))))
        self._report = report
        self._server_names = server_names
        self._dedup = dedup
        self._shard = shard
        self.once: Once | None = None
        self.bad = 0

    def check(self) -> None:
        """Read everything once, and be ready to read it again.

        Raises:
            ManifestError: a line is bad.
        """
        if self._stream is not None and not self._stream.seekable():
            spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the command
            shutil.copyfileobj(self._stream, spool)
            spool.seek(0)
            self._stream = spool
        start = self._stream.tell() if self._stream is not None else 0
        for _job in self.jobs():
            pass
        if self.bad:
            raise ManifestError(f"{self.bad} bad lines, and --strict was given; nothing was submitted")
        if self._stream is not None:
            self._stream.seek(start)

    def jobs(self) -> Iterator[Job]:
        """The good ones."""
        for item in self._items():
            if isinstance(item, Job):
                yield item
            else:
                self._say(item)

    def _items(self) -> Iterator[Job | BadLine]:
        self.once = once = Once() if self._dedup else None
        if self._stream is None:
            return read_urls(self._urls, server_names=self._server_names, once=once, shard=self._shard)
        return read(self._stream, self._format, server_names=self._server_names, once=once, shard=self._shard)

    def _say(self, line: BadLine) -> None:
        self.bad += 1
        if self.bad <= _MOST_SAID:
            self._report(str(line))
        elif self.bad == _MOST_SAID + 1:
            self._report(f"more than {_MOST_SAID} bad lines; the others are only counted")
