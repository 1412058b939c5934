"""python -m benchmarks [small chunks large slow | hostile] [--rounds 5] [--out docs/benchmarks]"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import hostile, hostile_page, slow
from benchmarks.contenders import Aria2, Curl, Downpour
from benchmarks.deployed import deployed
from benchmarks.origins import Nginx, Origin, Own
from benchmarks.rounds import Contender, Section, conditions, save
from ledger.jobs import Pool
from tests.world import World

ALL = ("small", "chunks", "large", "slow")
_QUIET: dict[str, Any] = {"lease": 10.0, "message_grace": 60.0, "grace": 5.0}  # nothing of this is what is measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[[], *ALL, "hostile"], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=5000, help="small files per round")
    parser.add_argument("--slots", type=int, default=2, help="of each worker, for small and large files")
    parser.add_argument("--quiet", type=int, default=4, help="wait while more processes than this want a CPU")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    if options.what == ["hostile"]:
        _hostile(options.out.parent)
        return
    before = conditions()
    folder = Path(tempfile.mkdtemp(prefix="downpour-bench-"))
    try:
        with Nginx(folder / "nginx") if shutil.which("nginx") else Own() as origin:
            if isinstance(origin, Own):
                print("No nginx (Debian: nginx-light): our own origin serves, and limits whoever is faster.\n")
            for what in options.what or ALL:
                print(_run(what, folder / what, origin, options, before), flush=True)
    finally:
        shutil.rmtree(folder)


def _hostile(out: Path) -> None:
    """Not how fast, but how well; nobody is measured, so it need not be alone on the machine."""
    folder = Path(tempfile.mkdtemp(prefix="downpour-hostile-"))
    try:
        print(hostile_page.save(hostile.measure(folder), out))
    finally:
        shutil.rmtree(folder)


def _run(what: str, folder: Path, origin: Origin, options: argparse.Namespace, before: dict[str, object]) -> str:
    folder.mkdir()
    if what == "slow":
        rows = [slow.measure(folder / pool, origin, pool, 1000) for pool in (Pool.GEVENT, Pool.THREADS)]
        slow.save(options.out, rows, before)
        return slow.table(rows)
    with deployed() as valkey, World(folder / "world", valkey=valkey, **_QUIET) as world:
        world.start(*Pool, slots=options.slots)
        if what == "large":
            section, count, size, per = Section("100 MiB files", "MiB", 400, targets=_large()), 4, 100 << 20, 1
        elif what == "chunks":
            section = Section("1 KiB files, 250 per message", "file", options.files, targets=_small(250))
            count, size, per = options.files, 1024, 250
        else:
            section = Section("1 KiB files, one per message", "file", options.files // 5)
            count, size, per = options.files // 5, 1024, 1
        urls = origin.fill(what, count, size)
        contenders: list[Contender] = [Downpour(world, pool, per) for pool in Pool]
        for contender in contenders:
            contender.bring(urls[: max(2, len(urls) // 10)])  # connections, caches
        if shutil.which("curl"):
            parallel = 2 if what == "large" else 32
            contenders += [Curl(folder, parallel), Curl(folder, parallel, hashing=False)]
        if shutil.which("aria2c") and what != "large":
            contenders.append(Aria2(folder))
        section.run(contenders, urls, options.rounds, options.quiet)
        save(options.out, what, section, before)
        return section.table()


def _small(per: int) -> dict[str, str]:
    wish = {Pool.PREFORK: "≥ 1.2 × curl, ≥ 3 × aria2c", Pool.THREADS: "≥ 1.2 × curl", Pool.GEVENT: "as good as it gets"}
    return {f"Downpour {pool}, {per} per message": text for pool, text in wish.items()}


def _large() -> dict[str, str]:
    wish = {Pool.PREFORK: "≥ 1.2 × curl", Pool.THREADS: "≥ 1.2 × curl", Pool.GEVENT: "≥ 1.0 × curl"}
    return {f"Downpour {pool}, 1 per message": f"{text}, CPU ≤ 1.05 × curl" for pool, text in wish.items()}


if __name__ == "__main__":
    main()
