"""A row: one thing that a deployment wants, how it is asked for, and what the answer means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ledger.jobs import Pool
from tests.matrix.downpour import Downpour
from tests.matrix.outcomes import Outcome
from tests.matrix.stock import Stock

COLUMNS = tuple(f"{system} {pool}" for system in ("Celery", "Downpour") for pool in Pool)


@dataclass(frozen=True, slots=True)
class Race:
    """A cell that may end in several ways."""

    words: frozenset[str]  # that were seen, here or elsewhere
    why: str


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    title: str
    stock: Callable[[Stock], str] | None
    downpour: Callable[[Downpour], str] | None
    how: str  # how each cell was produced
    means: str  # for the person who runs it
    absent: Mapping[str, str] = field(default_factory=dict)  # columns that have no cell, and why
    racy: Mapping[str, Race] = field(default_factory=dict)  # by column

    def run(self, column: str, folder: Path) -> str:
        """Produce a cell: everything it needs is started, and gone afterwards."""
        system, pool = column.split()
        if column in self.absent:
            return Outcome.NOT_APPLICABLE
        if system == "Celery":
            assert self.stock is not None, f"{self.key} does not say why it has no cell in {column}"
            with Stock(Pool(pool), folder) as stock:
                return str(self.stock(stock))
        assert self.downpour is not None, f"{self.key} does not say why it has no cell in {column}"
        with Downpour(Pool(pool), folder) as downpour:
            return str(self.downpour(downpour))


def columns(system: str, *pools: Pool) -> tuple[str, ...]:
    return tuple(f"{system} {pool}" for pool in pools or Pool)
