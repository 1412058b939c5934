from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.compose_project import Stack

BUILD_AND_START = 900  # seconds; the image may have to be built from nothing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(BUILD_AND_START + 300))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole stack, built and started as a person would; gone with its volumes afterwards."""
    ports = {name: str(free_port()) for name in ("FLOWER_PORT", "ORIGIN_PORT")}
    stack = Stack(tmp_path_factory.mktemp("stack") / "env", ports)
    stack.compose("down", "--volumes", "--remove-orphans", seconds=120)  # what a killed run left behind
    try:
        stack.up("--build", seconds=BUILD_AND_START)
        yield stack
    except AssertionError:
        print(stack.compose("logs", "--tail", "40").out, file=sys.stderr)
        raise
    finally:
        stack.done("down", "--volumes", "--remove-orphans", seconds=120)
