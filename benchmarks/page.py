"""The page ``docs/benchmarks.md``: figures from the JSON files, and what is to be said about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import enqueue, slow
from benchmarks.rounds import Cpu, Late, Speed, Target, load

HASHING, PLAIN = "curl -Z --parallel-max {} then sha256sum", "curl -Z --parallel-max {}"
_FAST = (Speed(1.2, PLAIN.format(2)), Cpu(1.05, PLAIN.format(2)))
_GREEN = (Speed(1.0, PLAIN.format(2)), Cpu(1.05, PLAIN.format(2)), Late(0.02))
_MANY = (Speed(1.2, HASHING.format(32)), Speed(3.0, "aria2c -j16"))
_ONE = (Speed(1000),)
TARGETS: Mapping[str, Mapping[str, Sequence[Target]]] = {
    "chunks": {f"Downpour {pool}, 250 per message": _MANY for pool in ("prefork", "threads")},
    "small": {f"Downpour {pool}, 1 per message": _ONE for pool in ("prefork", "threads")},
    "large": {
        "Downpour prefork, 1 per message": _FAST,
        "Downpour threads, 1 per message": _FAST,
        "Downpour gevent, 1 per message": _GREEN,
    },
}

_HEAD = """# Benchmarks

`make bench` measures a worker of each pool beside `curl -Z` and `aria2c`, which bring the same files from the same nginx
(Debian: `nginx-light`, `curl`, `aria2`; without nginx our own origin serves, and the rivals are then limited by it).
`make bench ARGS="chunks --rounds 7 --files 5000 --folder /dev/shm"` selects. Everybody takes a turn in each round, in
alternating order; a ratio is the median of the rounds' own ratios. Each job is proved to be done, to have run once, and
to have its file. This page is made of the raw figures: `python -m benchmarks table docs/benchmarks/*.json`.

What is counted: from the first message sent until the last record is closed, Redis' work included. CPU is that of the
worker (all its processes) and of Redis; of a tool, all its processes. nginx is nobody's.

Beware of the file system: ext4 without a journal passes over every inode that was freed within the last minute. Files
that are created after others were deleted cost up to half a millisecond each: the same `curl` brought 15,000 or 700 files
a second. So small files stay until the end of a run, and `--folder /dev/shm` takes the disk out of the question.

Each table states the load before it began. **Where that is above 1, others used the machine:** then a worker, whose
processes hand work to each other, loses more of its files per second than curl does, and CPU is dearer for all by up to
a half. Trust CPU per file, and ratios only of a quiet run. Not all tables are of one day: compare within a table.
"""

_ORDER = ("chunks", "small", "large", "slow", "enqueue")
_TITLES = {
    "chunks": "Many small files: 1 KiB, 250 per message",
    "small": "Small files, one per message",
    "large": "Large files: 100 MiB, one per message",
    "slow": "1,000 slow downloads in flight, one worker",
    "enqueue": "Submitting, ledger first",
}
_WORDS = {
    "chunks": """\
curl keeps no record of anything; a job here has a record, a claim, an attempt, a digest, a lease that proves who may
publish, a judged address and strictly read headers. The last row says what two Python processes bring with libcurl, a
digest and a file with a name, and *nothing* of all that: 1.4 to 1.5 × curl with sha256sum. So 1.2 × would leave about a
sixth of its time to the ledger, Redis and every check together; Redis' part alone takes about as much CPU as that whole
row. On two processors, which the server and Redis share, that target is out of reach for Python with a ledger.

Where a file's CPU goes in the worker (samples of one process on tmpfs): libcurl, its callbacks and sockets 35 %, the file
and its stamp 19 %, making the transfer 13 %, closing the record 10 %, reading and judging the answer 9 %, claiming 5 %,
confirming 5 %. Redis takes a fifth of what the worker takes. In threads and gevent the chunks of a process take the
interpreter from each other.
""",
    "small": """\
Where a message's CPU goes (prefork, a calmer moment, 2.1 ms and Redis' 0.3 ms): Celery's main process 0.6 ms, the child
1.4 ms, of it the job itself about 0.8 (a quarter for three calls to Redis, a quarter for HTTP through urllib3, a sixth for
the file's temp, stamp and link). kombu's books of unacknowledged messages and one PUBLISH per event took another
millisecond; both are gone (`worker/broker.py`, `worker/batches.py`).

`producer submit --per-message auto` begins with one job per message and lets messages grow to 250 jobs, never beyond a
thirty-second of what came before: a short manifest stays parallel, a long one pays for few messages.
""",
    "large": """\
Nearly all of the CPU is the kernel's (writing 0.7 ms per MiB, receiving 0.25) and SHA-256's (0.6 ms per MiB). A download
receives into memory of its own that it keeps, writes a MiB at a time where curl writes 16 KiB, and so pays for its digest
with what curl pays for small writes. Under gevent a thread takes over for a moment and hands back. Debian's `sha256sum` hashes at a fifth of OpenSSL's
speed and takes three quarters of its row.
""",
    "slow": """\
The wall is the time to begin a thousand messages at the rate of small files one per message, plus the 20 s that the
server takes: the same version took 1.16 × the ideal on a faster day and 1.78 × on a slow one. The memory is the worker's
growth since it was idle, and includes all that it loads or buffers for its first job.
""",
    "enqueue": "",
}
_TAIL = """## What a chunk does otherwise than single jobs

- `DOWNPOUR_CHUNK_PARALLEL` (16) downloads at once in one thread, on libcurl; at most 64 files are confirmed, published and
  closed together, in two round trips. Under gevent the loop has a thread of the operating system, so the hub stays free.
- A failure that may pass ends the job's part in the chunk: it waits in the ledger and comes back in a message of its own.
- Jobs with headers, mirrors or a name from the server, jobs tried before, files that are there already, and answers
  that libcurl does not tell clearly take the single path after the others. With limits per host, all do.
- A message's jobs belong to one slot: 250 large files in one message keep one process busy and leave the others idle.
"""


def page(files: Iterable[Path]) -> str:
    """
    Args:
        files: named after what they measure, ``chunks.json``, or after it and the place, ``chunks-tmpfs.json``.
    """
    by_name: dict[str, list[Path]] = {name: [] for name in _ORDER}
    for file in sorted(files):
        by_name.setdefault(file.stem.partition("-")[0], []).append(file)
    parts = [_HEAD]
    for name in _ORDER:
        if by_name[name]:
            parts.append(f"## {_TITLES[name]}\n")
            parts += [_figures(name, file) for file in by_name[name]]
            parts += [_WORDS[name]] if _WORDS[name] else []
    return "\n".join([*parts, _TAIL])


def _figures(name: str, file: Path) -> str:
    content: dict[str, Any] = json.loads(file.read_text())
    if name in ("slow", "enqueue"):
        table = (slow if name == "slow" else enqueue).table(content["rows"])
    else:
        table = load(content).table(TARGETS.get(name, {}))
    versions = ", ".join(text if tool in text else f"{tool} {text}" for tool, text in content["versions"].items())
    conditions = f"`{content['command']}` on {content['machine']}, {content['system']}, Python {content['python']}, "
    return f"{table}\n{conditions}load before {content['load_before']}; {versions}.\n"
