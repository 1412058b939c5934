"""The contenders: each downloads the same files of the same server into a folder, and returns what that took."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ledger.jobs import Job, JobState, Message, Pool, Ref
from ledger.messages import Envelope
from poolbench import sampler
from tests.waiting import wait_for
from tests.world import World

_FEW = 50  # files


@dataclass(frozen=True)
class Took:
    seconds: float
    cpu: float  # seconds, of all processes that download (not of the server)
    redis_cpu: float = 0.0  # seconds
    late: float | None = None  # seconds that a job has to wait for its interpreter or hub, 99th percentile


class Rival:
    """Brings files without records, into a new folder each time."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder

    def bring(self, urls: Sequence[str]) -> Took:
        target = Path(tempfile.mkdtemp(dir=self._folder))
        run = self._ready(urls, target)
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        run()
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert len(os.listdir(target)) == len(urls), f"{self.name}: files are missing"
        put_away(target)
        return Took(seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)

    def _ready(self, urls: Sequence[str], target: Path) -> Callable[[], None]:
        """Whatever can be done before; what is returned is measured. Files are named by their place among the URLs."""
        raise NotImplementedError


class Tool(Rival):
    """
    Command lines; what people would use instead.

    Args:
        entry: of the list of files, with ``{url}``, ``{folder}`` and ``{number}``.
        commands: in a shell, with ``{list}`` and ``{folder}``.
    """

    def __init__(self, name: str, folder: Path, entry: str, *commands: str) -> None:
        super().__init__(name, folder)
        self._entry, self._commands = entry, commands

    def _ready(self, urls: Sequence[str], target: Path) -> Callable[[], None]:
        listing = target.with_suffix(".list")
        lines = [self._entry.format(url=url, folder=target, number=number) for number, url in enumerate(urls)]
        listing.write_text("\n".join(lines) + "\n")
        commands = [command.format(list=listing, folder=target) for command in self._commands]

        def run() -> None:
            for command in commands:
                subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        return run


def curls(folder: Path, parallel: int) -> tuple[Tool, Tool]:
    """With a digest of each file, and without."""
    name, entry = f"curl -Z --parallel-max {parallel}", 'url = "{url}"\noutput = "{folder}/{number}"'
    fetch = f"curl -s -Z --parallel-max {parallel} -K {{list}}"
    digests = "find {folder} -type f -print0 | xargs -0 sha256sum"
    return Tool(f"{name} then sha256sum", folder, entry, fetch, digests), Tool(name, folder, entry, fetch)


def aria2(folder: Path) -> Tool:
    command = "aria2c -q -j16 -i {list} -d {folder} --file-allocation=none --auto-file-renaming=false"
    return Tool("aria2c -j16", folder, "{url}\n out={number}", command)


class Downpour:
    """A worker of one pool. Its records are written and its messages sent before, as those of the other queues."""

    def __init__(self, world: World, pool: Pool, per_message: int) -> None:
        self.name = f"Downpour {pool}, {per_message} per message"
        self._world = world
        self._pool = pool
        self._per_message = per_message
        self._round = 0

    def bring(self, urls: Sequence[str]) -> Took:
        self._round += 1
        world, batch = self._world, f"{self._pool}-{self._per_message}-{self._round}"
        messages = []
        for first in range(0, len(urls), self._per_message):
            part = urls[first : first + self._per_message]
            jobs = tuple(Job(url, str(first + number)) for number, url in enumerate(part))
            messages.append(Message(Ref(batch, first, first + len(part) - 1), self._pool, jobs))
        for at in range(0, len(messages), 20):
            world.ledger.submit(messages[at : at + 20])
        world.ledger.seal(batch, len(urls))
        worker = world.service(f"worker-{self._pool}")
        with stopped(worker.pid):
            world.publisher.send([Envelope(str(message.ref), self._pool, "") for message in messages])
            before, redis_before = cpu(worker.pid), cpu(world.valkey.pid)
            begun = time.monotonic()
        wait_for(lambda: world.batch(batch).finished, seconds=300, every=0.01, what=f"{batch} to finish")
        ended = time.monotonic()
        took = Took(
            ended - begun,
            cpu(worker.pid) - before,
            cpu(world.valkey.pid) - redis_before,
            self._late(worker.pid, begun, ended),
        )
        self._prove(batch, len(urls))
        return took

    def _late(self, pid: int, begun: float, ended: float) -> float | None:
        if not (folder := self._world.settings.lateness):
            return None
        pids = [each.pid for each in _tree(pid)]
        found = sampler.read_scheduling(folder, pids, begun, ended)
        return found.p99 if found else None

    def _prove(self, batch: str, count: int) -> None:
        """Each job is done, ran once, and its file is there."""
        world = self._world
        assert world.batch(batch).count(JobState.DONE) == count
        for record in world.ledger.read_batch(world.batch(batch)):
            assert len(record.attempts) == 1, record.id
        assert len(os.listdir(world.settings.downloads / batch)) == count
        put_away(world.settings.downloads / batch)


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """While a worker's queue is filled; the clock of a contender runs from SIGCONT."""
    tree = _tree(pid)
    for each in tree:
        each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in tree:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)


def cpu(pid: int) -> float:
    times = [each.cpu_times() for each in _tree(pid)]
    return float(sum(each.user + each.system for each in times))


def put_away(folder: Path) -> None:
    """A few large files go at once. Many small ones stay until the end: after many have gone, a file system may look
    long for a place for the next one's turn (ext4 without a journal passes over all that went within a minute)."""
    if len(os.listdir(folder)) <= _FEW:
        shutil.rmtree(folder)
