"""The headers of an answer as libcurl hands them over, line by line, read as strictly as ``download.answers`` reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from download.addresses import Target
from download.errors import ProtocolError, TruncatedError

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})\b")
_ENDS = (b"\r\n", b"\n")


class Headers(Mapping[str, str]):
    """Names in any case; bytes are read as Latin-1, several of one name are joined by commas, as everywhere here."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._found: dict[str, str] = {}
        for name, text in pairs:
            self._found[name] = f"{self._found[name]}, {text}" if name in self._found else text

    def __getitem__(self, name: str) -> str:
        return self._found[name.lower()]

    def get(self, name: str, default: Any = None) -> Any:  # Mapping's own raises and catches
        return self._found.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class Head:
    """An answer as ``download.attempt`` wants it."""

    def __init__(self, target: Target, lines: Sequence[bytes]) -> None:
        """
        Raises:
            TruncatedError: the headers have no end.
            ProtocolError: the framing cannot be trusted.
        """
        self.target = target
        self.status, self.http10, block = _last_block(lines)
        pairs, readable = _pairs(block)
        self.headers: Mapping[str, str] = Headers(pairs)
        self.ragged = False  # libcurl takes TLS without a goodbye for an error
        self.surplus = b""  # ... and does not show it; see ``Transfer``
        self.chunked, self.length = _framing(self.headers, readable)

    @property
    def framed(self) -> bool:
        return self.chunked or self.length is not None

    @property
    def closes(self) -> bool:
        """Whether the server said that the connection ends with this answer."""
        said = self.headers.get("Connection", "").lower()
        return "close" in said or (self.http10 and "keep-alive" not in said)


def is_complete(lines: Sequence[bytes]) -> bool:
    """Whether all headers of an answer that counts are here."""
    if not lines or lines[-1] not in _ENDS:
        return False
    status = next((line for line in reversed(lines) if line.startswith(b"HTTP/")), b"HTTP/1.1 100")
    return not status.split(maxsplit=2)[1].startswith(b"1")


def _last_block(lines: Sequence[bytes]) -> tuple[int, bool, Sequence[bytes]]:
    """Status, whether it is of HTTP/1.0, and header lines of the answer; informational answers are skipped."""
    begins = 0
    while begins < len(lines):
        match = _STATUS.match(lines[begins])
        ends = next((at for at in range(begins, len(lines)) if lines[at] in _ENDS), None)
        if match is None:
            raise ProtocolError(f"expected a status line, got {lines[begins][:40]!r}")
        status = int(match[1])
        if ends is None:
            raise TruncatedError(f"expected all headers, got the end of the connection inside them ({status})")
        if status >= 200:
            return status, lines[begins].startswith(b"HTTP/1.0"), lines[begins + 1 : ends]
        begins = ends + 1
    raise TruncatedError("expected all headers, got the end of the connection before them")


def _pairs(block: Sequence[bytes]) -> tuple[list[tuple[str, str]], bool]:
    """Names in lower case and their texts; whether all lines could be read (what follows one that cannot is hidden)."""
    pairs: list[tuple[str, str]] = []
    readable = True
    for line in block:
        if line[0] in b" \t" and pairs:
            name, before = pairs[-1]
            pairs[-1] = name, f"{before} {line.decode('latin-1').strip()}"
            continue
        pair = _pair(line)
        if pair is None:
            return pairs, False
        name, _ = pair
        # A byte that fell over on the way may have made another name of one that matters.
        readable = readable and name.isascii() and name.isprintable()
        pairs.append(pair)
    return pairs, readable


@lru_cache(256)  # of one server's answers most lines are the same
def _pair(line: bytes) -> tuple[str, str] | None:
    name, colon, value = line.decode("latin-1").partition(":")
    return (name.lower(), value.strip()) if colon and name and name == name.strip() else None


def _framing(headers: Mapping[str, str], readable: bool) -> tuple[bool, int | None]:
    """Whether the body comes in chunks, and its length if that was announced."""
    coding = headers.get("Transfer-Encoding", "").lower()
    if coding not in ("", "identity", "chunked"):
        raise ProtocolError(f"expected a body that is whole or chunked, got Transfer-Encoding: {coding}")
    announced = headers.get("Content-Length")
    lengths = {part.strip() for part in announced.split(",")} if announced is not None else set()
    if len(lengths) > 1 or not all(text.isascii() and text.isdigit() for text in lengths):
        raise ProtocolError(f"expected one Content-Length, got {sorted(lengths)}")
    if coding == "chunked":
        return True, None
    if not lengths and not readable:
        raise ProtocolError("expected readable headers, got a line without a name")
    return False, int(lengths.pop()) if lengths else None
