"""One frozen object built from the environment; nothing else reads it.

Every field is an environment variable with the prefix ``DOWNPOUR_``: ``DOWNPOUR_REDIS_URL`` and so on.
Seconds and bytes throughout.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ledger import __version__

Seconds = Annotated[float, Field(gt=0)]

_SCHEMES = ("redis", "rediss", "unix")
_CERT = re.compile(r"(ssl_cert_reqs=)(?:CERT_)?(\w+)")


class SettingsError(ValueError):
    """A variable has a value that its setting does not take; says which, and what it takes."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DOWNPOUR_", frozen=True, extra="ignore")

    # Where things are.
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="broker and ledger: redis://, rediss:// or unix://")
    redis_password_file: Path | None = Field(None, description="a file with the password, kept out of the URL")
    key_prefix: str = Field("dp:", description="prefix of every key and channel, Celery's included")
    downloads: Path = Field(Path("downloads"), description="folder that receives the files")
    health_file: Path | None = Field(None, description="touched while a worker's heartbeat goes out")
    lateness: Path | None = Field(
        None, description="folder for the scheduling latency of workers; set by a comparison for its own workers"
    )
    origin_url: str = Field("http://127.0.0.1:8080", description="the demo's file server, as workers reach it")

    # Redis: a call that cannot be answered ends with an error, never hangs.
    redis_timeout: Seconds = Field(5.0, description="longest connecting, and longest answer, of Redis")
    allow_eviction: bool = Field(
        False, description="submit to a Redis that may remove jobs when it is full (maxmemory-policy allkeys-*)"
    )
    redis_connections: int = Field(
        4, ge=1, description="most connections to Redis that the jobs of a worker process use, however many they are"
    )
    redis_patience: Seconds = Field(60.0, description="how long a worker retries a ledger call while Redis is away")

    # Leases: longer than the longest stall of the thread that renews them.
    lease: Seconds = Field(
        5.0,
        description="a worker process that has not renewed it for so long is dead; one without a job, four times that",
    )
    renew_every: Seconds = Field(1.0, description="heartbeat of a worker process; also how soon a cancel is seen")
    sweep_every: Seconds = Field(1.0, description="pause between two sweeps")
    message_grace: Seconds = Field(3.0, description="a queued job whose message is missing for this long is sent again")
    max_losses: int = Field(5, ge=1, description="a job that was alone in as many processes that died ends as poison")
    progress_every: Seconds = Field(0.5, description="shortest time between two progress reports of a job")
    grace: Seconds = Field(
        20.0, description="longest time of a running job when its worker stops; then it returns to its queue"
    )
    keep_batches: float = Field(
        0.0, ge=0, description="a batch's records leave Redis this long after its last job ended; 0 = never"
    )

    # Host limits: over all workers together. Hosts are told apart by name.
    per_host: int = Field(0, ge=0, description="downloads at once from one host; 0 = no limit")
    per_host_rate: float = Field(0.0, ge=0, description="downloads begun per second from one host; 0 = no limit")

    # One download.
    connect_timeout: Seconds = Field(10.0, description="longest connecting to a server")
    read_timeout: Seconds = Field(30.0, description="longest silence of a server")
    deadline: float = Field(
        0.0, ge=0, description="longest time of one job from its first start on, with retries and waits; 0 = no limit"
    )
    low_speed: int = Field(100, ge=0, description="bytes/s below which a download is too slow; 0 = never")
    low_speed_window: Seconds = Field(60.0, description="time over which that speed is measured")
    max_bytes: int = Field(64 * 2**30, gt=0, description="largest file")
    max_attempts: int = Field(6, ge=1, description="attempts of a job at most, the first one included")
    retry_base: Seconds = Field(1.0, description="first back-off; doubles, with full jitter")
    retry_cap: Seconds = Field(60.0, description="longest back-off")
    wait_in_job: float = Field(5.0, ge=0, description="a wait up to this stays in the job, a longer one is a due time")
    keep_partials: float = Field(
        3 * 86_400.0, ge=0, description="the begun file of a failed job is kept this long for `producer retry`"
    )
    fsync: bool = Field(False, description="force each file to disk before its rename")
    chunk_parallel: int = Field(16, ge=1, le=256, description="downloads at once within a group of small jobs")
    user_agent: str = Field(
        f"Downpour/{__version__}",
        pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$",
        description="name that servers see; put your contact in it towards servers of others",
    )
    proxy: SecretStr = Field(SecretStr(""), description="http://[user:password@]host:port; empty = none")
    no_proxy: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), description="comma-separated hosts (with all below them) and networks asked without the proxy"
    )

    # TLS: PEM files, read once by each worker.
    ca_file: Path | None = Field(None, description="certificate authorities, instead of the system's")
    client_cert: Path | None = Field(None, description="a certificate and its key, for servers that ask who we are")
    client_cert_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), description="comma-separated hosts (with all below them) that are shown this certificate"
    )

    # Who may be downloaded from; see download/addresses.py.
    allow_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), description="comma-separated host names whose private addresses are allowed, e.g. origin"
    )
    allow_networks: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), description="comma-separated networks allowed although not public, e.g. 127.0.0.0/8"
    )
    allow_ports: Annotated[frozenset[int], NoDecode] = Field(
        frozenset({80, 443, 8000, 8080, 8443}), description="comma-separated ports; empty = every port"
    )

    @field_validator("allow_hosts", "allow_networks", "allow_ports", "no_proxy", "client_cert_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _one_redis(cls, url: str) -> str:
        """As redis-py reads it. Celery says ``redis+socket://`` for ``unix://``, ``CERT_REQUIRED`` for ``required``."""
        url = _CERT.sub(lambda match: match[1] + match[2].lower(), re.sub(r"^redis\+socket:", "unix:", url))
        parts, scheme = urlsplit(url), url.partition("://")[0] if "://" in url else ""
        if scheme not in _SCHEMES or set(",;") & set(parts.netloc.rpartition("@")[2]):
            raise ValueError(
                f"expected the URL of one Redis, {', '.join(f'{scheme}://' for scheme in _SCHEMES)}; "
                f"got {f'{scheme[:20]}://' if scheme else 'no scheme'}. Sentinel and Cluster are not supported"
            )
        return url

    def redis_url_with_password(self) -> str:
        """The URL Redis clients take: with the password file's content, if there is one."""
        if self.redis_password_file is None:
            return self.redis_url
        password = SecretStr(self.redis_password_file.read_text().strip())
        parts = urlsplit(self.redis_url)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username or "default"
        return urlunsplit(parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{host}"))


@cache
def get_settings() -> Settings:
    """The process's settings.

    Raises:
        SettingsError: a variable has a value that its field does not take.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        texts = (f"DOWNPOUR_{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in wrong)
        raise SettingsError("; ".join(text.replace("Value error, ", "") for text in texts)) from None


def settings_of(program: str) -> Settings:
    """The settings of a process that starts; it ends with exit code 2 if they cannot be used."""
    try:
        return get_settings()
    except SettingsError as error:
        sys.stderr.write(f"{program}: {error}\n")
        raise SystemExit(2) from None
