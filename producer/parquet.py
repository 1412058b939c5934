"""Manifests in Parquet, for those who have pyarrow; read a few thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from producer.errors import ManifestError
from producer.urls import shown

_AT_ONCE = 2000  # rows in memory


def rows(stream: BinaryIO, fields: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The rows, counted from 1.

    Args:
        fields: columns that are understood; ``url`` must be there.

    Raises:
        ManifestError: pyarrow is missing, this is no Parquet file, or it has other columns.
    """
    try:
        import pyarrow  # noqa: PLC0415 - an extra that few need
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ImportError as error:
        raise ManifestError(
            "a Parquet manifest needs pyarrow, which is not installed (`pip install pyarrow`); nothing was submitted"
        ) from error
    if not stream.seekable():
        raise ManifestError("expected a Parquet manifest to be a file, got a pipe; nothing was submitted")
    try:
        file = ParquetFile(stream)
        names = file.schema_arrow.names
        if "url" not in names or set(names) - set(fields):
            raise ManifestError(
                f"expected the columns {', '.join(fields)}, url at least, got {', '.join(map(shown, names))}; "
                "nothing was submitted"
            )
        number = 0
        for batch in file.iter_batches(batch_size=_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: _plain(value) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError) as error:
        raise ManifestError(f"expected a Parquet file, got one that cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """A map comes as pairs, and a struct with what it leaves out as None."""
    if isinstance(value, list) and value and all(isinstance(each, tuple) for each in value):
        value = dict(value)
    if isinstance(value, dict):
        return {name: text for name, text in value.items() if text is not None}
    return value
