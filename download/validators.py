"""What an answer's headers promise about the bytes: entity, range, digest; and Retry-After. Pure functions."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

WORTH_KEEPING = 64 * 1024  # bytes; a shorter file is fetched again sooner than its validators are written

_STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.IGNORECASE)
_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?=$|[,;])")


@dataclass(frozen=True, slots=True)
class Validators:
    """What proves, later and to another process, that an entity is still the same. Kept beside its bytes."""

    url: str  # that gave them, without its query: signed links change it
    etag: str | None  # strong
    last_modified: str | None  # usable as a strong validator
    total: int | None  # length of the whole entity
    sha256: str | None = None  # that the file must have: it judges what is put together, whatever the server says

    @property
    def if_range(self) -> str | None:
        return self.etag or self.last_modified

    @property
    def worth_keeping(self) -> bool:
        return (self.sha256 or self.if_range) is not None and (self.total is None or self.total >= WORTH_KEEPING)

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str], total: int | None, sha256: str | None = None) -> Validators:
        if total is not None and total < WORTH_KEEPING:
            return cls(url, None, None, total)  # not worth keeping, and dates are slow to read
        return cls(
            url.partition("?")[0],
            strong_etag(headers.get("ETag")),
            strong_date(headers.get("Last-Modified"), headers.get("Date")),
            total,
            sha256,
        )


@dataclass(frozen=True, slots=True)
class ContentRange:
    first: int
    last: int
    total: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1


def strong_etag(header: str | None) -> str | None:
    """The entity tag, if it stands for bytes and not just for meaning."""
    return header if header is not None and _STRONG.fullmatch(header) else None


def strong_date(last_modified: str | None, date: str | None) -> str | None:
    """Last-Modified, if a second change within its second is excluded: the answer is at least one second younger."""
    try:
        age = parsedate_to_datetime(date or "") - parsedate_to_datetime(last_modified or "")
    except (ValueError, TypeError):
        return None
    return last_modified if age.total_seconds() >= 1 else None


def content_range(header: str | None) -> ContentRange | None:
    """What a 206 brings; None: nothing that can be continued with (an unknown total proves nothing)."""
    match = _CONTENT_RANGE.fullmatch((header or "").strip())
    if match is None:
        return None
    first, last, total = (int(number) for number in match.groups())
    return ContentRange(first, last, total) if first <= last < total else None


def repr_sha256(header: str | None) -> str | None:
    """The sha-256 of a Repr-Digest header (RFC 9530) in hex; None: it offers none."""
    match = _SHA256.search(header or "")
    return base64.b64decode(match[1]).hex() if match else None


def mismatch(validators: Validators, headers: Mapping[str, str], part: ContentRange, offset: int) -> str | None:
    """Why a 206 does not continue the entity that the validators describe; None: it does.

    A 206 must repeat the ETag; a Last-Modified it may leave out. Where a digest will judge, nodes may differ in both.
    """
    if part.first != offset:
        return f"expected a part from byte {offset}, got one from {part.first}"
    if validators.total not in (None, part.total):
        return f"expected a part of {validators.total} bytes, got one of {part.total}"
    if validators.sha256:
        return None
    if validators.etag is not None:
        etag = headers.get("ETag")
        return None if etag == validators.etag else f"expected ETag {validators.etag}, got {etag}"
    date = headers.get("Last-Modified", validators.last_modified)
    return None if date == validators.last_modified else f"expected the file of {validators.last_modified}, got {date}"


def retry_after(header: str | None, now: float, *, said: str | None = None) -> float | None:
    """Seconds that a Retry-After header asks for; None: nothing readable.

    The header holds seconds or an HTTP date; a date in the past means now.

    Args:
        now: by our clock, in seconds since the epoch.
        said: the same answer's Date header. A server that names a date means its own clock, which may not be ours.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    asked, there = _epoch(text), _epoch(said or "")
    return None if asked is None else max(0.0, asked - (now if there is None else there))


def _epoch(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
