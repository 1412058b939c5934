"""Perfetto's own trace processor, open on one trace: the program behind ui.perfetto.dev, asked with SQL.

It is the unmodified engine as WebAssembly (``fetch.sh`` says where from, with digests and licence), run by Node with
``shell.mjs``, asked through the ``perfetto`` package of Python. The page hands it a file's bytes just so: whether they
are compressed, the engine finds out. ``make perfetto`` fetches it into the virtual environment and runs these tests;
without it they fail.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

_ENGINE = Path(sys.prefix) / "perfetto"
_SHELL = Path(__file__).parent / "shell.mjs"


class Processor:
    """
    Raises:
        perfetto.common.exceptions.PerfettoException: this is no trace at all.
    """

    def __init__(self, trace: Path) -> None:
        assert (_ENGINE / "trace_processor.wasm").exists(), f"no trace processor in {_ENGINE}: run `make perfetto`"
        config = TraceProcessorConfig(bin_path=str(_SHELL), extra_flags=["--engine", str(_ENGINE)], load_timeout=60)
        self._processor = TraceProcessor(trace=str(trace), config=config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._processor.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """
        Raises:
            perfetto.common.exceptions.PerfettoException: there is no such table or column; of a trace that was cut
                off, there are none.
        """
        return [tuple(vars(row).values()) for row in self._processor.query(sql)]

    def losses(self) -> list[tuple[Any, ...]]:
        """What it did not understand or threw away, by its own count; it does so silently."""
        return self.rows("select name, value from stats where severity != 'info' and value > 0")
