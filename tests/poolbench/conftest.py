"""What the tests of foreign projects share."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator

import pytest

from tests.poolbench.environment import Installed, Listener, listening, make


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Made once, also where several processes run tests."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with (shared / "poolbench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "poolbench-environment"
        if not (folder / "whole").exists():
            make(folder)
    return Installed(folder, next(folder.glob("*.whl")))


@pytest.fixture
def theirs() -> Iterator[Listener]:
    """On loopback, which tasks may reach: only the addresses of a project lead there."""
    with listening("127.0.0.1") as found:
        yield found


@pytest.fixture
def outside() -> Iterator[Listener]:
    """On an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # chooses a route, sends nothing
        except OSError:
            pytest.skip("this machine has no network but loopback")
        host = probe.getsockname()[0]
    with listening(host) as found:
        yield found
