"""What curl, wget2, aria2c and Downpour make of a hostile origin: every row of its table of faults, side by side.

Each tool runs with limits on time and size, follows redirects, and continues partial files. It is run again until it
reports success, three times at most; a job has three attempts, too. The outcome is the content of the final file name,
beside the tool's own exit code. ``page`` makes docs/downloaders.md of the outcomes.
"""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import urllib3

from ledger.jobs import Job, JobState, Pool
from tests.hostile import ALLOWED, CASES, LIMITS, TIMES, Case
from tests.world import World

_SECRET = b"what only this machine may read\n"
_PATIENCE = 30  # seconds for one run of a tool; each was told to give up earlier
_LARGE = 1_000_000  # bytes


@dataclass(frozen=True)
class Outcome:
    row: str
    who: str
    said: str  # exit code, or the record's end
    done: bool  # it says that the file is there
    left: str  # under the final name: right, wrong, partial, empty, nothing, inner, large
    size: int  # bytes of it
    escaped: tuple[str, ...] = ()  # files outside of the folder that was meant

    @property
    def good(self) -> bool:
        """Done and right; or not done, and nothing under the final name that could be taken for the file."""
        return (self.left == "right" or (self.left == "nothing" and not self.done)) and not self.escaped


@dataclass(frozen=True)
class Tool:
    name: str
    options: str
    named: str  # how to continue, and to say the final name
    by_server: str  # how the server is allowed to say it

    @property
    def version(self) -> str | None:
        """None: it is not installed."""
        if not shutil.which(self.name):
            return None
        said = subprocess.run([self.name, "--version"], capture_output=True, text=True, check=False).stdout
        return " ".join(said.splitlines()[0].split()[:4])

    def run(self, case: Case, url: str, folder: Path) -> Outcome:
        target = folder / "a" / "b" / "target"
        target.mkdir(parents=True)
        naming = self.by_server if case.name == "disposition" else self.named
        command = [self.name, *self.options.split(), *naming.format(name=case.name).split(), url]
        said = ""
        for _ in range(TIMES):
            try:
                done = subprocess.run(command, cwd=target, capture_output=True, timeout=_PATIENCE, check=False)
                said = str(done.returncode)
            except subprocess.TimeoutExpired:
                said = f"stopped after {_PATIENCE} s"
            if said == "0":
                break
        inside = [path for path in target.rglob("*") if path.is_file() and path.suffix != ".aria2"]
        outside = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        escaped = tuple(path for path in outside if not path.startswith("a/b/target/"))
        # Where the server may say the name, whatever is there is the file.
        final = next(iter(inside), target / case.name) if naming is self.by_server else target / case.name
        return Outcome(case.row, self.name, said, said == "0", *looked_at(case, final), escaped)


TOOLS = (
    Tool(
        "curl",
        "-fsSL --connect-timeout 5 --speed-limit 200 --speed-time 3 --max-filesize 1000000",
        "-C - -o {name}",
        "-OJ",  # which does not go together with -C
    ),
    Tool(
        "wget2", "-q --tries=1 --timeout=2 --no-robots --no-hsts --no-config", "-c -O {name}", "--content-disposition"
    ),
    Tool(
        "aria2c",
        "-q --no-conf --max-tries=1 --timeout=2 --lowest-speed-limit=200 --file-allocation=none",
        "-c -o {name} --auto-file-renaming=false --allow-overwrite=true",
        "",
    ),
)


def looked_at(case: Case, final: Path) -> tuple[str, int]:
    """What lies there, and its size."""
    if not final.is_file():
        return "nothing", 0
    size = final.stat().st_size
    if size > _LARGE:
        return "large", size
    content = final.read_bytes()
    if content == _SECRET:
        return "inner", size
    if content in case.acceptable or (case.name == "bomb" and content == case.content):
        return "right", size
    if any(right.startswith(content) for right in case.acceptable):
        return "partial" if content else "empty", size
    return "wrong", size


def measure(folder: Path) -> dict[str, object]:
    """The outcome of each tool on every row, and the tools that are not installed."""
    versions = {tool.name: tool.version for tool in TOOLS}
    with World(folder / "world", max_attempts=TIMES, retry_base=0.05, allow_networks=ALLOWED, **LIMITS) as world:
        bomb = next(case for case in CASES if case.name == "bomb").url(world.origin.url, "")
        urllib3.request("GET", bomb, preload_content=False).release_conn()  # made once, in more time than anybody waits
        world.start(*Pool, slots=10)
        with inner_server(folder / "inner") as inner:
            outcomes = [outcome for pool in Pool for outcome in downpour(world, pool, inner)]
            for tool in TOOLS:
                if versions[tool.name]:
                    outcomes += by_tool(tool, world.origin.url, inner, folder / tool.name)
    return {"versions": versions, "outcomes": [asdict(outcome) for outcome in outcomes]}


def by_tool(tool: Tool, origin: str, inner: int, folder: Path) -> list[Outcome]:
    def run(case: Case) -> Outcome:
        return tool.run(case, case.url(origin, f"{tool.name}-{case.name}", inner), folder / case.name)

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(run, CASES))


def downpour(world: World, pool: Pool, inner: int) -> list[Outcome]:
    world.submit(
        pool, [Job(case.url(world.origin.url, f"{pool}-{case.name}", inner), case.name) for case in CASES], batch=pool
    )
    outcomes = []
    for case, record in zip(CASES, world.finished(pool, seconds=180), strict=True):
        left = looked_at(case, world.settings.downloads / record.path)
        last = record.last
        kind = f": {last.kind}" if last and last.kind else ""
        outcomes.append(
            Outcome(case.row, f"Downpour {pool}", f"{record.state}{kind}", record.state is JobState.DONE, *left)
        )
    return outcomes


@contextmanager
def inner_server(folder: Path) -> Iterator[int]:
    """A server on another address of this machine; its port. What it serves must not come out by a redirect."""
    folder.mkdir()
    (folder / "secret").write_bytes(_SECRET)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.2", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


_OURS = tuple(f"Downpour {pool}" for pool in Pool)

_PAGE = """# Downloaders and a hostile server

Each row is one fault of the tests' origin (`tests/hostile_origin`). Each tool runs with limits on time and size,
follows redirects, and continues partial files. It runs until it reports success, three times at most; a job has three
attempts, too. A cell has the last exit code (0 is success) and the content of the final file name:

- **right**: the whole file, in one of its editions. **nothing**: no file of that name. **empty**: no bytes.
- **partial**: the beginning of the file. **wrong**: other bytes, for example two editions spliced.
- **large**: more than the megabyte that was allowed. **inner**: a page of an internal address, reached by a redirect.
  **escaped**: a file outside of the intended folder.

✗ marks a cell in which exit code and file disagree: success without a right file, or failure with a file under the
final name. Some tools keep partial files under that name to continue them; another program cannot tell them from whole
files. No tool was given a digest. In `login.bin` a page where one signs in comes instead of the file, which no tool can
tell; Downpour's record has the note `text/html where login.bin was asked for`.
{pools}
{table}

{totals}

Made by `python -m benchmarks hostile` on {date} with {versions}; raw outcomes: `docs/downloaders/hostile.json`.
A tool that is not installed is left out.{missing} The commands (in `disposition`, where the server may choose the name,
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
    rows = list(dict.fromkeys(outcome.row for outcome in outcomes))
    for row in rows:
        line = [f"`{row.removeprefix('/faults/')}`", *(_cell(cells[row, each]) for each in who)]
        lines.append(f"| {' | '.join(line)} |")
    totals = []
    for each in who:
        bad = [outcome.done for outcome in outcomes if outcome.who == each and not outcome.good]
        totals.append(f"- {each}: {len(bad)} of {len(rows)} rows marked; in {sum(bad)} of them it reported success")
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
