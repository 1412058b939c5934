"""The forms that a manifest can have: bytes in, entries out, in bounded memory.

======== ============================================================================================
format   an entry is
======== ============================================================================================
txt      a line with a URL; lines that begin with ``#`` are comments
csv      a line below a header with ``url`` and some of the other fields, which also shows what is between them:
         ``,`` ``;`` ``|`` or a tab; without a header, a URL. No field contains a line break
jsonl    a line with a JSON object that has these keys
json     an element of an array: such an object, or a URL
parquet  a row with these columns; needs pyarrow
aria2    the URLs of a file and its options, as ``aria2c -i`` reads them
metalink a file of a Metalink document (RFC 5854, .meta4)
======== ============================================================================================

Blank lines are skipped. What is wrong with an entry stands in its place; it does not spoil the others. By their first
bytes, gzip and UTF-16 are read as what they hold, and other files are refused by name. Nothing is guessed: a first line
that may be a URL with a comma or a row of two cells is refused.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, cast
from xml.parsers import expat  # nosec - no document type comes through, see ``_Metalink``

from download.errors import shown
from download.filenames import name_of_url
from producer.errors import ManifestError
from producer.urls import MAX_CHARACTERS, basic

MOST_MIRRORS = 20
_MAX_LINE = 64 * 1024  # bytes
_HEADERS = re.compile(r"(?i)['\"]?(?:headers|authorization|cookie)\b")
_HASHES = {"sha-512": "sha512", "sha-256": "sha256", "sha-1": "sha1", "md5": "md5"}  # as aria2 and Metalink name them
_UNUSED = "which would not be looked at"
_BY_NAME = "--columns url=NAME,size=NAME takes columns by name and leaves the others alone; nothing was submitted"

# The number of a line, row or element, and what is there: a URL, fields, or what was expected and what we got.
Entry = tuple[int, str | Mapping[str, Any] | ValueError]
Line = tuple[int, str | ValueError]
T = TypeVar("T")


class Format(StrEnum):
    TXT = "txt"
    CSV = "csv"
    JSONL = "jsonl"
    JSON = "json"
    PARQUET = "parquet"
    ARIA2 = "aria2"
    METALINK = "metalink"


_SUFFIXES = {
    ".txt": Format.TXT,
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".parquet": Format.PARQUET,
    ".meta4": Format.METALINK,
    ".metalink": Format.METALINK,
}
# What is taken for a manifest, by its first bytes in lower case.
_FOREIGN = {
    b"\x1f\x8b": "gzip inside of gzip",
    b"pk\x03\x04": "a zip archive, which an Excel workbook is, too; save that as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV",
    b"bzh": "bzip2",
    b"\xfd7zxz\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"%pdf": "PDF",
    b"sqlite format 3": "an SQLite database",
    b"par1": "Parquet",
    b"d8:announce": "a torrent",
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
}
_HEAD = 64  # bytes that are looked at


class Remark(ValueError):  # noqa: N818 - no entry is lost
    """What is to be said of an entry that counts."""


def format_of(path: Path) -> Format | None:
    """What the file's suffix says; None if it says nothing, and then its beginning decides."""
    return _SUFFIXES.get((path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower())


def entries(
    stream: BinaryIO,
    format_: Format | None,
    fields: Sequence[str],
    columns: Mapping[str, str] | None = None,
    *,
    piped: bool = False,
) -> Iterator[Entry]:
    """
    Args:
        fields: those that are understood.
        columns: the column of each field that is wanted; then other columns are left alone.
        piped: whether the input may have been cut off without a sign.

    Raises:
        ManifestError: a CSV header, a Parquet file or a Metalink document that cannot be used, or a file of another
            kind.
    """
    number = 0
    try:
        stream, format_ = _opened(stream, format_)
        if columns and format_ in (Format.ARIA2, Format.METALINK):
            raise ManifestError(f"expected a table for --columns, got {format_}; nothing was submitted")
        if format_ is Format.METALINK:
            found = _metalink(stream)
        elif format_ is Format.PARQUET:
            found = _parquet(stream, fields, columns)
        elif format_ is Format.JSON:
            found = _json(stream)
        elif format_ is Format.ARIA2:
            found = _each(_aria2_files(_lines(stream, piped=piped)), _aria2_fields)
        else:
            found = _by_first_line(_lines(stream, piped=piped), format_, fields, columns)
        for number, entry in found:
            if columns and isinstance(entry, Mapping):
                yield number, {field: entry.get(column) for field, column in columns.items()}
            else:
                yield number, entry
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        yield number + 1, ValueError(f"expected gzip to its end, got: {error}; what follows was not read")


def _by_first_line(
    lines: Iterator[Line], format_: Format | None, fields: Sequence[str], columns: Mapping[str, str] | None
) -> Iterator[Entry]:
    """JSON lines, rows below a header, or URLs."""
    number, first = next(lines, (0, ""))
    while format_ is None and isinstance(first, str) and first.lstrip().startswith("#"):
        number, first = next(lines, (0, ""))
    text, delimiters = first if isinstance(first, str) else "", ",;\t|"
    if format_ is Format.JSONL or (format_ is None and text.lstrip().startswith("{")):
        return _each(chain([(number, first)] if number else [], lines), _json_object)
    if format_ is not Format.TXT and (said := re.fullmatch("(?i)sep=(.?)", text.rstrip(" "))):
        delimiters = said[1] or "\t"
        number, first = next(lines, (0, ""))
        text = first if isinstance(first, str) else ""
    header, delimiter = _header(text, delimiters, columns)
    if header:
        if problem := _problem(header, fields, columns):
            raise ManifestError(f"line {number}: {problem}, got {_shown(text)}; {_BY_NAME}")
        return _csv(lines, header, delimiter)
    if columns or (format_ is not Format.TXT and any(each in text for each in delimiters)):
        column = columns["url"] if columns else "url"
        raise ManifestError(
            f"line {number}: expected a header with the column {column}, or a URL and nothing else, got "
            f"{_shown(text)}; put a header like url{delimiters[0]}filename above it, name the column with --columns "
            "url=NAME, or say --format txt if each line is a URL; nothing was submitted"
        )
    return _each(chain([(number, first)] if number else [], lines), _url)


def _shown(line: str) -> str:
    """As far as it can have no secret."""
    return shown(_HEADERS.split(line)[0])


# -- bytes


def _opened(stream: BinaryIO, format_: Format | None, *, unpacked: bool = False) -> tuple[BinaryIO, Format | None]:
    """The manifest from its beginning, in UTF-8, and its format as far as its first bytes tell it.

    Raises:
        ManifestError: it is a file of another kind.
    """
    head = stream.read(_HEAD)
    if format_ is Format.PARQUET or (format_ is None and head.startswith(b"PAR1") and not unpacked):
        if stream.seekable():
            stream.seek(-len(head), io.SEEK_CUR)
        return stream, Format.PARQUET
    pieces = chain([head], iter(lambda: cast(io.BufferedReader, stream).read1(_MAX_LINE), b""))
    if head.startswith(b"\x1f\x8b") and not unpacked:
        return _opened(cast(BinaryIO, gzip.GzipFile(fileobj=_stream_of(pieces))), format_, unpacked=True)
    start = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    kind = next((kind for magic, kind in _FOREIGN.items() if start.startswith(magic)), None)
    if not kind and format_ is not Format.METALINK:  # XML says itself how it is written
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = codecs.iterdecode(pieces, "utf-16", "backslashreplace")  # no URL and no name has a backslash
            return _opened(_stream_of(codecs.iterencode(text, "utf-8")), format_, unpacked=True)
        kind = "UTF-16 without its mark, or no text" if b"\0" in head else None
    if kind:
        raise ManifestError(f"expected a manifest ({', '.join(Format)}), got {kind}; nothing was submitted")
    told = {b"[": Format.JSON, b"<": Format.METALINK}.get(start[:1])
    return _stream_of(pieces), format_ or told


class _Pieces(io.RawIOBase):
    """A stream of what an iterator yields."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        self._left = self._left or next(filter(None, self._pieces), b"")
        count = min(len(room), len(self._left))
        room[:count], self._left = self._left[:count], self._left[count:]
        return count


def _stream_of(pieces: Iterator[bytes]) -> BinaryIO:
    return io.BufferedReader(_Pieces(pieces), _MAX_LINE)


# -- lines


def _lines(stream: BinaryIO, *, piped: bool) -> Iterator[Line]:
    """The lines that are not blank, with their indentation; a long one costs no more memory than a short one."""
    number, last = 0, b"\n"
    while raw := stream.readline(_MAX_LINE):
        number, last = number + 1, raw
        if len(raw) == _MAX_LINE and not raw.endswith(b"\n") and (rest := stream.readline(_MAX_LINE)):
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(_MAX_LINE)
            yield number, ValueError(f"expected at most {_MAX_LINE} bytes, got a longer line")
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield number, ValueError(f"expected UTF-8, got {raw[error.start : error.start + 8]!r}")
            continue
        if text.strip():
            yield number, text
    if piped and not last.endswith(b"\n"):
        yield number, Remark("the last line has no line end; if the input was cut off, its URL is not whole")


def _url(text: str) -> str | None:
    return None if text.lstrip().startswith("#") else text.strip()


def _each(
    lines: Iterable[tuple[int, T | ValueError]], parse: Callable[[T], str | Mapping[str, Any] | None]
) -> Iterator[Entry]:
    for number, line in lines:
        try:
            entry = line if isinstance(line, ValueError) else parse(line)
        except ValueError as error:
            entry = error
        if entry is not None:
            yield number, entry


def _json_object(text: str) -> Mapping[str, Any]:
    value, why = None, ""
    try:
        value = json.loads(text.strip())
    except (ValueError, RecursionError) as error:
        why = f": {error}"
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {_shown(text.lstrip())}{why}")
    return value


def _json(stream: BinaryIO) -> Iterator[Entry]:
    """The elements of an array, counted from 1; one at a time is in memory. An error ends it."""
    pieces = iter(lambda: cast(io.BufferedReader, stream).read1(_MAX_LINE), b"")
    text, at, number, before, problem = "", 0, 0, "[", ""
    for piece in chain(codecs.iterdecode(pieces, "utf-8-sig", "backslashreplace"), [""]):
        text, at = text[at:] + piece, 0
        try:
            while (mark := _MARK.match(text, at)) and mark[1] == before and mark.end() < len(text):
                value, end = _DECODER.raw_decode(text, mark.end())
                number, at, before = number + 1, end, ","
                good = isinstance(value, dict | str)
                yield number, value if good else ValueError("expected a JSON object or a URL, got another value")
        except (ValueError, RecursionError) as error:
            problem = f": {error}"
        if len(text) - at > _MAX_LINE:
            break
    if "".join(text[at:].split()) != ("]" if number else "[]"):
        yield (
            number + 1,
            ValueError(f"expected an array of JSON objects to its end{problem}; what follows was not read"),
        )


_DECODER = json.JSONDecoder()
_MARK = re.compile(r"\s*([\[,])\s*")


# -- CSV


def _csv(lines: Iterator[Line], columns: Sequence[str], delimiter: str) -> Iterator[Entry]:
    def row(text: str) -> Mapping[str, Any] | None:
        cells = _cells(text, delimiter)
        if not any(cells):
            return None
        if len(cells) != len(columns) or any(cell for cell, name in zip(cells, columns, strict=True) if not name):
            raise ValueError(f"expected {len(columns)} columns ({', '.join(columns)}), got {len(cells)}")
        return {name: cell or None for name, cell in zip(columns, cells, strict=True) if name}

    return _each(lines, row)


def _header(text: str, delimiters: str, columns: Mapping[str, str] | None) -> tuple[list[str], str]:
    """The columns, in lower case unless their names were given, and what is between them; none if this is no header."""
    for delimiter in delimiters:
        with suppress(ValueError):
            cells = _cells(text if columns else text.lower(), delimiter)
            if (columns["url"] if columns else "url") in cells:
                return cells, delimiter
    return [], ""


def _problem(header: Sequence[str], fields: Sequence[str], columns: Mapping[str, str] | None) -> str | None:
    if columns:
        good = all(header.count(column) == 1 for column in columns.values())
        return None if good else f"expected each of the columns {', '.join(columns.values())} once"
    named = list(filter(None, header))
    good = set(named) <= set(fields) and len(set(named)) == len(named) and "url" in named
    return None if good else f"expected each of the columns {', '.join(fields)} once at most, url at least"


def _cells(text: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([text.strip(" ")], delimiter=delimiter, strict=True))]
    except csv.Error as error:
        raise ValueError(f"expected a CSV row, got {_shown(text)}: {error}") from error


# -- Parquet


def _parquet(stream: BinaryIO, fields: Sequence[str], columns: Mapping[str, str] | None) -> Iterator[Entry]:
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
        wanted = list(columns.values()) if columns else names
        if problem := _problem(names, fields, columns):
            raise ManifestError(f"{problem}, got {', '.join(map(shown, names))}; {_BY_NAME}")
        rows = (row for batch in file.iter_batches(batch_size=2000, columns=wanted) for row in batch.to_pylist())
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


def _aria2_files(lines: Iterable[Line]) -> Iterator[tuple[int, list[str] | ValueError]]:
    """Each file with the number of its first line: URLs separated by tabs, then its options, which are indented.

    http://a/f.iso<TAB>http://b/f.iso
      out=images/f.iso
      checksum=sha-256=...
      header=Authorization: Bearer ...
    """
    at, file = 0, list[str]()
    for number, line in lines:
        if isinstance(line, str) and line.lstrip().startswith("#"):
            continue
        if isinstance(line, str) and line[0] in " \t":
            if not file:
                yield number, ValueError("expected a URL before its options")
            elif len(file) < _MOST_OPTIONS + 2:
                file.append(line.strip())
            continue
        if file:
            yield at, file
        at, file = (number, [line]) if isinstance(line, str) else (0, [])
        if isinstance(line, ValueError):
            yield number, line
    if file:
        yield at, file


def _aria2_fields(file: Sequence[str]) -> Mapping[str, Any]:
    """
    ``out``, ``dir``, ``checksum``, ``header``, ``user-agent``, ``referer``, ``http-user`` and ``http-passwd`` count;
    other options are passed over, and so is an absolute ``dir``, which sessions have: it is a place of aria2's machine.
    A checksum that we do not compute is a bad line: it would look as if it had been compared.
    """
    if len(file) > _MOST_OPTIONS + 1:
        raise ValueError(f"expected at most {_MOST_OPTIONS} options, got more")
    urls = [url for part in file[0].split("\t") if (url := part.strip())]
    single: dict[str, str] = {}
    headers: list[tuple[str, str]] = []
    for option in file[1:]:
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError("expected options like out=name, got one without '='")  # it may be a secret
        single[key] = value
        if key == "header":
            name, colon, text = value.partition(":")
            if not colon:
                raise ValueError("expected header=Name: value, got one without a colon")
            headers.append((name.strip(), text.strip()))
    if user := single.get("http-user"):
        headers.append(("Authorization", basic(user, single.get("http-passwd", ""))))
    if len({name.lower() for name, _ in headers}) < len(headers):
        raise ValueError("expected each header once (http-user gives Authorization), got both")
    named = {name: single[key] for key, name in _NAMED_HEADERS.items() if key in single}
    fields: dict[str, Any] = {"url": urls[0], "mirrors": urls[1:], "headers": {**dict(headers), **named}}
    if (folder := single.get("dir")) and not re.match(r"/|\\|[A-Za-z]:", folder):
        fields["filename"] = f"{folder.removesuffix('/')}/{single.get('out') or name_of_url(urls[0])}"
    elif "out" in single:
        fields["filename"] = single["out"]
    if checksum := single.get("checksum"):
        kind, _, digest = checksum.partition("=")
        if kind.lower() not in _HASHES:
            raise ValueError(f"expected a checksum of {', '.join(_HASHES)}, got another kind, {_UNUSED}")
        fields[_HASHES[kind.lower()]] = digest
    return fields


# -- Metalink

_SPACE = "urn:ietf:params:xml:ns:metalink"
_MOST_URLS = 1000  # of one file
_LAST = 999_999  # the priority of a URL without one


def _metalink(stream: BinaryIO) -> Iterator[Entry]:
    """Files with their URLs by priority, length and hashes, each with the line on which it begins.

    Other hashes beside one of ours, ``pieces``, ``metaurl`` and URLs of other schemes are passed over.
    """
    document = _Metalink()
    try:
        for piece in chain(iter(lambda: stream.read(_MAX_LINE), b""), [b""]):  # an empty one is the last
            document.parser.Parse(piece, not piece)
            yield from document.taken()
    except expat.ExpatError as error:
        if not document.begun:
            raise ManifestError(f"expected a Metalink document, got: {error}; nothing was submitted") from error
        yield from document.taken()
        yield error.lineno, ValueError(f"expected XML to the end, got: {error}; what follows was not read")


class _Metalink:
    """A document type is refused before anything in it is expanded: no entity can grow, and none can name a file."""

    def __init__(self) -> None:
        self.begun = False
        self._found: list[Entry] = []
        self._path: list[str] = []  # open elements
        self._line = 0  # of the file that is open
        self._fields: dict[str, Any] = {}
        self._urls: list[tuple[int, str]] = []  # with their priority
        self._hashes: dict[str, str] = {}  # by type
        self._text, self._attributes = "", dict[str, str]()  # of the element that began last
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def taken(self) -> list[Entry]:
        """The files that have ended since."""
        found, self._found = self._found, []
        return found

    def _doctype(self, *_: Any) -> NoReturn:
        raise ManifestError("expected a Metalink document without a document type; nothing was submitted")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, tag = name.rpartition(" ")
        self._path.append(tag if space == _SPACE else name)
        self.begun = True
        if space == "http://www.metalinker.org/":
            raise ManifestError("expected Metalink 4 (RFC 5854, .meta4), got Metalink 3; nothing was submitted")
        if self._path[0] != "metalink":
            raise ManifestError(f"expected metalink of RFC 5854, got {shown(name)}; nothing was submitted")
        if self._path == ["metalink", "file"]:
            self._line = self.parser.CurrentLineNumber
            self._fields, self._urls, self._hashes = {"filename": attributes.get("name")}, [], {}
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
            case ["metalink", "file", "hash"]:
                self._hashes[self._attributes.get("type", "").lower()] = text
            case ["metalink", "file"]:
                self._found.append((self._line, self._whole()))
        self._path.pop()

    def _whole(self) -> Mapping[str, Any] | ValueError:
        """The file that ends."""
        urls = [url for _, url in sorted(self._urls, key=lambda each: each[0])][: MOST_MIRRORS + 1]
        if not urls:
            return ValueError("expected an http or https URL")
        digests = {_HASHES[kind]: text for kind, text in self._hashes.items() if kind in _HASHES}
        if self._hashes and not digests:
            return ValueError(f"expected a hash of {', '.join(_HASHES)}, got another kind, {_UNUSED}")
        return {**self._fields, **digests, "url": urls[0], "mirrors": urls[1:]}
