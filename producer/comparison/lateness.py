"""Reads what the probes in the workers noted; see ``worker.lateness``."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from pathlib import Path

from producer.comparison.experiment import Lateness

_PAIR = 16  # bytes: two doubles, the moment and the lateness
_PATIENCE = 1.0  # seconds for the last notes to be written


def settle(folder: Path, pids: Iterable[int], ended: float) -> None:
    """Wait until what the probes noted up to a moment is written; a second at the most."""
    deadline = time.monotonic() + _PATIENCE
    files = [file for pid in pids if (file := folder / str(pid)).exists()]
    while any(_last(file) < ended for file in files) and time.monotonic() < deadline:
        time.sleep(0.02)


def _last(file: Path) -> float:
    return max((moment for moment, _ in _pairs(file)), default=0.0)


def read(folder: Path, pids: Iterable[int], begun: float, ended: float) -> Lateness | None:
    """What the probes of these processes noted between two moments of CLOCK_MONOTONIC; None: nothing."""
    late: list[float] = []
    for pid in pids:
        late += _noted(folder / str(pid), begun, ended)
    if not late:
        return None
    late.sort()
    p50, p99 = (late[min(len(late) - 1, int(share * len(late)))] for share in (0.5, 0.99))
    return Lateness(round(p50, 6), round(p99, 6), round(late[-1], 6), len(late))


def _noted(file: Path, begun: float, ended: float) -> Iterable[float]:
    return (late for moment, late in _pairs(file) if begun <= moment <= ended)


def _pairs(file: Path) -> Iterable[tuple[float, float]]:
    try:
        raw = file.read_bytes()
    except OSError:
        return ()
    pairs = array("d")
    pairs.frombytes(raw[: len(raw) // _PAIR * _PAIR])  # the last one may be half written
    return zip(pairs[::2], pairs[1::2], strict=True)
