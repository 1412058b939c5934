"""A stock Celery app under the same fire. Its books are the marks that its task leaves in files, one per process.

Those files survive everything that is killed here, so the comparison is about messages, not about bookkeeping.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos.mix import Planned
from chaos.schedule import STRANGE
from chaos.subject import Blow, Ended, Interruption, Subject
from ledger.jobs import Pool
from stack.processes import Command
from stack.stack import Stack

ABOUT = {
    "default": "a stock Celery app, every setting at its default (early ack)",
    "late": "a stock Celery app with acks_late and reject_on_worker_lost",
    "tuned": "a stock Celery app, late ack, prefetch 1, visibility timeout 20 s, restored every second",
}


@dataclass(frozen=True, slots=True)
class Mark:
    ended: bool
    at: float
    job: str
    pid: int


class Stock(Subject):
    prefix = ""
    role = "admin"
    app = "chaos.stock_app"
    spared = STRANGE

    def __init__(self, stack: Stack, each: int, profile: str) -> None:
        super().__init__(stack, each)
        self.name, self.about = f"stock {profile}", ABOUT[profile]
        self._folder = stack.plan.private / "marks"
        self._folder.mkdir(exist_ok=True)
        admin = stack.plan.env("admin")
        as_admin = {name: admin[name] for name in ("DOWNPOUR_REDIS_URL", "DOWNPOUR_REDIS_PASSWORD_FILE")}
        self.variables = {"CHAOS_PROFILE": profile, "CHAOS_MARKS": str(self._folder), **as_admin}
        (stack.plan.downloads / ".partial").mkdir(exist_ok=True)
        self._reading = threading.Lock()
        self._read: dict[Path, int] = {}  # bytes
        self._marks: list[Mark] = []
        self._pools: dict[str, Pool] = {}

    def submission(self, batch: str, pool: Pool, manifest: Path) -> Command:
        command = self.python("producer", "-m", "chaos.stock_app", manifest, pool, batch)
        return dataclasses.replace(command, env={**command.env, **self.variables})

    def begun(self, batch: str) -> bool:
        return any(self.stack.plan.private.rglob(f"{batch}.begun"))

    def note(self) -> None:
        """Read the new marks: every line once, from any thread."""
        with self._reading:
            for file in self._folder.iterdir():
                self._marks += self._new(file)

    def _new(self, file: Path) -> list[Mark]:
        with file.open("rb") as lines:
            lines.seek(self._read.get(file, 0))
            text = lines.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read[file] = self._read.get(file, 0) + len(whole)
        parts = [line.split(" ", 2) for line in whole.decode().splitlines()]
        return [Mark(letter == "E", float(at), job, int(file.name)) for letter, at, job in parts]

    def finished(self, batches: Mapping[str, Sequence[Planned]]) -> set[str]:
        ends = {mark.job for mark in tuple(self._marks) if mark.ended}
        return {name for name, jobs in batches.items() if all(job.id in ends for job in jobs)}

    def awaited(self, batches: Mapping[str, Sequence[Planned]]) -> int:
        """None is awaited any more when no message is left anywhere and no worker runs a job."""
        ends = {mark.job for mark in tuple(self._marks) if mark.ended}
        missing = {job.id for jobs in batches.values() for job in jobs} - ends
        messages = sum(self.queued(pool) for pool in Pool) + int(self.redis.hlen("unacked"))
        running = any(
            mark.job in missing and not mark.ended and psutil.pid_exists(mark.pid) for mark in self._marks[-20_000:]
        )
        return len(missing) if messages or running else 0

    def ended(self, batches: Mapping[str, Sequence[Planned]]) -> dict[str, Ended]:
        self.note()
        starts, ends = defaultdict[str, list[float]](list), defaultdict[str, int](int)
        for mark in self._marks:
            if mark.ended:
                ends[mark.job] += 1
            else:
                starts[mark.job].append(mark.at)
        self._pools = {job.id: job.pool for jobs in batches.values() for job in jobs}
        return {
            id_: Ended("done" if ends[id_] else None, ends[id_], tuple(sorted(begun)), lost=len(begun) - ends[id_])
            for id_ in self._pools
            for begun in [starts[id_]]
        }

    def interruptions(self, blows: Sequence[Blow]) -> list[Interruption]:
        """Jobs that a hit process had begun and not ended. A frozen process goes on; its jobs are not interrupted."""
        starts, open_ = defaultdict[str, list[float]](list), dict[tuple[int, str], float]()
        for mark in sorted(self._marks, key=lambda mark: mark.at):
            if mark.ended:
                open_.pop((mark.pid, mark.job), None)
            else:
                open_[mark.pid, mark.job] = mark.at
                starts[mark.job].append(mark.at)
        found = []
        for (pid, job), begun in open_.items():
            hits = [n for n, blow in enumerate(blows) if pid in blow.pids and blow.at >= begun]
            blow = min(hits, key=lambda n: blows[n].at, default=-1)
            struck = blows[blow].at if blow >= 0 else begun
            again = next((at - struck for at in starts[job] if at > struck), None)
            found.append(Interruption(job, self._pools[job], blow, None, again))
        return found

    def leftovers(self) -> tuple[dict[str, int], tuple[str, ...]]:
        counts = {"queue": sum(self.queued(pool) for pool in Pool), "unacked": int(self.redis.hlen("unacked"))}
        counts["unacked index"] = int(self.redis.zcard("unacked_index"))
        return counts, tuple(what for what, count in counts.items() if count)
