"""Redis answers and refuses: each a context in which it does, on a server of one's own."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for

Refusal = Callable[[ValkeyProcess], AbstractContextManager[None]]


@contextmanager
def a_replica(valkey: ValkeyProcess, **options: str) -> Iterator[None]:
    """A failover as the old primary sees it; what blocks on it is told UNBLOCKED."""
    with valkey.client() as redis:
        for name, value in options.items():
            redis.config_set(name.replace("_", "-"), value)
        redis.replicaof("127.0.0.1", "1")  # where nothing listens
        yield
        redis.replicaof("NO", "ONE")


def a_replica_without_its_primary(valkey: ValkeyProcess) -> AbstractContextManager[None]:
    return a_replica(valkey, replica_serve_stale_data="no")


@contextmanager
def no_replicas(valkey: ValkeyProcess) -> Iterator[None]:
    with valkey.client() as redis:
        redis.config_set("min-replicas-to-write", "1")
        yield
        redis.config_set("min-replicas-to-write", "0")


@contextmanager
def unsaved(valkey: ValkeyProcess) -> Iterator[None]:
    """A snapshot that cannot be written, as on a full disk: writes and PING are answered MISCONF."""
    with valkey.client() as redis:
        folder = Path(redis.config_get("dir")["dir"])
        (folder / "dump.rdb" / "in-the-way").mkdir(parents=True)
        redis.config_set("save", "3600 1")
        redis.bgsave()
        wait_for(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", what="the snapshot to fail")
        yield
        redis.config_set("save", "")


@contextmanager
def a_long_script(valkey: ValkeyProcess) -> Iterator[None]:
    with valkey.client() as redis, valkey.client(timeout_s=60) as other:
        redis.config_set("busy-reply-threshold", "100")

        def run() -> None:
            with contextlib.suppress(RedisError):
                other.eval("while true do end", 0)

        script = threading.Thread(target=run)
        script.start()
        wait_for(lambda: _busy(redis), what="Redis to give up waiting for the script")
        yield
        redis.script_kill()
        script.join(10)


def _busy(redis: Redis) -> bool:
    try:
        return not redis.ping()
    except RedisError:
        return True


@contextmanager
def loading(valkey: ValkeyProcess) -> Iterator[None]:
    with valkey.client() as redis:
        for number in range(100):
            redis.set(f"ballast:{number}", random.randbytes(2000))  # it looks up from loading after so many bytes
        redis.bgrewriteaof()
        wait_for(lambda: redis.info("persistence")["aof_rewrite_in_progress"] == 0, what="the log to be rewritten")
        valkey.restart({"key-load-delay": "50000", "loading-process-events-interval-bytes": "1024"})
        assert redis.info("persistence")["loading"]
        yield
        wait_for(lambda: not redis.info("persistence")["loading"], what="the log to be loaded")


@contextmanager
def full_when_clients_connect(valkey: ValkeyProcess) -> Iterator[None]:
    with valkey.client() as redis:
        redis.config_set("maxmemory", "1mb")
        redis.client_kill_filter(_type="normal", skipme=True)
        yield
        redis.config_set("maxmemory", "0")


REFUSALS: dict[str, Refusal] = {
    "READONLY": a_replica,
    "MASTERDOWN": a_replica_without_its_primary,
    "NOREPLICAS": no_replicas,
    "MISCONF": unsaved,
    "BUSY": a_long_script,
    "LOADING": loading,
    "OOM": full_when_clients_connect,
}
