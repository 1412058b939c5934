"""Every cell of docs/capabilities.md, produced again and compared. ``make matrix``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.matrix import document
from tests.matrix.expectation import REGENERATE, Expected, installed
from tests.matrix.outcomes import known
from tests.matrix.row import COLUMNS, Row
from tests.matrix.rows import ROWS, cells

AGAIN = f"If that is right, write it down with `{REGENERATE}` and read the difference."


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("row", "column"), [pytest.param(row, column, id=f"{row.key}-{column}") for row, column in cells()]
)
def test_cell(row: Row, column: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    got = row.run(column, tmp_path)
    assert known(got), f"cell {row.key} / {column}: {got!r} is no word of tests/matrix/outcomes.py"
    if record := request.config.getoption("--record"):
        (Path(record) / f"{row.key} {column}").write_text(got)
        return
    expected = Expected.read().cells.get((row.key, column), ("nothing",))
    assert got in expected, f"cell {row.key} / {column}: expected {' or '.join(expected)}, got {got}. {AGAIN}"


def test_what_is_expected_is_complete_and_of_these_versions() -> None:
    expected = Expected.read()
    assert set(expected.cells) == {(row.key, column) for row in ROWS for column in COLUMNS}
    assert all(known(word) for words in expected.cells.values() for word in words)
    for row in ROWS:
        several = {column for column in COLUMNS if len(expected.cells[row.key, column]) > 1}
        assert several <= set(row.racy), f"row {row.key} has several words where it does not say why"
    assert expected.versions == installed(), AGAIN


def test_the_document_says_what_is_expected() -> None:
    assert document.FILE.read_text() == document.render(Expected.read()), f"docs: run `{REGENERATE} --only-document`"
