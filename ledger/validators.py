"""ETag and Last-Modified of a file that is done, in as few bytes as they take: a record has some 400 in all.

They are for people and programs that ask later whether a file is still the one on the server. What the worker itself
asks with lies in an attribute of the file. So an ETag that is long is left out of the record, and so is a date that is
not written as HTTP wants it; a date that is takes six characters. Kept true by ``tests/unit/test_validators.py``.
"""

from __future__ import annotations

import re
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache

LONGEST = 72  # characters of an ETag: a sha256 in hexadecimal fits, with its quotes
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_STORED = re.compile(r'([0-9a-z]*)((?:W/)?"[^"]*)?')
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def encode_validators(etag: str | None, last_modified: str | None) -> str:
    """Seconds since the epoch to the base of 36, then the ETag without its last quote; empty if there is neither."""
    kept = etag[:-1] if etag and len(etag) <= LONGEST and _ETAG.fullmatch(etag) else ""
    return (_date(last_modified) if last_modified else "") + kept


def decode_validators(text: str | None) -> tuple[str | None, str | None]:
    """ETag and Last-Modified as the server wrote them."""
    match = _STORED.fullmatch(text or "")
    if match is None:
        return None, None
    seconds, etag = match.groups()
    return etag and f'{etag}"', formatdate(int(seconds, 36), usegmt=True) if seconds else None


@lru_cache(1000)  # files of one server often have one date
def _date(text: str) -> str:
    try:
        seconds = int(parsedate_to_datetime(text).timestamp())
        if seconds < 0 or formatdate(seconds, usegmt=True) != text:
            return ""
    except (ValueError, OverflowError, OSError):
        return ""
    digits = ""
    while seconds or not digits:
        seconds, digit = divmod(seconds, 36)
        digits = _DIGITS[digit] + digits
    return digits
