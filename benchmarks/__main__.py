"""python -m benchmarks [small chunks large slow enqueue | hostile] [--rounds 5] [--out docs/benchmarks]
python -m benchmarks table docs/benchmarks/*.json > docs/benchmarks.md"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import enqueue, hostile, slow
from benchmarks.bare import Bare
from benchmarks.contenders import Downpour, aria2, curls
from benchmarks.origins import Nginx, Origin, Own, deployed
from benchmarks.page import TARGETS, page
from benchmarks.queues import PYTHON, QUEUES, Queue
from benchmarks.rounds import Contender, Section, conditions, save
from ledger.jobs import Pool
from tests.world import World

ALL = ("small", "chunks", "large", "slow", "enqueue")
_NATURAL = {Pool.PREFORK: 2, Pool.THREADS: 8, Pool.GEVENT: 32}  # slots, for many small files
_QUIET: dict[str, Any] = {"lease": 10.0, "message_grace": 60.0, "grace": 5.0}  # nothing of this is what is measured


def main() -> None:
    if sys.argv[1:2] == ["table"]:
        print(page([Path(name) for name in sys.argv[2:]]), end="")
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[[], *ALL, "hostile"], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=5000, help="small files per round")
    parser.add_argument("--slots", type=int, default=2, help="of each worker, for chunks and large files")
    parser.add_argument("--quiet", type=int, default=4, help="wait while more processes than this want a CPU")
    parser.add_argument("--folder", type=Path, help="where files are served from and written to, e.g. /dev/shm")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    if options.what == ["hostile"]:
        # Not how fast, but how well: it measures no time, so the machine may do other work.
        with tempfile.TemporaryDirectory(prefix="downpour-hostile-") as name:
            print(hostile.save(hostile.measure(Path(name)), options.out.parent))
        return
    before = conditions()
    with (
        tempfile.TemporaryDirectory(prefix="downpour-bench-", dir=options.folder) as name,
        Nginx(Path(name) / "nginx") if shutil.which("nginx") else Own() as origin,
    ):
        if isinstance(origin, Own):
            print("No nginx (Debian: nginx-light): our own origin serves, and limits faster tools.\n")
        for what in options.what or ALL:
            print(_run(what, Path(name) / what, origin, options, before), flush=True)


def _run(what: str, folder: Path, origin: Origin, options: argparse.Namespace, before: dict[str, object]) -> str:
    folder.mkdir()
    if what in ("slow", "enqueue"):
        rows = slow.measure_all(folder, origin) if what == "slow" else enqueue.measure_all(folder)
        save(options.out, what, {**before, "rows": rows})
        return slow.table(rows) if what == "slow" else enqueue.table(rows)
    probes = folder / "lateness"
    probes.mkdir()
    more = {**_QUIET, "lateness": probes} if what == "large" else _QUIET
    with deployed() as valkey, World(folder / "world", valkey=valkey, **more) as world, ExitStack() as rivals:
        world.start()
        for pool in Pool:
            world.worker(pool, slots=_NATURAL[pool] if what == "small" else options.slots).wait_until_ready()
        section, count, size, per = _section(what, options.files)
        urls = origin.fill(what, count, size)
        contenders: list[Contender] = [Downpour(world, pool, per) for pool in Pool]
        for contender in contenders:
            contender.bring(urls[: max(2, len(urls) // 10)])  # connections, caches
        if shutil.which("curl"):
            contenders += curls(folder, 2 if what == "large" else 32)
        if shutil.which("aria2c") and what != "large":
            contenders.append(aria2(folder))
        if what == "chunks":
            contenders.append(Bare(folder))
        if what == "small":
            found = [name for name in QUEUES if PYTHON.exists() or name.startswith("celery")]
            queues = [Queue(name, folder, valkey, number) for number, name in enumerate(found, 1)]
            contenders += [rivals.enter_context(queue.started()) for queue in queues]
        section.run(contenders, urls, options.rounds, options.quiet)
        save(options.out, what, {**before, **asdict(section)})
        return section.table(TARGETS.get(what, {}))


def _section(what: str, files: int) -> tuple[Section, int, int, int]:
    """And how many files of how many bytes, and how many of them per message."""
    if what == "large":
        return Section("100 MiB files, one per message", "MiB", 800), 8, 100 << 20, 1
    if what == "chunks":
        return Section("1 KiB files, 250 per message", "file", files), files, 1024, 250
    return Section("1 KiB files, one per message", "file", 4 * files // 5), 4 * files // 5, 1024, 1


if __name__ == "__main__":
    main()
