"""What every test may ask for: a Valkey of its own, and settings that point to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from ledger.settings import Settings
from tests.valkey_process import ValkeyProcess

# No example is too slow: how long it takes says more about the machine than about the code.
hypothesis_settings.register_profile("downpour", deadline=None)
hypothesis_settings.load_profile("downpour")


@pytest.fixture(scope="module")
def valkey_of_module() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as process:
        yield process


@pytest.fixture
def valkey(valkey_of_module: ValkeyProcess) -> ValkeyProcess:
    """An empty server, shared by the tests of a module; who kills or reconfigures one starts a ``ValkeyProcess``."""
    valkey_of_module.flush()
    return valkey_of_module


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    """Settings for the empty server, with times short enough for a test."""
    return Settings(
        redis_url=valkey.url,
        key_prefix="t:",
        downloads=tmp_path / "downloads",
        redis_timeout=2.0,
        redis_patience=5.0,
        lease=1.0,
        renew_every=0.2,
        sweep_every=0.2,
        message_grace=1.0,
    )
