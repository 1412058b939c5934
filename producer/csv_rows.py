"""Rows of a CSV manifest: one line each, below a header that names the columns; without a header, URLs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from producer.errors import ManifestError
from producer.urls import shown


class Csv:
    """Reads line by line; the first one is the header, if it is one."""

    def __init__(self, number: int, first: str, fields: Sequence[str]) -> None:
        """
        Args:
            number: of the first line.
            fields: columns that are understood.

        Raises:
            ManifestError: the header has another one, or one of them twice.
        """
        found = header(first)
        if set(found) - set(fields) or len(set(found)) < len(found):
            raise ManifestError(
                f"line {number}: expected each of the columns {', '.join(fields)} once at most, "
                f"got {', '.join(map(shown, found))}; nothing was submitted"
            )
        self._columns = found or ["url"]
        self._skip = bool(found)

    def __call__(self, text: str) -> Mapping[str, Any] | None:
        if self._skip:
            self._skip = False
            return None
        cells = _cells(text)
        if len(cells) != len(self._columns):
            raise ValueError(f"expected {len(self._columns)} columns ({', '.join(self._columns)}), got {len(cells)}")
        return {name: cell or None for name, cell in zip(self._columns, cells, strict=True)}


def header(text: str) -> list[str]:
    """The columns in lower case; empty if this is no header."""
    try:
        cells = [cell.lower() for cell in _cells(text)]
    except ValueError:
        return []
    return cells if "url" in cells else []


def _cells(text: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True))]
    except csv.Error as error:
        raise ValueError(f"expected a CSV row, got {shown(text)}: {error}") from error
