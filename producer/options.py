"""A manifest's ``headers`` and ``mirrors``: checked before they can break a request or lead it astray.

In JSON lines they are an object and a list; in CSV a cell holds either as JSON, or URLs separated by blanks. A header's
value may be a secret and is never repeated.
"""

from __future__ import annotations

import json
import re
from typing import Any

from producer.urls import check_url, shown

MOST_MIRRORS = 20
_MOST_HEADERS = 8192  # bytes, names and values together; many servers take no more
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110's token
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")  # visible ASCII, no line break
# A download sets these itself, or they would change what its answer means.
_OURS = frozenset(
    {
        "host", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since",
        "accept-encoding", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect",
        "keep-alive", "proxy-authorization", "proxy-connection",
    }
)  # fmt: skip


def headers(value: Any) -> tuple[tuple[str, str], ...]:
    """
    Raises:
        ValueError: what was expected, and what we got.
    """
    value = _from_json(value, "headers", "{")
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise ValueError(f"expected headers to be a JSON object of texts, got a {type(value).__name__}")
    for name, text in value.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"expected the name of a header, got {shown(name)}")
        if name.lower() in _OURS:
            raise ValueError(f"expected headers that a download does not set itself, got {name}")
        if not isinstance(text, str) or not _VALUE.fullmatch(text):
            raise ValueError(f"expected the value of header {name} to be a text of visible ASCII characters")
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("expected each header once")
    if sum(len(name) + len(text) for name, text in value.items()) > _MOST_HEADERS:
        raise ValueError(f"expected at most {_MOST_HEADERS} bytes of headers, got more")
    return tuple(value.items())


def mirrors(value: Any, url: str) -> tuple[str, ...]:
    """The URLs in their order, each once and none of them the job's own.

    Raises:
        ValueError: what was expected, and what we got.
    """
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = value.split()
    value = _from_json(value, "mirrors", "[")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("expected mirrors to be a list of URLs")
    if len(value) > MOST_MIRRORS:
        raise ValueError(f"expected at most {MOST_MIRRORS} mirrors, got {len(value)}")
    for each in value:
        check_url(each)
    return tuple(each for each in dict.fromkeys(value) if each != url)


def _from_json(value: Any, what: str, begins: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if value.lstrip().startswith(begins):
            return json.loads(value)
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"expected {what} to be JSON that begins with {begins}")
