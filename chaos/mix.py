"""The load: which files, how large, how slow. It follows from the seed, the batch's name and nothing else."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ledger.jobs import Pool, job_id
from origin.content import Entity

KIB = 1024
PACED = 0.03  # of the jobs: 0.2 to 1.5 s
LONG = 0.005  # of the jobs: 5 to 8 s
PARTIAL = ".partial"  # the folder of temp files
POISON = "poison"  # the name of batches whose jobs kill the process that runs them
_NEVER = 60.0  # seconds: longer than such a job is let run
DESCRIPTION = "96.5 % quick files of 1–64 KiB, 3 % paced over 0.2–1.5 s, 0.5 % paced over 5–8 s; each with its sha256"


@dataclass(frozen=True)
class Planned:
    """A job before it is submitted."""

    id: str
    pool: Pool
    filename: str
    size: int  # bytes
    seconds: float  # over which the origin sends it; 0: at once

    @property
    def target(self) -> str:
        """The path and query that the origin sees."""
        folder = f"paced/{self.seconds}" if self.seconds else "files"
        return f"/{folder}/{self.filename}?size={self.size}"

    @property
    def poison(self) -> bool:
        return self.id.startswith(f"{POISON}-")

    @cached_property
    def sha256(self) -> str:
        return Entity(self.filename, self.size).sha256().hex()


def plan_batch(seed: int, batch: str, pool: Pool, count: int) -> list[Planned]:
    """A batch's jobs, in order."""
    dice = random.Random(f"{seed}/{batch}/{pool}")
    return [_planned(dice, batch, pool, ordinal) for ordinal in range(count)]


def _planned(dice: random.Random, batch: str, pool: Pool, ordinal: int) -> Planned:
    drawn, size, seconds = dice.random(), int(KIB * 64 ** dice.random()), 0.0  # as many of 1–8 KiB as of 8–64 KiB
    if batch.startswith(f"{POISON}-"):
        seconds = _NEVER
    elif drawn < LONG:
        size, seconds = dice.randrange(64 * KIB, 256 * KIB), round(dice.uniform(5, 8), 2)
    elif drawn < LONG + PACED:
        size, seconds = dice.randrange(8 * KIB, 64 * KIB), round(dice.uniform(0.2, 1.5), 2)
    return Planned(job_id(batch, ordinal), pool, f"{batch}-{ordinal:05d}.bin", size, seconds)


def write_manifest(file: Path, origin_url: str, jobs: list[Planned]) -> None:
    """JSON lines, as ``producer submit -i`` takes them."""
    with file.open("w", encoding="utf-8") as lines:
        for job in jobs:
            fields = {"url": origin_url + job.target, "filename": job.filename, "sha256": job.sha256, "size": job.size}
            lines.write(json.dumps(fields) + "\n")
