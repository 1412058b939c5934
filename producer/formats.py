"""The forms that a manifest can have: bytes in, entries out, in bounded memory.

======== ============================================================================================
format   an entry is
======== ============================================================================================
txt      a line with a URL; lines that begin with ``#`` are comments
csv      a line below a header with ``url`` and some of the other fields; without a header, a URL. No field
         contains a line break
jsonl    a line with a JSON object that has these keys
parquet  a row with these columns; needs pyarrow
aria2    the URLs of a file and its options, as ``aria2c -i`` reads them
metalink a file of a Metalink document (RFC 5854, .meta4)
======== ============================================================================================

Blank lines are skipped. What is wrong with an entry stands in its place; it does not spoil the others.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from xml.parsers import expat  # nosec - no document type comes through, see ``_Metalink``

from download.filenames import name_of_url
from producer.errors import ManifestError
from producer.urls import MAX_CHARACTERS, shown

MOST_MIRRORS = 20
_MAX_LINE = 64 * 1024  # bytes
_HEADERS = re.compile(r"(?i)['\"]?(?:headers|authorization|cookie)\b")

# The number of a line, row or element, and what is there: a URL, fields, or what was expected and what we got.
Entry = tuple[int, str | Mapping[str, Any] | ValueError]
Line = tuple[int, str | ValueError]


class Format(StrEnum):
    TXT = "txt"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARIA2 = "aria2"
    METALINK = "metalink"


_SUFFIXES = {
    ".txt": Format.TXT,
    ".csv": Format.CSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".parquet": Format.PARQUET,
    ".meta4": Format.METALINK,
}


def format_of(path: Path) -> Format | None:
    """What the file's suffix says; None if it says nothing, and then the first line decides."""
    return _SUFFIXES.get(path.suffix.lower())


def entries(stream: BinaryIO, format_: Format | None, fields: Sequence[str]) -> Iterator[Entry]:
    """
    Args:
        fields: those that are understood.

    Raises:
        ManifestError: a CSV header, a Parquet file or a Metalink document that cannot be used.
    """
    if format_ is Format.METALINK:
        return _metalink(stream)
    if format_ is Format.PARQUET:
        return _parquet(stream, fields)
    lines = _lines(stream)
    if format_ is Format.ARIA2:
        return _aria2(lines)
    number, first = next(lines, (0, ""))
    lines = chain([(number, first)] if number else [], lines)
    header = _header(first) if isinstance(first, str) else []
    if format_ is Format.CSV or (header and format_ is None):
        return _csv(lines, _columns(number, header, fields), skip=bool(header))
    starts_object = isinstance(first, str) and first.lstrip().startswith("{")
    if format_ is Format.JSONL or (starts_object and format_ is None):
        return _each(lines, _json_object)
    return _urls(lines)


def _lines(stream: BinaryIO) -> Iterator[Line]:
    """The lines that are not blank, with their indentation; a long one costs no more memory than a short one."""
    number = 0
    while raw := stream.readline(_MAX_LINE):
        number += 1
        if len(raw) == _MAX_LINE and not raw.endswith(b"\n") and (rest := stream.readline(_MAX_LINE)):
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(_MAX_LINE)
            yield number, ValueError(f"expected at most {_MAX_LINE} bytes, got a longer line")
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
        except UnicodeDecodeError as error:
            yield number, ValueError(f"expected UTF-8, got {raw[error.start : error.start + 8]!r}")
            continue
        if text:
            yield number, text


def _urls(lines: Iterable[Line]) -> Iterator[Entry]:
    for number, line in lines:
        found = line.lstrip() if isinstance(line, str) else line
        if not (isinstance(found, str) and found.startswith("#")):
            yield number, found


def _each(lines: Iterable[Line], parse: Callable[[str], Mapping[str, Any]]) -> Iterator[Entry]:
    for number, line in lines:
        try:
            yield number, parse(line) if isinstance(line, str) else line
        except ValueError as error:
            yield number, error


def _json_object(text: str) -> Mapping[str, Any]:
    text = text.lstrip()
    seen = _HEADERS.split(text)[0]  # what follows may be a secret
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object, got {shown(seen)}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {shown(seen)}")
    return value


# -- CSV


def _csv(lines: Iterator[Line], columns: Sequence[str], *, skip: bool) -> Iterator[Entry]:
    if skip:
        next(lines)

    def row(text: str) -> Mapping[str, Any]:
        cells = _cells(text)
        if len(cells) != len(columns):
            raise ValueError(f"expected {len(columns)} columns ({', '.join(columns)}), got {len(cells)}")
        return {name: cell or None for name, cell in zip(columns, cells, strict=True)}

    return _each(lines, row)


def _header(text: str) -> list[str]:
    """The columns in lower case; empty if this is no header."""
    try:
        cells = [cell.lower() for cell in _cells(text)]
    except ValueError:
        return []
    return cells if "url" in cells else []


def _columns(number: int, header: Sequence[str], fields: Sequence[str]) -> Sequence[str]:
    if set(header) - set(fields) or len(set(header)) < len(header):
        raise ManifestError(
            f"line {number}: expected each of the columns {', '.join(fields)} once at most, "
            f"got {', '.join(map(shown, header))}; nothing was submitted"
        )
    return header or ["url"]


def _cells(text: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([text.strip()], strict=True))]
    except csv.Error as error:
        raise ValueError(f"expected a CSV row, got {shown(text)}: {error}") from error


# -- Parquet


def _parquet(stream: BinaryIO, fields: Sequence[str]) -> Iterator[Entry]:
    """A few thousand rows at a time, counted from 1."""
    try:
        import pyarrow  # noqa: PLC0415 - an extra that few need
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ImportError as error:
        raise ManifestError(
            "a Parquet manifest needs pyarrow, which is not installed (`pip install pyarrow`); nothing was submitted"
        ) from error
    if not stream.seekable():
        raise ManifestError("expected a Parquet manifest to be a file, got a pipe; nothing was submitted")
    try:
        file = ParquetFile(stream)
        names = file.schema_arrow.names
        if "url" not in names or set(names) - set(fields):
            raise ManifestError(
                f"expected the columns {', '.join(fields)}, url at least, got {', '.join(map(shown, names))}; "
                "nothing was submitted"
            )
        rows = (row for batch in file.iter_batches(batch_size=2000) for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield number, {name: _plain(value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError) as error:
        raise ManifestError(f"expected a Parquet file, got one that cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """A map comes as pairs, and a struct with what it leaves out as None."""
    if isinstance(value, list) and value and all(isinstance(each, tuple) for each in value):
        value = dict(value)
    if isinstance(value, dict):
        return {name: text for name, text in value.items() if text is not None}
    return value


# -- aria2

_MOST_OPTIONS = 100  # of one file
_NAMED_HEADERS = {"user-agent": "User-Agent", "referer": "Referer"}


def _aria2(lines: Iterable[Line]) -> Iterator[Entry]:
    """URLs of one file separated by tabs, then its options, indented; each file with the number of its first line.

        http://a/f.iso<TAB>http://b/f.iso
          out=images/f.iso
          checksum=sha-256=...
          header=Authorization: Bearer ...

    ``out``, ``dir``, ``checksum``, ``header``, ``user-agent`` and ``referer`` count; other options are passed over. A
    checksum that we do not compute is a bad line: it would look as if it had been compared.
    """
    at, urls, options = 0, "", list[str]()  # of the file that is being read; its number is 0 if there is none
    for number, line in chain(lines, [(0, ValueError("the end"))]):
        if isinstance(line, str) and line.lstrip().startswith("#"):
            continue
        if isinstance(line, str) and line[0] in " \t":
            if not at:
                yield number, ValueError("expected a URL before its options")
            elif len(options) <= _MOST_OPTIONS:
                options.append(line.strip())
            continue
        if at:
            try:
                yield at, _aria2_fields(urls, options)
            except ValueError as error:
                yield at, error
        if isinstance(line, str):
            at, urls, options = number, line, []
        else:
            at = 0
            if number:
                yield number, line


def _aria2_fields(line: str, options: Sequence[str]) -> Mapping[str, Any]:
    if len(options) > _MOST_OPTIONS:
        raise ValueError(f"expected at most {_MOST_OPTIONS} options, got more")
    urls = [url for part in line.split("\t") if (url := part.strip())]
    single: dict[str, str] = {}
    headers: dict[str, str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError("expected options like out=name, got one without '='")  # it may be a secret
        single[key] = value
        if key == "header":
            name, colon, text = value.partition(":")
            if not colon:
                raise ValueError("expected header=Name: value, got one without a colon")
            if name.strip().lower() in map(str.lower, headers):
                raise ValueError("expected each header once")
            headers[name.strip()] = text.strip()
    headers |= {name: single[key] for key, name in _NAMED_HEADERS.items() if key in single}
    fields: dict[str, Any] = {"url": urls[0], "mirrors": urls[1:], "headers": headers}
    if folder := single.get("dir"):
        fields["filename"] = f"{folder.removesuffix('/')}/{single.get('out') or name_of_url(urls[0])}"
    elif "out" in single:
        fields["filename"] = single["out"]
    if checksum := single.get("checksum"):
        kind, _, fields["sha256"] = checksum.partition("=")
        if kind.lower() != "sha-256":
            raise ValueError("expected checksum=sha-256=..., got another kind, which would not be looked at")
    return fields


# -- Metalink

_SPACE = "urn:ietf:params:xml:ns:metalink"
_MOST_URLS = 1000  # of one file
_LAST = 999_999  # the priority of a URL without one


def _metalink(stream: BinaryIO) -> Iterator[Entry]:
    """Files with their URLs by priority, length and SHA-256, each with the line on which it begins.

    Other hashes, ``pieces``, ``metaurl`` and URLs of other schemes are passed over.
    """
    document = _Metalink()
    for piece in chain(iter(lambda: stream.read(64 * 1024), b""), [b""]):
        yield from document.feed(piece)
        if document.broken:
            return


class _Metalink:
    """A document type is refused before anything in it is expanded: no entity can grow, and none can name a file."""

    def __init__(self) -> None:
        self.broken = False
        self._found: list[Entry] = []
        self._path: list[str] = []  # open elements
        self._line = 0  # of the file that is open
        self._fields: dict[str, Any] = {}
        self._urls: list[tuple[int, str]] = []  # with their priority
        self._text, self._attributes = "", dict[str, str]()  # of the element that began last
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters

    def feed(self, piece: bytes) -> list[Entry]:
        """The files that end in this piece; an empty one is the last."""
        try:
            self._parser.Parse(piece, not piece)
        except expat.ExpatError as error:
            self.broken = True
            if not self._path and not self._found and not self._line:
                raise ManifestError(f"expected a Metalink document, got: {error}; nothing was submitted") from error
            said = f"expected XML to the end, got: {error}; what follows was not read"
            self._found.append((error.lineno, ValueError(said)))
        found, self._found = self._found, []
        return found

    def _doctype(self, *_: Any) -> NoReturn:
        raise ManifestError("expected a Metalink document without a document type; nothing was submitted")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, tag = name.rpartition(" ")
        self._path.append(tag if space == _SPACE else name)
        if self._path[0] != "metalink":
            raise ManifestError(f"expected metalink of RFC 5854, got {shown(name)}; nothing was submitted")
        if self._path == ["metalink", "file"]:
            self._line = self._parser.CurrentLineNumber
            self._fields, self._urls = {"filename": attributes.get("name")}, []
        self._text, self._attributes = "", attributes

    def _characters(self, text: str) -> None:
        if len(self._text) <= MAX_CHARACTERS:
            self._text += text

    def _end(self, _: str) -> None:
        text = self._text.strip()
        match self._path:
            case ["metalink", "file", "url"]:
                if text.lower().startswith(("http://", "https://")) and len(self._urls) < _MOST_URLS:
                    priority = self._attributes.get("priority", "")
                    self._urls.append((int(priority) if re.fullmatch("[0-9]{1,6}", priority) else _LAST, text))
            case ["metalink", "file", "size"]:
                self._fields["size"] = text
            case ["metalink", "file", "hash"] if self._attributes.get("type", "").lower() == "sha-256":
                self._fields["sha256"] = text
            case ["metalink", "file"]:
                urls = [url for _, url in sorted(self._urls, key=lambda each: each[0])][: MOST_MIRRORS + 1]
                whole = {**self._fields, "url": urls[0], "mirrors": urls[1:]} if urls else None
                self._found.append((self._line, whole or ValueError("expected an http or https URL")))
        self._path.pop()
