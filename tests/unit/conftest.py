"""Fixtures of the download tests: each is run alone and in a group, unless a file has a ``desk`` of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.download_kit import ChunkDesk, Desk


@pytest.fixture(params=[Desk, ChunkDesk], ids=["single", "chunk"])
def way(request: pytest.FixtureRequest) -> type[Desk]:
    """Both ways that a job can take."""
    found: type[Desk] = request.param
    return found


@pytest.fixture
def desk(tmp_path: Path, way: type[Desk]) -> Desk:
    return way(tmp_path)
