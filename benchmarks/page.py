"""The page ``docs/benchmarks.md``: figures from the JSON files, and what is to be said about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import enqueue, slow
from benchmarks.rounds import Cpu, Late, Speed, Target, load

HASHING, PLAIN = "curl -Z --parallel-max {} then sha256sum", "curl -Z --parallel-max {}"
_CPU = Cpu(1.3, PLAIN.format(2))
_ONE = (Speed(1.1, "dramatiq"),)
TARGETS: Mapping[str, Mapping[str, Sequence[Target]]] = {
    "chunks": {
        f"Downpour {pool}, 250 per message": (Speed(least, HASHING.format(32)), Speed(1.0, "aria2c -j16"))
        for pool, least in (("prefork", 0.45), ("threads", 0.25), ("gevent", 0.25))
    },
    "small": {
        "Downpour prefork, 1 per message": (Speed(2.2, "dramatiq"), Speed(1.8, "taskiq")),
        "Downpour threads, 1 per message": _ONE,
        "Downpour gevent, 1 per message": _ONE,
    },
    "large": {
        "Downpour prefork, 1 per message": (Speed(1.2, PLAIN.format(2)), _CPU),
        "Downpour threads, 1 per message": (Speed(1.1, PLAIN.format(2)), _CPU),
        "Downpour gevent, 1 per message": (Speed(1.0, PLAIN.format(2)), Late(0.02)),
    },
}

_HEAD = """# Benchmarks

This page is made by `python -m benchmarks table docs/benchmarks/*.json`. `make bench` measures the figures again. It needs
`nginx-light`, `curl` and `aria2` (Debian's names); without nginx the demo's origin serves, and limits the other tools. The
other task queues have an environment of their own, `requirements/bench.txt`.

A worker of each pool downloads the same files from the same nginx as `curl -Z` and `aria2c`. Each contender has a turn in
each round, in alternating order; a ratio is the median of the rounds' own ratios. Each job is proved to be done, to have
run once, and to have its file.

A worker is stopped while its queue is filled. Time counts from SIGCONT until the last record is closed, with the work of
Redis; of another tool, from its start to its end. CPU is that of the worker
with all its processes, and of Redis; of another tool, of all its processes. The CPU of nginx is not counted.

Three warnings:

- ext4 without a journal skips inodes that were freed in the last minute, and files created then cost more. So small files
  stay until the end of a run; `--folder /dev/shm`, as here, removes the disk from the measurement.
- Each table states the load before it began. Above 1, other programs used the machine: trust CPU per file more than ratios.
- Not all tables are of one day: compare within a table.
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
curl keeps no record. A job here has a record, a claim, an attempt, a digest, a lease, a checked address and strictly read
headers. The last row is libcurl in two Python processes with a digest and a named file: the bound for Python on this
machine.
""",
    "small": """\
What `producer submit` sends for short manifests. A worker process whose jobs were short takes up to 63 more messages at
once ([claims](claims.md)). The other queues do a GET, SHA-256, write and rename per job, without records, retries or checks
(`benchmarks/queue_workers.py`), each at its natural best on two cores; their clock stops with the last name. Slots:
prefork 2, threads 8, gevent 32, as for Celery.
""",
    "large": """\
Most of the CPU is the kernel's and SHA-256's. A download receives into a buffer that it keeps, and writes a MiB at a time,
where curl writes 16 KiB. Debian's `sha256sum` is slower than OpenSSL's SHA-256, and takes most of the time of its row.
Of the 1,238 µs per MiB, SHA-256 takes 498 (`hashlib`); the other 740 are fewer than curl's 897, which hashes nothing.
The ratio depends on congestion control, over loopback as well. This machine has BBR. With CUBIC curl did 1,909 MiB/s at
522 µs, and Downpour 1,742 at 950 (0.91 ×): two cores have no room for the digest beside.
""",
    "slow": """\
The wall time is the time to begin a thousand messages, plus the 20 s that the server takes. The memory is the worker's
growth since it was idle; it includes what the worker loads for its first job.
""",
    "enqueue": "",
}
_TAIL = """## How jobs that share a message differ

- `DOWNPOUR_CHUNK_PARALLEL` (16) downloads run at once in one thread, on libcurl. At most 64 files are confirmed, published
  and closed together, in two round trips. Under gevent the loop has a native thread, so the hub stays free.
- A transient failure ends the job's part in the message: the job waits in the ledger and returns in a message of its own.
- Some jobs take the single path after the others: those with headers, mirrors or a name from the server, those tried
  before, and existing files. So do answers that libcurl does not report clearly. With limits per host, all jobs do.
- The jobs of a message share one slot: 250 large files in one message keep one process busy and leave the others idle.
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
