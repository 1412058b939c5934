"""``--record FOLDER``: write down what the cells say instead of comparing it. And a run that is ended cleans up."""

from __future__ import annotations

import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", help="folder that receives a file per cell; nothing is compared")


def pytest_configure() -> None:
    # A terminated run, or a worker of xdist whose run is gone, leaves its cells as by Ctrl-C: nothing stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
