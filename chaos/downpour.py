"""Downpour under fire, as deployed: the Procfile's commands, the default settings, every answer through its own CLI."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from chaos.fleet import Member
from chaos.mix import Planned
from chaos.subject import Blow, Ended, Interruption, Subject
from ledger.dead_letters import DeadLetters
from ledger.jobs import FINAL_STATES, JobState, Pool
from ledger.leases import Leases
from ledger.ledger import Ledger
from ledger.records import STATE_LETTERS, Keys
from ledger.settings import Settings
from stack.stack import Stack
from worker.files import CLEAN_UP_EVERY

_HOLDER = re.compile(r"its holder (\w+) was not heard of")
_RESULTS_PATIENCE = 180.0  # seconds for one `producer results`
_MUST_BE_EMPTY = (
    *("running", "held", "cancel", "dead", "due", "hand", "sent", "resend", "suspects", "trial"),
    *("queue", "stale incarnations"),
)
_MAY_STAY = ("unacked", "dead-letters", "other", "jobs", "batches")


class Downpour(Subject):
    name = "downpour"
    about = "Downpour with its default settings"
    prefix = str(Settings.model_fields["key_prefix"].default)
    role = "producer"
    app = "worker.app"
    tidies_within = CLEAN_UP_EVERY + 5

    def __init__(self, stack: Stack, each: int) -> None:
        super().__init__(stack, each)
        self._ledger = Ledger(self.redis, self.prefix)
        self._keys = Keys(self.prefix)
        self._pids: dict[str, int] = {}  # by incarnation
        self._finished: set[str] = set()
        self._rows: dict[str, dict[str, Any]] = {}

    def members(self) -> list[Member]:
        return [*super().members(), Member(self.stack, self.stack.plan.command("sweep"))]

    def submission(self, batch: str, pool: Pool, manifest: Path) -> Any:
        words = ("-m", "producer", "submit", "-i", manifest, "--format", "jsonl", "--pool", pool, "--name", batch)
        return self.python("producer", *words)

    def begun(self, batch: str) -> bool:
        with contextlib.suppress(RedisError):
            found = self._ledger.batch(batch)
            return found is not None and found.known > 0
        return False

    def note(self) -> None:
        """Redis forgets the pid of a worker process when the sweep has taken its jobs over."""
        for incarnation, who in self.redis.hgetall(self._keys.incarnations).items():
            self._pids[str(incarnation)] = int(json.loads(who)["pid"])

    def holder(self, job: str) -> int | None:
        state, holder = self.redis.hmget(self._keys.job(job), ["s", "h"])
        self.note()
        return self._pids.get(str(holder)) if state == STATE_LETTERS[JobState.RUNNING] else None

    def dead_letters(self) -> int:
        return sum(DeadLetters(self.redis, self.prefix).counts().values())

    def finished(self, batches: Mapping[str, Sequence[Planned]]) -> set[str]:
        """Names of batches whose every job has its end, by the counters."""
        for name in batches.keys() - self._finished:
            batch = self._ledger.batch(name)
            if batch is not None and batch.finished:
                self._finished.add(name)
        return set(self._finished)

    def awaited(self, batches: Mapping[str, Sequence[Planned]]) -> int:
        open_ = {name: self._ledger.batch(name) for name in batches.keys() - self.finished(batches)}
        return sum(len(batches[name]) - (batch.count(*FINAL_STATES) if batch else 0) for name, batch in open_.items())

    def ended(self, batches: Mapping[str, Sequence[Planned]]) -> dict[str, Ended]:
        with ThreadPoolExecutor(2) as several:
            for rows in several.map(self._results, batches):
                self._rows |= rows
        return {job.id: _ended(self._rows.get(job.id)) for jobs in batches.values() for job in jobs}

    def _results(self, batch: str) -> dict[str, dict[str, Any]]:
        command = self.python("results", "-m", "producer", "results", batch, "--format", "jsonl")
        said = subprocess.run(  # noqa: S603 - our own command
            command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            capture_output=True,
            timeout=_RESULTS_PATIENCE,
            check=False,  # its exit code says how the jobs ended
        )
        rows = [json.loads(line) for line in said.stdout.splitlines()]
        return {row["id"]: row for row in rows}

    def interruptions(self, blows: Sequence[Blow]) -> list[Interruption]:
        found = []
        for row in self._rows.values():
            attempts = row["attempt_list"]
            for at, attempt in enumerate(attempts):
                holder = _HOLDER.search(attempt["reason"] or "")
                if holder is None:
                    continue
                lost_at = _epoch(attempt["finished"])
                following = attempts[at + 1] if at + 1 < len(attempts) else None
                blow = self._blow(self._pids.get(holder[1]), lost_at, blows)
                struck = blows[blow].at if blow >= 0 else lost_at
                again = None if following is None else _epoch(following["started"]) - struck
                found.append(Interruption(row["id"], Pool(row["pool"]), blow, lost_at - struck, again))
        return found

    @staticmethod
    def _blow(pid: int | None, lost_at: float, blows: Sequence[Blow]) -> int:
        """The last blow to that process before its jobs were taken over; -1: none that we know of."""
        hits = [n for n, blow in enumerate(blows) if pid in blow.pids and blow.at <= lost_at]
        return max(hits, key=lambda n: blows[n].at, default=-1)

    def leftovers(self) -> tuple[dict[str, int], tuple[str, ...]]:
        counts: dict[str, int] = dict.fromkeys((*_MUST_BE_EMPTY, *_MAY_STAY), 0)
        kinds = {"hash": self.redis.hlen, "set": self.redis.scard, "zset": self.redis.zcard, "list": self.redis.llen}
        for key in self.redis.scan_iter(match=f"{self.prefix}*", count=5000):
            what = self._what(str(key).removeprefix(self.prefix))
            if what in ("jobs", "batches", "other"):
                counts[what] += 1
            elif what in counts:
                counts[what] += int(kinds[str(self.redis.type(key))](key))
        known = Leases(self.redis, self.prefix, 0.0).known()
        counts["stale incarnations"] = sum(not lease.alive for lease in known)
        return counts, tuple(what for what in _MUST_BE_EMPTY if counts[what])

    @staticmethod
    def _what(key: str) -> str:
        first, _, rest = key.partition(":")
        if first == "batch":
            return "running" if rest.endswith(":running") else "batches"
        if key in {pool.queue for pool in Pool}:
            return "queue"
        if first == "job":
            return "jobs"
        return first if first in (*_MUST_BE_EMPTY, "unacked", "dead-letters") else "other"


def _ended(row: Mapping[str, Any] | None) -> Ended:
    if row is None:
        return Ended(None)
    attempts = row["attempt_list"]
    return Ended(
        state=row["outcome"] if row["outcome"] in ("done", "failed", "cancelled") else None,
        successes=sum(each["kind"] is None and each["reason"] is None for each in attempts),
        starts=tuple(_epoch(each["started"]) for each in attempts),
        lost=sum(each["kind"] in ("lost", "poison") for each in attempts),
        handed_back=sum(each["kind"] is None and each["reason"] is not None for each in attempts),
        kind=row["kind"],
    )


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
