"""All rows, in the order of the document."""

from __future__ import annotations

from tests.matrix import rows_jobs, rows_load, rows_pool, rows_workers
from tests.matrix.row import COLUMNS, Row

ROWS = (*rows_jobs.ROWS, *rows_pool.ROWS, *rows_workers.ROWS, *rows_load.ROWS)


def cells() -> list[tuple[Row, str]]:
    """Those that can be run."""
    return [(row, column) for row in ROWS for column in COLUMNS if column not in row.absent]
