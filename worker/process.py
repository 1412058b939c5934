"""What each worker process has once: its name, its ledger, its downloader. Built on first use, anew after a fork."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

from download.addresses import AddressPolicy
from download.fetch import Fetcher, tls_context
from download.proxy import Proxy
from download.threads import disk_runner
from ledger.host_limits import HostLimits
from ledger.jobs import Pool
from ledger.ledger import Ledger
from ledger.redis_client import PerProcess, connect
from ledger.settings import get_settings
from worker import drain
from worker.incarnation import Incarnation, Incarnations


def _ledger() -> Ledger:
    settings = get_settings()
    return Ledger(connect(settings, patience=settings.redis_patience, stop=drain.over), settings.key_prefix)


def _host_limits() -> HostLimits:
    return HostLimits(this_worker.ledger().redis, get_settings())


def _fetcher() -> Fetcher:
    policy, proxy = _whom_to_ask()
    return Fetcher(policy, user_agent=get_settings().user_agent, proxy=proxy, run=disk_runner())


def _whom_to_ask() -> tuple[AddressPolicy, Proxy | None]:
    settings = get_settings()
    return AddressPolicy.from_settings(settings), Proxy.parse(settings.proxy.get_secret_value(), settings.no_proxy)


_GARBAGE = 10_000  # objects until the collector looks; a job leaves hundreds behind, none of them in a cycle


def settle_memory() -> None:
    """What is loaded by now stays: the garbage collector need not look at it, nor so often at what comes and goes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)


@dataclass(slots=True)
class ThisWorker:
    """Name and pool are set once, before the pool forks."""

    name: str = ""  # Celery node name, "threads@host"
    pool: Pool | None = None
    incarnations: Incarnations = field(default_factory=lambda: Incarnations(get_settings()))
    ledger: PerProcess[Ledger] = field(default_factory=lambda: PerProcess(_ledger))
    host_limits: PerProcess[HostLimits] = field(default_factory=lambda: PerProcess(_host_limits))
    fetcher: PerProcess[Fetcher] = field(default_factory=lambda: PerProcess(_fetcher))

    def check(self) -> None:
        """Before anything begins, and before the pool forks.

        Raises:
            ValueError: a setting is no network, or no proxy.
        """
        _whom_to_ask()

    def prepare_children(self) -> None:
        """What children share with the process that forks them need not be made by each of them."""
        tls_context()
        settle_memory()

    def warm_up(self) -> None:
        """Build everything before the first job, which would wait for it; be seen by the ledger."""
        self.fetcher()
        self.ledger()
        self.host_limits()
        settle_memory()
        self.incarnation()

    @property
    def redis_away(self) -> bool:
        """Whether Redis did not answer of late: for what is not worth waiting for."""
        return self.incarnations.away

    def incarnation(self) -> Incarnation:
        assert self.pool is not None  # noqa: S101 - set before any job arrives
        return self.incarnations.current(self.name, self.pool)


this_worker = ThisWorker()
