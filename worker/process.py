"""What each worker process has once: its name, its ledger, its downloader. Built on first use, again after a fork."""

from __future__ import annotations

import gc
import os
import secrets
import threading

from download.addresses import AddressPolicy
from download.fetch import Fetcher, tls_context
from download.proxy import Proxy
from download.threads import native_runner
from ledger.host_limits import HostLimits
from ledger.jobs import Pool
from ledger.ledger import Ledger
from ledger.redis_client import PerProcess, connect
from ledger.settings import get_settings
from worker import drain
from worker.heartbeat import Incarnation

_GARBAGE = 10_000  # objects until the collector looks; a job leaves hundreds behind, none of them in a cycle


class ThisWorker:
    """Name, pool and slots are set once, before the pool forks."""

    def __init__(self) -> None:
        self.name = ""  # Celery node name, "threads@host"
        self.pool: Pool | None = None
        self.slots = 1  # jobs that a process of the pool may run at once
        self.family = secrets.token_urlsafe(6)  # of the incarnations of a worker's processes: a fork keeps it
        self.ledger = PerProcess(_ledger)
        self.host_limits = PerProcess(lambda: HostLimits(self.ledger().redis, get_settings()))
        self.fetcher = PerProcess(_fetcher)
        self._incarnation: Incarnation | None = None
        self._pid = 0  # of the process that made it
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Build everything before the first job, which would wait for it; be seen by the ledger."""
        self.fetcher()
        self.host_limits()
        settle_memory()
        self.incarnation()

    def incarnation(self) -> Incarnation:
        """The one of the process that asks, made when it first asks, and again after a fork or a lost lease.

        Raises:
            redis.RedisError: Redis is away.
        """
        assert self.pool is not None  # noqa: S101 - set before any job arrives
        with self._lock:
            if self._incarnation is None or self._incarnation.lost or self._pid != os.getpid():
                self._incarnation = Incarnation(get_settings(), self.name, self.pool, self.family)
                self._pid = os.getpid()
            return self._incarnation

    @property
    def redis_away(self) -> bool:
        """Whether Redis did not answer when the lease was last renewed."""
        return self._incarnation is not None and self._incarnation.away

    def end(self) -> None:
        """The process ends by itself."""
        if self._incarnation is not None and self._pid == os.getpid():
            self._incarnation.end()


def _ledger() -> Ledger:
    settings = get_settings()
    redis = connect(settings, patience=settings.redis_patience, connections=settings.redis_connections, stop=drain.over)
    return Ledger(redis, settings.key_prefix)


def _fetcher() -> Fetcher:
    (policy, proxy), settings = network(), get_settings()
    return Fetcher(
        policy,
        user_agent=settings.user_agent,
        ca_file=settings.ca_file,
        client_cert=settings.client_cert,
        client_cert_hosts=settings.client_cert_hosts,
        proxy=proxy,
        run=native_runner(),
    )


def network() -> tuple[AddressPolicy, Proxy | None]:
    """Which addresses may be asked, and through which proxy.

    Raises:
        ValueError: a setting is no network, no proxy, or no file that TLS can use.
    """
    settings = get_settings()
    if settings.client_cert and not settings.client_cert_hosts:
        raise ValueError("DOWNPOUR_CLIENT_CERT: expected the hosts that see it in DOWNPOUR_CLIENT_CERT_HOSTS, got none")
    tls_context(settings.ca_file, settings.client_cert)
    return AddressPolicy.from_settings(settings), Proxy.parse(settings.proxy.get_secret_value(), settings.no_proxy)


def prepare_children() -> None:
    """Before a pool forks: what children share with their parent need not be made by each of them."""
    tls_context(get_settings().ca_file)
    settle_memory()


def settle_memory() -> None:
    """What is loaded by now stays: the garbage collector need not look at it, nor so often at what comes and goes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)


this_worker = ThisWorker()
