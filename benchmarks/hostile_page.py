"""docs/downloaders.md, made of the outcomes that ``benchmarks.hostile`` found."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.hostile import TOOLS, Outcome
from ledger.jobs import Pool

_OURS = tuple(f"Downpour {pool}" for pool in Pool)

_PAGE = """# Downloaders and a hostile server

Each row is one way in which the tests' origin misbehaves (`tests/hostile_origin`). Each tool is run with limits on time
and size, follows redirects and continues what is there. It is run until it says that it is done, three times at most;
a job has three attempts, too. A cell says what it said in the end (an exit code; 0 is done), and what lay under the
final name then:

- **right**: the whole file, as some edition of it was. **nothing**: no file of that name. **empty**: no byte.
- **partial**: the beginning of the file under its final name. **wrong**: other bytes, for example two editions spliced.
- **large**: more than the megabyte that was allowed. **inner**: a page of an address that no stranger should reach,
  fetched by a redirect. **escaped**: a file outside of the folder that was meant.

✗ marks a cell in which the end and the file do not agree: done without a right file, or not done and yet something lies
there under the final name. A tool that keeps its partial files there needs them to go on; whoever finds the file cannot
see that. No digest was given to anybody.
{pools}
{table}

{totals}

Made by `python -m benchmarks hostile` on {date} with {versions}; raw outcomes: `docs/downloaders/hostile.json`.
A tool that is not installed is left out.{missing} The commands (in `disposition`, where the server may say the name,
with {by_server} instead of the last options): {commands}.
"""


def page(found: dict[str, Any]) -> str:
    """The page that the outcomes make."""
    outcomes = [Outcome(**each | {"escaped": tuple(each["escaped"])}) for each in found["outcomes"]]
    agree = _agree(outcomes)
    if agree:
        outcomes = [replace(each, who="Downpour") if each.who == _OURS[0] else each for each in outcomes]
        outcomes = [each for each in outcomes if each.who not in _OURS]
    cells = {(outcome.row, outcome.who): outcome for outcome in outcomes}
    who = list(dict.fromkeys(outcome.who for outcome in outcomes))
    lines = ["| fault | " + " | ".join(who) + " |", "|---" * (len(who) + 1) + "|"]
    for row in dict.fromkeys(outcome.row for outcome in outcomes):
        lines.append(
            f"| `{row.removeprefix('/faults/')}` | " + " | ".join(_cell(cells[row, each]) for each in who) + " |"
        )
    bad = {each: sum(not outcome.good for outcome in outcomes if outcome.who == each) for each in who}
    lied = {each: sum(o.done and not o.good for o in outcomes if o.who == each) for each in who}
    rows = len({outcome.row for outcome in outcomes})
    totals = [
        f"- {each}: {bad[each]} of {rows} rows marked; on {lied[each]} of them it said that it was done" for each in who
    ]
    versions: dict[str, str | None] = found["versions"]
    missing = [name for name, version in versions.items() if version is None]
    return _PAGE.format(
        table="\n".join(lines),
        totals="\n".join(totals),
        date=found["date"],
        versions=", ".join(version for version in versions.values() if version),
        missing=f" Missing here: {', '.join(missing)}." if missing else "",
        by_server=", ".join(f"`{tool.by_server}`" for tool in TOOLS if tool.by_server),
        commands="; ".join(f"`{tool.name} {tool.options} {tool.named}`" for tool in TOOLS),
        pools="\nThe three pools agree in every row and share a column.\n" if agree else "",
    )


def _cell(outcome: Outcome) -> str:
    large = f" ({outcome.size:,} bytes)" if outcome.left == "large" else ""
    escaped = ", escaped" if outcome.escaped else ""
    return f"{'' if outcome.good else '✗ '}{outcome.said}, {outcome.left}{large}{escaped}"


def _agree(outcomes: Sequence[Outcome]) -> bool:
    ends = [[(each.row, each.said, each.left) for each in outcomes if each.who == who] for who in _OURS]
    return all(end == ends[0] for end in ends)


def save(found: dict[str, Any], out: Path) -> str:
    """Write page and outcomes; the page."""
    found = {"date": time.strftime("%Y-%m-%d"), **found}
    folder = out / "downloaders"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hostile.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    text = page(json.loads((folder / "hostile.json").read_text()))
    (out / "downloaders.md").write_text(text)
    return text
