"""Manifests: what to download, one job per line, read line by line in bounded memory.

======  ==============================================================================================
format  a line is
======  ==============================================================================================
txt     a URL; lines that begin with ``#`` are comments
csv     a row below a header with ``url`` and optionally ``filename``, ``sha256``, ``size``, ``headers``,
        ``mirrors``; without a header, a URL. A row is one line: no field contains a line break
jsonl   a JSON object with these keys
parquet a row with these columns; needs pyarrow
aria2   a file in the form of ``aria2c -i``, see ``producer.aria2``
metalink a file of a Metalink document (.meta4), see ``producer.metalink``
======  ==============================================================================================

Blank lines are skipped. A bad line does not spoil the others: it comes out as a ``BadLine``, in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from download.filenames import check_filename, name_of_url
from ledger.jobs import Job, Naming
from producer import aria2, metalink, options, parquet
from producer.csv_rows import Csv, header
from producer.names import Names
from producer.once import Once
from producer.urls import check_url, shown

FIELDS = ("url", "filename", "sha256", "size", "headers", "mirrors")
_MAX_LINE = 64 * 1024  # bytes
_MAX_SIZE = 2**63 - 1
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_HEADERS = re.compile(r"(?i)['\"]?(?:headers|authorization|cookie)\b")
_DIGITS = re.compile(r"[0-9]{1,19}")
_SUFFIXES = {
    ".txt": "txt",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".meta4": "metalink",
}


class Format(StrEnum):
    TXT = "txt"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARIA2 = "aria2"
    METALINK = "metalink"


@dataclass(frozen=True, slots=True)
class BadLine:
    number: int
    problem: str  # what was expected, and what we got

    def __str__(self) -> str:
        return f"line {self.number}: {self.problem}"


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str | None  # with its indentation, and not blank; None: bad
    problem: str = ""


def format_of(path: Path) -> Format | None:
    """What the file's suffix says; None if it says nothing, and then the first line decides."""
    name = _SUFFIXES.get(path.suffix.lower())
    return Format(name) if name else None


def read(
    stream: BinaryIO,
    format_: Format | None = None,
    *,
    server_names: bool = False,
    once: Once | None = None,
    shard: int = 0,
) -> Iterator[Job | BadLine]:
    """The manifest's jobs and bad lines, in order. Names are unique among the jobs.

    Args:
        server_names: where the manifest gives no filename, the server may.
        once: drops lines that it has seen.
        shard: files per folder, of those that the manifest does not name; 0: all in one.

    Raises:
        ManifestError: a CSV header, a Parquet file or a Metalink document that we do not understand.
    """
    if format_ is Format.METALINK:
        return _named(metalink.rows(stream), server_names, once, shard)
    if format_ is Format.ARIA2:
        lines = ((line.number, line.text, line.problem) for line in _lines(stream))
        return _named(aria2.rows(lines), server_names, once, shard)
    if format_ is Format.PARQUET:
        return _named(parquet.rows(stream, FIELDS), server_names, once, shard)
    return _named(_parsed(_lines(stream), format_), server_names, once, shard)


def read_urls(
    urls: Iterable[str], *, server_names: bool = False, once: Once | None = None, shard: int = 0
) -> Iterator[Job | BadLine]:
    """The same for URLs from the command line; their numbers count from 1."""
    return _named(((number, {"url": url}) for number, url in enumerate(urls, 1)), server_names, once, shard)


def _lines(stream: BinaryIO) -> Iterator[_Line]:
    """The lines that are not blank; one that is too long costs no more memory than one that is not."""
    number = 0
    while raw := stream.readline(_MAX_LINE):
        number += 1
        whole = raw.endswith(b"\n") or len(raw) < _MAX_LINE
        while not whole and (rest := stream.readline(_MAX_LINE)):
            whole = rest.endswith(b"\n")
            raw = b""
        if not raw:
            yield _Line(number, None, f"expected at most {_MAX_LINE} bytes, got a longer line")
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
        except UnicodeDecodeError as error:
            yield _Line(number, None, f"expected UTF-8, got {raw[error.start : error.start + 8]!r}")
            continue
        if text:
            yield _Line(number, text)


def _parsed(lines: Iterator[_Line], format_: Format | None) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Per line its fields, or what is wrong with it."""
    first = next(lines, None)
    if first is None:
        return
    parse = _parser(format_ or _sniffed((first.text or "").strip()), first)
    for line in chain([first], lines):
        if line.text is None:
            yield line.number, line.problem
            continue
        try:
            fields = parse(line.text.strip())
        except ValueError as error:
            yield line.number, str(error)
            continue
        if fields is not None:
            yield line.number, fields


def _sniffed(text: str) -> Format:
    if text.startswith("{"):
        return Format.JSONL
    return Format.CSV if header(text) else Format.TXT


def _parser(format_: Format, first: _Line) -> Callable[[str], Mapping[str, Any] | None]:
    if format_ is Format.CSV:
        return Csv(first.number, (first.text or "").strip(), FIELDS)
    return _jsonl if format_ is Format.JSONL else _txt


def _txt(text: str) -> Mapping[str, Any] | None:
    return None if text.startswith("#") else {"url": text}


def _jsonl(text: str) -> Mapping[str, Any]:
    seen = _HEADERS.split(text)[0]  # what follows may be a secret
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object, got {shown(seen)}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {shown(seen)}")
    return value


def _named(
    rows: Iterable[tuple[int, Mapping[str, Any] | str]], server_names: bool, once: Once | None, shard: int
) -> Iterator[Job | BadLine]:
    names = Names(shard)
    for number, fields in rows:
        if isinstance(fields, str):
            yield BadLine(number, fields)
            continue
        try:
            job = _job(fields, names, server_names, once)
        except ValueError as error:
            yield BadLine(number, str(error))
            continue
        if job:
            yield job


def _job(fields: Mapping[str, Any], names: Names, server_names: bool, once: Once | None) -> Job | None:
    """The name comes last: a bad line takes none away. None: the line was there before.

    Raises:
        ValueError: what was expected, and what we got.
    """
    unknown = [key for key in fields if key not in FIELDS]
    if unknown:
        raise ValueError(f"expected the keys {', '.join(FIELDS)}, got {', '.join(map(shown, unknown))}")
    url, filename, sha256 = (_text(fields, key) for key in FIELDS[:3])
    if url is None:
        raise ValueError("expected a url, got none")
    check_url(url)
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f"expected sha256 to be 64 hexadecimal digits, got {shown(sha256)}")
    size = _size(fields.get("size"))
    wanted = names.place(name_of_url(url)) if filename is None else check_filename(filename)
    headers, mirrors = options.headers(fields.get("headers")), options.mirrors(fields.get("mirrors"), url)
    if once and not once.first(url, filename):
        return None
    naming = Naming.FIXED
    if server_names:
        naming = Naming.SERVER if filename is None else Naming.RESERVED
    return Job(url, names.give(wanted), sha256.lower() if sha256 else None, size, headers, mirrors, naming)


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"expected {key} to be a text, got {shown(json.dumps(value))}")
    return value


def _size(value: Any) -> int | None:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIZE):
        return value
    raise ValueError(f"expected size to be a whole number of bytes, 0 or more; got {shown(str(value))}")
