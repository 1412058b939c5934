"""Manifests in the form that ``aria2c -i`` reads: URLs of one file separated by tabs, then indented options of it.

    http://a/f.iso<TAB>http://b/f.iso
      out=images/f.iso
      checksum=sha-256=...
      header=Authorization: Bearer ...

``out``, ``dir``, ``checksum``, ``header``, ``user-agent`` and ``referer`` count. How many connections a file gets, and
whatever else tells aria2 how to go about it, is passed over. A checksum that we do not compute is a bad line: nobody
should believe that it was looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from download.filenames import name_of_url

_MOST = 100  # options of one file
_HEADERS = {"user-agent": "User-Agent", "referer": "Referer"}

Row = tuple[int, Mapping[str, Any] | str]


def rows(lines: Iterable[tuple[int, str | None, str]]) -> Iterator[Row]:
    """The files, each with the number of its first line.

    Args:
        lines: number, text with its indentation (None: it cannot be read), and what is wrong with it then.
    """
    entry: _Entry | None = None
    for number, text, problem in lines:
        if text is not None and text.lstrip().startswith("#"):
            continue
        if text is not None and text[0] in " \t":
            if entry is None:
                yield number, "expected a URL before its options"
            else:
                entry.take(text.strip())
            continue
        if entry:
            yield entry.row()
        entry = None
        if text is None:
            yield number, problem
        else:
            entry = _Entry(number, text)
    if entry:
        yield entry.row()


class _Entry:
    def __init__(self, number: int, text: str) -> None:
        self._number = number
        self._urls = [url for url in (part.strip() for part in text.split("\t")) if url]
        self._options: list[str] = []

    def take(self, option: str) -> None:
        if len(self._options) <= _MOST:
            self._options.append(option)

    def row(self) -> Row:
        try:
            return self._number, self._fields()
        except ValueError as error:
            return self._number, str(error)

    def _fields(self) -> dict[str, Any]:
        if len(self._options) > _MOST:
            raise ValueError(f"expected at most {_MOST} options, got more")
        single: dict[str, str] = {}
        headers: dict[str, str] = {}
        for option in self._options:
            key, equals, value = option.partition("=")
            if not equals:
                raise ValueError("expected options like out=name, got one without '='")  # it may be a secret
            if key == "header":
                name, colon, text = value.partition(":")
                if not colon:
                    raise ValueError("expected header=Name: value, got one without a colon")
                if name.strip().lower() in map(str.lower, headers):
                    raise ValueError("expected each header once")
                headers[name.strip()] = text.strip()
            single[key] = value
        headers |= {name: single[key] for key, name in _HEADERS.items() if key in single}
        fields: dict[str, Any] = {"url": self._urls[0], "mirrors": self._urls[1:], "headers": headers}
        if folder := single.get("dir"):
            fields["filename"] = f"{folder.removesuffix('/')}/{single.get('out') or name_of_url(self._urls[0])}"
        elif "out" in single:
            fields["filename"] = single["out"]
        if checksum := single.get("checksum"):
            kind, _, digest = checksum.partition("=")
            if kind.lower() != "sha-256":
                raise ValueError("expected checksum=sha-256=..., got another kind, which would not be looked at")
            fields["sha256"] = digest
        return fields
