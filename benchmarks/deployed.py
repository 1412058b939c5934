"""Redis as it is deployed; the one of the tests waits for the disk at each write."""

from __future__ import annotations

from tests.valkey_process import ValkeyProcess


def deployed() -> ValkeyProcess:
    return ValkeyProcess(appendonly=True, options={"appendfsync": "everysec"})
