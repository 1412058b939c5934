"""Temp files that nobody will need again are removed, and no others."""

from __future__ import annotations

import os
from pathlib import Path

from ledger.jobs import Job, Message, Pool, Ref
from ledger.ledger import Ledger
from ledger.redis_client import connect
from ledger.settings import Settings
from worker.files import clean_up


def test_only_what_belongs_to_ended_jobs_or_is_strange_and_old_is_removed(settings: Settings, tmp_path: Path) -> None:
    ledger = Ledger(connect(settings), settings.key_prefix)
    ledger.submit([Message(Ref("b", n, n), Pool.THREADS, (Job(f"http://o/{n}", f"f{n}"),)) for n in range(2)])
    ledger.cancel(Ref("b", 0, 0))
    folder = settings.downloads / ".partial"
    folder.mkdir(parents=True)
    ended = ["b.0.1.part", "b.0.1.part.json", "b.0.12.part", "b.0.2.part.json.new"]
    kept = ["b.1.1.part", "b.1.1.part.json", "other.7.1.part", "b.0.txt"]
    for name in [*ended, *kept, "other.8.1.part"]:
        (folder / name).write_text("x")
    os.utime(folder / "other.8.1.part", (0, 0))
    assert clean_up(settings.downloads, ledger) == len(ended) + 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)
    assert clean_up(tmp_path / "nowhere", ledger) == 0
