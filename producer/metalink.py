"""Metalink documents (RFC 5854, ``.meta4``): files with their URLs by priority, length and SHA-256.

Read piece by piece in bounded memory. A document type is refused before anything in it is expanded, so no entity can
grow and none can name a file. Of a file's hashes SHA-256 counts; other kinds, ``pieces``, ``metaurl`` and URLs of other
schemes are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn
from xml.parsers import expat  # nosec - no document type comes through, see below

from producer.errors import ManifestError
from producer.options import MOST_MIRRORS
from producer.urls import MAX_CHARACTERS, shown

_SPACE = "urn:ietf:params:xml:ns:metalink"
_PIECE = 64 * 1024  # bytes read at a time
_MOST_URLS = 1000  # of one file
_LAST = 999_999  # the priority of a URL without one

Row = tuple[int, Mapping[str, Any] | str]


def rows(stream: BinaryIO) -> Iterator[Row]:
    """The files, each with the line on which it begins; what is wrong, and the end, if the document breaks.

    Raises:
        ManifestError: this is no Metalink 4, or it has a document type.
    """
    document = _Document()
    while piece := stream.read(_PIECE):
        yield from document.feed(piece)
        if document.broken:
            return
    yield from document.feed(b"", final=True)


class _Document:
    def __init__(self) -> None:
        self.broken = False
        self._found: list[Row] = []
        self._path: list[str] = []  # open elements
        self._line = 0
        self._fields: dict[str, Any] = {}
        self._urls: list[tuple[int, str]] = []
        self._priority = _LAST
        self._text: list[str] | None = None  # of an element that we read
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters

    def feed(self, piece: bytes, *, final: bool = False) -> list[Row]:
        try:
            self._parser.Parse(piece, final)
        except expat.ExpatError as error:
            self.broken = True
            if not self._path and not self._found and not self._line:
                raise ManifestError(f"expected a Metalink document, got: {error}; nothing was submitted") from error
            self._found.append((error.lineno, f"expected XML to the end, got: {error}; what follows was not read"))
        found, self._found = self._found, []
        return found

    def _doctype(self, *_: Any) -> NoReturn:
        raise ManifestError("expected a Metalink document without a document type; nothing was submitted")

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        space, _, tag = name.rpartition(" ")
        self._path.append(tag if space == _SPACE else name)
        if len(self._path) == 1 and self._path != ["metalink"]:
            raise ManifestError(f"expected metalink of RFC 5854, got {shown(name)}; nothing was submitted")
        if self._path == ["metalink", "file"]:
            self._line = self._parser.CurrentLineNumber
            self._fields, self._urls = {"filename": attributes.get("name")}, []
        tag = self._path[-1]
        wanted = tag in ("url", "size") or (tag == "hash" and attributes.get("type", "").lower() == "sha-256")
        self._text = [] if self._path[:-1] == ["metalink", "file"] and wanted else None
        priority = attributes.get("priority", "")
        self._priority = int(priority) if priority.isascii() and priority.isdigit() and len(priority) < 7 else _LAST

    def _characters(self, text: str) -> None:
        if self._text is not None and sum(map(len, self._text)) <= MAX_CHARACTERS:
            self._text.append(text)

    def _end(self, _: str) -> None:
        if self._text is not None:
            self._take(self._path[-1], "".join(self._text).strip())
        self._text = None
        if self._path == ["metalink", "file"]:
            urls = [url for _, url in sorted(self._urls, key=lambda each: each[0])][: MOST_MIRRORS + 1]
            found = {**self._fields, "url": urls[0], "mirrors": urls[1:]} if urls else "expected an http or https URL"
            self._found.append((self._line, found))
        self._path.pop()

    def _take(self, tag: str, text: str) -> None:
        if tag != "url":
            self._fields["sha256" if tag == "hash" else tag] = text
        elif text.lower().startswith(("http://", "https://")) and len(self._urls) < _MOST_URLS:
            self._urls.append((self._priority, text))
