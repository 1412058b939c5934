"""What to make of an answer: judge it, verify its file, and what to leave behind when it fails.

Shared by both ways of downloading: ``download.stream`` asks and reads by itself, ``download.many.transfer`` has libcurl
do it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from download import validators
from download.addresses import Target
from download.errors import (
    ChangedError,
    DiskFullError,
    Ended,
    ProtocolError,
    ServerError,
    SizeError,
    StatusError,
    TooLargeError,
    TruncatedError,
)
from download.redirects import fit_for
from download.retry import retry_after
from download.sink import Sink
from download.timeouts import Timeouts

Progress = Callable[[int, int | None], None]  # bytes on disk, announced total

_TRY_AGAIN = frozenset({408, 425, 429})  # and all 5xx


@dataclass(frozen=True, slots=True)
class Wanted:
    url: str
    sha256: str | None = None  # expected, hex
    size: int | None = None  # expected, bytes
    headers: Mapping[str, str] = field(default_factory=dict)  # for the URL's own origin


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole, verified file that has no final name yet."""

    size: int
    sha256: str
    received: int  # bytes, in this attempt
    resumed_from: int  # bytes that an earlier attempt had left
    status: int
    total: int | None  # announced length
    first_byte: float | None  # time.monotonic() of the answer's first byte
    etag: str | None
    last_modified: str | None
    disposition: str | None  # Content-Disposition; download.filenames reads it
    final_url: str
    notes: tuple[str, ...]


class Heading(Protocol):
    """What an answer says before and after its body; ``wire.Answer`` is one."""

    status: int

    @property
    def target(self) -> Target: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def length(self) -> int | None: ...
    @property
    def framed(self) -> bool: ...
    @property
    def ragged(self) -> bool: ...
    @property
    def surplus(self) -> bytes: ...


class Attempt:
    def __init__(self, wanted: Wanted, sink: Sink, timeouts: Timeouts, *, user_agent: str, progress: Progress) -> None:
        self.user_agent = user_agent
        self.wanted = wanted
        self.sink = sink
        self.partial = sink.partial
        self.timeouts = timeouts
        self.progress = progress
        self.total: int | None = None
        self.resumed_from = 0
        self.status: int | None = None  # of the last answer

    def headers(self, first: Target, target: Target) -> dict[str, str]:
        own = fit_for(target, first, self.wanted.headers)
        headers = {"User-Agent": self.user_agent, "Accept": "*/*", **own, "Accept-Encoding": "identity"}
        kept = self.partial.validators
        # Validators prove something only about the resource that gave them.
        if self.partial.size and kept and kept.if_range and kept.url == target.url.partition("?")[0]:
            headers |= {"Range": f"bytes={self.partial.size}-", "If-Range": kept.if_range}
        return headers

    def go_on_with(self, answer: Heading) -> None:
        kept, offset = self.partial.validators, self.partial.size
        part = validators.content_range(answer.headers.get("Content-Range"))
        if kept is None or not offset or part is None or answer.length not in (None, part.length):
            self.partial.discard()  # or the next attempt would meet the same answer
            raise ProtocolError(f"expected a file, or the part of it from byte {offset}, got {_describe(answer)}")
        if reason := validators.mismatch(kept, answer.headers, part, offset):
            raise ChangedError(f"{reason}; what was kept is dropped")
        self.resumed_from, self.total = offset, part.total
        self.check_total()

    def begin_with(self, answer: Heading) -> None:
        self.total = answer.length
        self.check_total()
        self.sink.begin(validators.Validators.of(answer.target.url, answer.headers, self.total))
        if self.total is not None and self.total > self.sink.room:
            raise DiskFullError(f"expected room for {self.total} bytes, got {self.sink.room}")

    def check_total(self) -> None:
        """What can be known before the first body byte."""
        total, most = self.total, self.timeouts.limits.max_bytes
        if total is not None and self.wanted.size not in (None, total):
            raise SizeError(f"expected {self.wanted.size} bytes, the server announces {total}")
        if total is not None and total > most:
            raise TooLargeError(f"expected at most {most} bytes, the server announces {total}")

    def cut_short(self) -> TruncatedError:
        expected = "a last chunk" if self.total is None else f"{self.total} bytes"
        return TruncatedError(f"expected {expected}, got the end after {self.sink.size} bytes")

    def tell(self) -> None:
        self.timeouts.call(lambda: self.progress(self.partial.size, self.total))

    def verify(self, answer: Heading) -> list[str]:
        """The notes on a file that is right.

        Raises:
            DownloadError: it is not.
        """
        notes = []
        if not answer.framed:
            validators.verify_unframed(self.sink.size, ragged=answer.ragged)
            notes.append("length: unverified")
        validators.verify_size(self.sink.size, announced=self.total, wanted=self.wanted.size)
        offered = validators.repr_sha256(answer.headers.get("Repr-Digest"))
        for who, expected in (("the manifest", self.wanted.sha256), ("the server", offered)):
            validators.verify_sha256(self.sink.sha256, expected, who, resumed=self.resumed_from > 0)
        if answer.surplus and not (offered or self.wanted.sha256):
            raise ProtocolError(f"expected {self.total} bytes and no more, got {answer.surplus[:20]!r} after them")
        if offered:
            notes.append("repr-digest: verified")
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            notes.append(f"content-encoding: {encoding[:40]}, stored raw")
        if self.resumed_from:
            notes.append(f"resumed from byte {self.resumed_from}")
        return notes

    def fetched(self, answer: Heading, notes: list[str]) -> Fetched:
        return Fetched(
            size=self.sink.size,
            sha256=self.sink.sha256,
            received=self.timeouts.received,
            resumed_from=self.resumed_from,
            status=answer.status,
            total=self.total,
            first_byte=self.timeouts.first_byte,
            etag=answer.headers.get("ETag"),
            last_modified=answer.headers.get("Last-Modified"),
            disposition=answer.headers.get("Content-Disposition"),
            final_url=answer.target.url,
            notes=tuple(notes),
        )

    def give_up(self, end: BaseException) -> None:
        """Keep what a later attempt can continue, remove the rest, and note how far it came."""
        if isinstance(end, Ended):
            end.status, end.received, end.first_byte = self.status, self.timeouts.received, self.timeouts.first_byte
        with suppress(OSError):
            keeps = getattr(end, "keeps_partial", True) and self.partial.validators is not None
            if keeps:
                self.sink.flush()
            if not keeps or not self.partial.size:
                self.partial.discard()


def refusal(answer: Heading) -> ServerError | StatusError:
    if answer.status in _TRY_AGAIN or answer.status >= 500:
        after = retry_after(answer.headers.get("Retry-After"), time.time(), said=answer.headers.get("Date"))
        return ServerError(f"expected a file, got status {answer.status}", after)
    return StatusError(f"expected a file, got status {answer.status}")


def _describe(answer: Heading) -> str:
    part = answer.headers.get("Content-Range")
    return f"status {answer.status} with Content-Range {part} and Content-Length {answer.length}"
