"""All rows, in the order of the document."""

from __future__ import annotations

from tests.matrix import rows_limits, rows_load, rows_pool, rows_recovery, rows_revoke, rows_stop
from tests.matrix.row import COLUMNS, Row

ROWS = (
    *rows_limits.ROWS,
    *rows_revoke.ROWS,
    *rows_pool.ROWS,
    *rows_stop.ROWS,
    *rows_recovery.ROWS,
    *rows_load.ROWS,
)


def cells() -> list[tuple[Row, str]]:
    """Those that can be run."""
    return [(row, column) for row in ROWS for column in COLUMNS if column not in row.absent]
