"""Parquet manifests, where pyarrow is installed, and a clear word where it is not."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from ledger.jobs import Job
from producer.errors import ManifestError
from producer.formats import Format, format_of
from producer.manifest import BadLine, read


def test_the_suffix_says_what_it_is() -> None:
    assert format_of(Path("a.parquet")) is Format.PARQUET


def test_without_pyarrow_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ManifestError, match="needs pyarrow"):
        list(read(io.BytesIO(b"PAR1"), Format.PARQUET))


def test_rows_become_jobs_and_bad_ones_are_named(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    headers = arrow.array([[("X", "1")], None, None], arrow.map_(arrow.string(), arrow.string()))
    table = arrow.table(
        {
            "url": ["http://a/x", "ftp://a/y", "http://a/z"],
            "size": [7, None, None],
            "mirrors": [["http://b/x"], None, []],
            "headers": headers,
        }
    )
    path = tmp_path / "m.parquet"
    parquet.write_table(table, path)
    with path.open("rb") as stream:
        first, bad, last = read(stream, format_of(path))
    assert first == Job("http://a/x", "x", None, 7, (("X", "1"),), ("http://b/x",))
    assert isinstance(bad, BadLine)
    assert bad.number == 2
    assert last == Job("http://a/z", "z")


@pytest.mark.parametrize("columns", [{"link": ["http://a/x"]}, {"url": ["http://a/x"], "md5": ["x"]}])
def test_other_columns_are_refused_as_a_whole(tmp_path: Path, columns: dict[str, list[str]]) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), tmp_path / "m.parquet")
    with (tmp_path / "m.parquet").open("rb") as stream, pytest.raises(ManifestError, match="expected the columns"):
        list(read(stream, Format.PARQUET))


def test_what_is_no_parquet_file_is_refused() -> None:
    pytest.importorskip("pyarrow.parquet")
    with pytest.raises(ManifestError, match="cannot be read"):
        list(read(io.BytesIO(b"http://a/x\n" * 10), Format.PARQUET))
