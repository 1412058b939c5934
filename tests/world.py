"""A whole Downpour of a test's own: Valkey, origin, sweep and workers, all real, all gone afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from celery import Celery

from ledger.jobs import Batch, Job, JobRecord, JobState, Message, Pool, Ref
from ledger.ledger import Ledger
from ledger.messages import Envelope, Publisher, broker_options, label
from ledger.redis_client import connect
from ledger.settings import Settings
from origin.content import Entity
from tests.origin_process import OriginProcess
from tests.other_host import Host
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for
from tests.worker_process import Service, sweep, worker

pools = pytest.mark.parametrize("pool", list(Pool))
Begin = Callable[..., "World"]  # of settings, as the fixture ``begin``


def lasting(*, slots: int = 4, **settings: Any) -> Any:
    """A fixture of a module: a world with a worker of each pool. Each test uses a batch of its own."""

    @pytest.fixture(scope="module")
    def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
        with World(tmp_path_factory.mktemp("world"), **settings) as world:
            yield world.start(*Pool, slots=slots)

    return world


class World:
    """Args:
    settings: what differs from times that suit a test.
    """

    def __init__(self, folder: Path, *, valkey: ValkeyProcess | None = None, **settings: Any) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self.valkey = valkey or self._stack.enter_context(ValkeyProcess(appendonly=True))
        self.origin = self._stack.enter_context(OriginProcess())
        self.settings = Settings(
            **{
                "redis_url": self.valkey.url,
                "key_prefix": "t:",
                "downloads": folder / "downloads",
                "origin_url": self.origin.url,
                "allow_networks": frozenset({"127.0.0.0/8"}),
                "allow_ports": frozenset(),
                "redis_timeout": 2.0,
                "lease": 2.0,
                "renew_every": 0.4,
                "sweep_every": 0.3,
                "message_grace": 2.0,
                "grace": 3.0,
                "retry_base": 0.1,
                "retry_cap": 1.0,
                **settings,
            }
        )
        self.ledger = Ledger(connect(self.settings, patience=20), self.settings.key_prefix)
        self.publisher = Publisher(self.settings)
        self.services: list[Service] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for service in self.services:
            service.__exit__(*error)
        self._stack.close()

    def start(self, *pools: Pool, slots: int = 4, sweeps: int = 1) -> Self:
        started = [worker(pool, self.settings, self.folder, slots=slots) for pool in pools]
        started += [sweep(self.settings, self.folder) for _ in range(sweeps)]
        self.services += started
        for service in started:
            service.wait_until_ready()
        return self

    def worker(self, pool: Pool, *, slots: int = 4, name: str = "", host: Host | None = None) -> Service:
        """One more worker, which need not be ready yet."""
        service = worker(pool, self.settings, self.folder, slots=slots, name=name, host=host)
        self.services.append(service)
        return service

    def service(self, name: str) -> Service:
        return next(service for service in reversed(self.services) if service.name == name)

    def submit(
        self, pool: Pool, jobs: Sequence[Job], *, batch: str = "b", carried: int = 1, deadline: float | None = None
    ) -> None:
        """As the producer does it: records, then messages, then the seal. One batch may come in several parts.

        Args:
            carried: jobs per message.
            deadline: seconds that the batch's jobs have.
        """
        known = self.ledger.batch(batch)
        first = known.known if known else 0
        parts = [tuple(jobs[at : at + carried]) for at in range(0, len(jobs), carried)]
        refs = [Ref(batch, first + at, first + min(at + carried, len(jobs)) - 1) for at in range(0, len(jobs), carried)]
        for at in range(0, len(parts), 500):
            some = list(zip(refs, parts, strict=True))[at : at + 500]
            self.ledger.submit([Message(ref, pool, part) for ref, part in some], deadline=deadline)
            self.publisher.send(Envelope(str(ref), pool, label(part[0], len(part) - 1)) for ref, part in some)
        self.ledger.seal(batch, first + len(jobs))

    @contextmanager
    def celery(self) -> Iterator[Celery]:
        """A Celery app on the same Redis, for remote control."""
        with Celery(set_as_current=False) as app:
            app.conf.update(broker_options(self.settings))
            yield app

    def file(self, name: str, size: int = 4096, path: str = "files") -> Job:
        """A job for a file of the origin, with the digest it must have."""
        return Job(f"{self.origin.url}/{path}/{name}?size={size}", name, Entity(name, size).sha256().hex(), size)

    def small(self, count: int, name: str = "f") -> list[Job]:
        """Jobs for files that a worker's process gathers, once it has seen short ones."""
        return [self.file(f"{name}{n}", 1024) for n in range(count)]

    def warm(self, pool: Pool, batch: str = "warm") -> None:
        """Each process has seen short jobs."""
        self.submit(pool, self.small(40, "w"), batch=batch)
        self.finished(batch)

    def paced(self, name: str, seconds: float, size: int = 100_000) -> Job:
        return self.file(name, size, f"paced/{seconds}")

    def batch(self, name: str = "b") -> Batch:
        batch = self.ledger.batch(name)
        assert batch is not None, f"no batch {name}"
        return batch

    def records(self, batch: str = "b") -> list[JobRecord]:
        return list(self.ledger.read_batch(self.batch(batch)))

    def finished(self, batch: str = "b", *, seconds: float = 60) -> list[JobRecord]:
        wait_for(lambda: self.batch(batch).finished, seconds=seconds, every=0.1, what=f"batch {batch} to finish")
        return self.records(batch)

    def done(self, batch: str = "b", *, seconds: float = 60) -> list[JobRecord]:
        """The records of a batch, each of which is done."""
        records = self.finished(batch, seconds=seconds)
        for record in records:
            assert record.state is JobState.DONE, f"{record.id} {record.state}: {record.attempts}"
        return records

    def running(self, count: int, *, batch: str = "b", with_bytes: bool = False) -> list[JobRecord]:
        """Wait until that many jobs are running (and have received something)."""

        def enough() -> list[JobRecord]:
            # A job may have ended while it was read.
            found = [record for record in self.ledger.running(batch) if record.state is JobState.RUNNING]
            records = [record for record in found if record.bytes or not with_bytes]
            return records if len(records) >= count else []

        return wait_for(enough, seconds=30, what=f"{count} jobs to run")

    def check_files(self, records: Iterable[JobRecord]) -> None:
        """Every file that is done is there, whole, and nothing else is."""
        expected = set()
        for record in records:
            if record.sha256 is None:
                continue
            expected.add(self.settings.downloads / record.path)
            self.content(record)
            assert record.job.sha256 in (None, record.sha256), record.id
        assert set(self.files()) == expected

    def content(self, record: JobRecord) -> bytes:
        """What the file of a job has, which is what its record says."""
        content = (self.settings.downloads / record.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record.sha256, record.id
        return content

    def files(self) -> list[Path]:
        """All files below the downloads folder, temp files included."""
        return [path for path in self.settings.downloads.rglob("*") if path.is_file()]
