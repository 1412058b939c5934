"""docs/capabilities.md, from the rows and what is expected of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.matrix.expectation import REGENERATE, Expected
from tests.matrix.outcomes import Outcome
from tests.matrix.row import COLUMNS, Row
from tests.matrix.rows import ROWS

FILE = Path(__file__).parent.parent.parent / "docs" / "capabilities.md"

HEAD = """\
# What works in which pool

What a deployment of Celery asks of its workers, and what each pool makes of it: stock Celery beside Downpour. Every
cell was tried on a real Valkey with real workers. `make matrix` tries it again and fails if a cell has changed.
Written by `{command}` from `tests/matrix/`; do not edit.

Versions: {versions}.
Celery's settings are its defaults, but for what a row names; a worker has one slot, unless the row says two.

{table}

**Bold**: not what was asked for. –: not applicable, the row says why.

| word | |
|---|---|
{words}
| error: X | the caller's answer, or the job's end, is an exception of class X |

Seconds in the rows are short so that a test can wait for them; nothing depends on their size.
"""


def render(expected: Expected) -> str:
    used = {word for words in expected.cells.values() for word in words}
    versions = ", ".join(f"{name} {number}" for name, number in expected.versions.items())
    words = "\n".join(f"| {word} | {word.meaning} |" for word in Outcome if word in used - {Outcome.NOT_APPLICABLE})
    head = HEAD.format(command=REGENERATE, versions=versions, table=_table(expected), words=words)
    return "\n".join([head, *(_section(row, expected) for row in ROWS)])


def _table(expected: Expected) -> str:
    lines = [_line(["", *COLUMNS]), "|" + "---|" * (len(COLUMNS) + 1)]
    for row in ROWS:
        lines.append(_line([row.title, *(_cell(row, column, expected) for column in COLUMNS)]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _cell(row: Row, column: str, expected: Expected) -> str:
    words = expected.cells[row.key, column]
    if words == (Outcome.NOT_APPLICABLE,):
        return "–"
    text = " *or* ".join(words)
    return text if words == (Outcome.WORKS,) else f"**{text}**"


def _section(row: Row, expected: Expected) -> str:
    lines = [f"## {row.title}", "", row.means, "", f"*How:* {row.how}"]
    for reason, columns in _by_reason(row.absent).items():
        lines += ["", f"*Not applicable* ({', '.join(columns)}): {reason}."]
    for column, race in row.racy.items():
        words = " or ".join(expected.cells[row.key, column])
        lines += ["", f"*A race* ({column}: {words}): {race.why}. Either is accepted."]
    return "\n".join([*lines, ""])


def _by_reason(absent: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for column, reason in absent.items():
        reasons.setdefault(reason, []).append(column)
    return reasons
