"""Temp files that nobody will need again are removed, and no others."""

from __future__ import annotations

import os
from pathlib import Path

from download.tempfile import TempFiles
from ledger.jobs import Attempt, FailureKind, Job, JobState, Message, Pool, Ref
from ledger.leases import Identity, Leases
from ledger.ledger import Ledger
from ledger.redis_client import connect
from ledger.settings import Settings
from worker.files import clean_up


def test_only_what_belongs_to_ended_jobs_or_is_strange_and_old_is_removed(settings: Settings, tmp_path: Path) -> None:
    ledger = Ledger(connect(settings), settings.key_prefix)
    ledger.submit([Message(Ref("b", n, n), Pool.THREADS, (Job(f"http://o/{n}", f"f{n}"),)) for n in range(2)])
    ledger.submit([Message(Ref("b-C", 0, 0), Pool.THREADS, (Job("http://o/0", "f"),))])
    assert TempFiles(settings.downloads, "b-C.0", 1).mine.name == "b-~c.0.1.part"  # unlike those of a batch "b-c"
    for name in ("b", "b-C"):
        ledger.cancel(Ref(name, 0, 0))
    folder = settings.downloads / ".partial"
    folder.mkdir(parents=True)
    ended = ["b.0.1.part", "b.0.1.part.json", "b.0.12.part", "b.0.2.part.json.new", "b-~c.0.1.part"]
    kept = ["b.1.1.part", "b.1.1.part.json", "other.7.1.part", "b.0.txt"]
    for name in [*ended, *kept, "other.8.1.part"]:
        (folder / name).write_text("x")
    os.utime(folder / "other.8.1.part", (0, 0))
    assert clean_up(settings.downloads, ledger, keep=60) == len(ended) + 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)
    assert clean_up(tmp_path / "nowhere", ledger, keep=60) == 0


def test_what_a_retry_can_continue_stays_for_a_while(settings: Settings) -> None:
    kinds = (FailureKind.TRUNCATED, FailureKind.DEADLINE, FailureKind.STATUS, FailureKind.CHANGED)
    ledger = Ledger(connect(settings), settings.key_prefix)
    holder = Leases(connect(settings), settings.key_prefix, settings.lease).register(Identity("t@h", Pool.THREADS, 7))
    folder = settings.downloads / ".partial"
    folder.mkdir(parents=True)
    for number, kind in enumerate(kinds):
        ref = Ref("b", number, number)
        ledger.submit([Message(ref, Pool.THREADS, (Job(f"http://o/{number}", f"f{number}"),))])
        (claim,) = ledger.claim(ref, Pool.THREADS, holder)
        ledger.close(claim, JobState.FAILED, Attempt(None, 1.0, 2.0, kind=kind))
        for name in (f"b.{number}.1.part", f"b.{number}.1.part.json"):
            (folder / name).write_text("x")
    os.utime(folder / "b.0.1.part.json", (0, 0))  # written before the bytes that it vouches for
    clean_up(settings.downloads, ledger, keep=60)
    assert sorted({path.name.split(".")[1] for path in folder.iterdir()}) == ["0", "1"]
    assert len(list(folder.iterdir())) == 4
    os.utime(folder / "b.0.1.part", (0, 0))
    assert clean_up(settings.downloads, ledger, keep=60) == 2
    assert clean_up(settings.downloads, ledger, keep=0) == 2
