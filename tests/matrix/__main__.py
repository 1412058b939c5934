"""``python -m tests.matrix --write``: run every cell, write down what it says, and render the document.

Words after ``--write`` select rows or cells as ``pytest -k`` does; all others keep what they say.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.matrix import document
from tests.matrix.expectation import Expected
from tests.matrix.rows import ROWS, cells

AT_ONCE = "8"  # cells; they mostly wait


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--write", action="store_true", required=True)
    parser.add_argument("--only-document", action="store_true", help="run no cell; after a change of words")
    parser.add_argument("select", nargs="?", default="", help="as pytest's -k, e.g. 'redis-restarts and gevent'")
    arguments = parser.parse_args()
    expected, code = Expected.read(), 0
    if not arguments.only_document:
        observed, code = observe(arguments.select)
        after = expected.with_observed(ROWS, observed)
        for cell, words in after.cells.items():
            before = expected.cells.get(cell, ("nothing",))
            if words != before:
                print(f"{' / '.join(cell)}: {' or '.join(before)} -> {' or '.join(words)}")
        expected = after
        expected.write(ROWS)
    document.FILE.write_text(document.render(expected))
    return code


def observe(select: str) -> tuple[dict[tuple[str, str], str], int]:
    """What the cells say now, and pytest's code: not 0 if a cell could not be produced. That one keeps its words."""
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        command = f"-m pytest -n {AT_ONCE} --dist worksteal tests/matrix --record {folder}".split()
        which = f"test_cell and ({select})" if select else "test_cell"
        code = subprocess.run([sys.executable, *command, "-k", which]).returncode
        said = {(row.key, column): Path(folder) / f"{row.key} {column}" for row, column in cells()}
        return {cell: file.read_text() for cell, file in said.items() if file.exists()}, code


if __name__ == "__main__":
    raise SystemExit(main())
