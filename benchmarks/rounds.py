"""Interleaved rounds: each contender has a turn in each, so that other load on the machine hits all alike."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contenders import Downpour, Rival, Took

Contender = Downpour | Rival


@dataclass
class Section:
    """One question. Ratios are of rounds, not of medians: each round compares neighbours in time."""

    title: str
    unit: str  # what a rate counts, per second
    amount: float  # of units, per round
    rounds: list[dict[str, Took]] = field(default_factory=list)

    def run(self, contenders: Sequence[Contender], urls: Sequence[str], rounds: int, quiet: int) -> None:
        """
        Args:
            quiet: before each measurement wait, a minute at the most, until no more processes than this want a CPU.
        """
        for number in range(rounds):
            order = contenders if number % 2 == 0 else list(reversed(contenders))
            took = {}
            for contender in order:
                wait_until_quiet(quiet)
                took[contender.name] = contender.bring(urls)
            self.rounds.append(took)
            print(f"{self.title}: round {number + 1} of {rounds}", file=sys.stderr)

    def rates(self, name: str) -> list[float]:
        return [self.amount / each[name].seconds for each in self.rounds]

    def ratio(self, name: str, other: str) -> float:
        return statistics.median(each[other].seconds / each[name].seconds for each in self.rounds)

    def cpu(self, name: str) -> float:
        """Seconds per unit."""
        return statistics.median(each[name].cpu for each in self.rounds) / self.amount

    def late(self, name: str) -> float | None:
        """Seconds, of the median round; None: not measured in each."""
        found = [late for each in self.rounds if (late := each[name].late) is not None]
        return statistics.median(found) if len(found) == len(self.rounds) else None

    def table(self, targets: Mapping[str, Sequence[Target]]) -> str:
        """
        Args:
            targets: by contender, what it should be beside others.
        """
        names = list(self.rounds[0])
        rivals = [name for name in names if not name.startswith("Downpour")]
        head = ["", f"{self.unit}/s, median (range)", *(f"× {name}" for name in rivals)]
        lates = {name: f"{late * 1000:.1f} ms" for name in names if (late := self.late(name)) is not None}
        head += [f"CPU µs per {self.unit}", "of it Redis", *(["late, p99"] if lates else []), "target"]
        rows = [head]
        for name in names:
            redis = statistics.median(each[name].redis_cpu for each in self.rounds) / self.amount * 1e6
            rows.append(
                [
                    name,
                    spread(self.rates(name)),
                    *(f"{self.ratio(name, rival):.2f}" for rival in rivals),
                    f"{self.cpu(name) * 1e6 + redis:,.0f}",
                    f"{redis:,.0f}" if redis else "",
                    *([lates.get(name, "")] if lates else []),
                    "; ".join(target.judged(self, name) for target in targets.get(name, ())),
                ]
            )
        return markdown(rows)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; its head is the first row."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@dataclass(frozen=True)
class Speed:
    """At least so many times as fast as a rival."""

    least: float
    rival: str

    def judged(self, section: Section, name: str) -> str:
        """What a contender should be, and whether it is."""
        wish = f"≥ {self.least:g} × {self.rival}"
        if self.rival not in section.rounds[0]:
            return f"{wish}: not measured"
        return verdict(wish, section.ratio(name, self.rival) >= self.least)


@dataclass(frozen=True)
class Cpu:
    """At most so many times the CPU of a rival, Redis' share included."""

    most: float
    rival: str

    def judged(self, section: Section, name: str) -> str:
        wish = f"CPU ≤ {self.most:g} × {self.rival}"
        if self.rival not in section.rounds[0]:
            return f"{wish}: not measured"
        ratio = statistics.median(
            (each[name].cpu + each[name].redis_cpu) / each[self.rival].cpu for each in section.rounds
        )
        return f"{verdict(wish, ratio <= self.most)} ({ratio:.2f})"


@dataclass(frozen=True)
class Late:
    """At most so many seconds late at the 99th percentile."""

    most: float

    def judged(self, section: Section, name: str) -> str:
        wish, late = f"late ≤ {self.most * 1000:g} ms", section.late(name)
        return f"{wish}: not measured" if late is None else verdict(wish, late <= self.most)


Target = Speed | Cpu | Late


def verdict(wish: str, met: bool) -> str:
    return f"{wish}: {'met' if met else '**missed**'}"


def wait_until_quiet(most: int, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) > most:
        time.sleep(0.02)


def conditions() -> dict[str, object]:
    """Machine, versions and command: without them a number is an anecdote."""
    load = os.getloadavg()[0]
    return {
        "command": re.sub(r" --out \S+", "", " ".join(["python -m benchmarks", *sys.argv[1:]])),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {psutil.virtual_memory().total >> 30} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(load, 1),
        "versions": {name: version(name) for name in ("celery", "redis", "hiredis", "gevent", "urllib3", "pycurl")}
        | {tool: _first_line(tool) for tool in ("curl", "aria2c", "nginx")},
    }


def _first_line(tool: str) -> str:
    try:
        option = "-v" if tool == "nginx" else "--version"
        done = subprocess.run([tool, option], capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    return " ".join((done.stdout or done.stderr).splitlines()[0].split()[:3])


def save(folder: Path, name: str, content: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def load(content: dict[str, Any]) -> Section:
    """The section among what was saved."""
    rounds = [{who: Took(**took) for who, took in each.items()} for each in content["rounds"]]
    return Section(content["title"], content["unit"], content["amount"], rounds)
