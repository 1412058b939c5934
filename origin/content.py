"""Seeded content: the bytes of a file follow from its name, size and edition alone, those of a page from its number.

A file is a row of 64 KiB blocks. Each block is a stamp (a hash of the file's identity and the block
number) and a slice of one fixed random pool at a place the stamp chooses. So any range can be read
without the bytes before it, at memory speed, and no two blocks of a file, and no two files, are
alike: bytes at the wrong offset or from another edition always change the SHA-256.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property, lru_cache
from mimetypes import MimeTypes

BLOCK_BYTES = 64 * 1024
STAMP_BYTES = 16
# A power of two, so that a mask turns a hash into a place in the pool.
POOL_BYTES = 1024 * 1024
POOL = hashlib.shake_256(b"downpour origin").digest(POOL_BYTES + BLOCK_BYTES)

FIRST_EDITION_AT = datetime(2025, 2, 1, tzinfo=UTC)
# Without file names it knows the built-in types only, so the answer is the same on each machine.
TYPES = MimeTypes(filenames=())

PROSE = (
    "queue worker process thread coroutine broker message lease ledger attempt orphan digest range "
    "origin rain cloud river drop storm basin gutter delta spring tide"
)
WORDS = PROSE.split()
PARAGRAPH_WORDS = 60


@dataclass(frozen=True)
class Entity:
    """One version of one file. Another size or edition of a name shares no bytes with it."""

    name: str
    size: int  # bytes
    edition: int = 0

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from start up to, not including, stop."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        first, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        joined = b"".join([self._block(index) for index in range(first, last + 1)])
        shift = first * BLOCK_BYTES
        return joined[start - shift : stop - shift]

    def pieces(self, start: int, stop: int, piece_bytes: int) -> Iterator[bytes]:
        """Cut start..stop into pieces that end on multiples of piece_bytes."""
        while start < stop:
            end = min(stop, (start // piece_bytes + 1) * piece_bytes)
            yield self.read(start, end)
            start = end

    def sha256(self) -> bytes:
        """Return the raw digest of the whole entity; about a second per GB."""
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.size, BLOCK_BYTES):
            digest.update(piece)
        return digest.digest()

    @cached_property
    def etag(self) -> str:
        return f'"{hashlib.blake2b(self._seed, digest_size=12).hexdigest()}"'

    @cached_property
    def last_modified(self) -> str:
        """Return the HTTP-date of the edition: each one is a day younger than the one before."""
        when = FIRST_EDITION_AT + timedelta(days=self.edition)
        return format_datetime(when, usegmt=True)

    @cached_property
    def content_type(self) -> str:
        # "file:" keeps a name that begins like a URL from being taken for one.
        media_type, encoding = TYPES.guess_type("file:" + self.name)
        if encoding is not None:
            return f"application/{encoding}"
        return media_type or "application/octet-stream"

    @cached_property
    def _seed(self) -> bytes:
        name = self.name.encode("utf-8", "surrogateescape")
        return b"%d:%d:%b" % (self.edition, self.size, name)

    def _block(self, index: int) -> bytes:
        identity = index.to_bytes(8, "big") + self._seed
        stamp = hashlib.blake2b(identity, digest_size=STAMP_BYTES).digest()
        place = int.from_bytes(stamp, "big") & (POOL_BYTES - 1)
        return stamp + POOL[place : place + BLOCK_BYTES - STAMP_BYTES]


@lru_cache(16)  # a page of 10,000 links is 5 MB
def page(number: int, links: int) -> str:
    """Return HTML page `number`: a paragraph and a link, `links` times; every fourth link is a page."""
    parts = [f"<li><p>{_prose(number, i)}</p>{_link(number, i)}</li>" for i in range(links)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>Page {number}</title></head>\n<body>\n<h1>Page {number}</h1>\n<ol>\n"
        + "\n".join(parts)
        + "\n</ol>\n</body>\n</html>\n"
    )


def _link(number: int, index: int) -> str:
    if index % 4 == 3:
        target = (number * 31 + index) % 1000
        return f'<a href="/pages/{target}.html?links=50">page {target}</a>'
    return f'<a href="/files/page-{number}-{index}.bin?size=1024">file {index}</a>'


def _prose(number: int, index: int) -> str:
    seed = hashlib.shake_128(b"%d/%d" % (number, index)).digest(PARAGRAPH_WORDS)
    return " ".join(WORDS[byte % len(WORDS)] for byte in seed).capitalize() + "."
