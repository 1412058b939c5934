"""A small file of a group gets its name in one step, with and without a temp file's name before."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from download import tempfile
from download.errors import DiskFullError, TempLostError, translate
from download.tempfile import TempFile, _mode, publish
from download.validators import Validators
from tests.origin_process import ROOT


def without_unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that has none."""
    monkeypatch.setattr("download.tempfile._UNNAMED", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


@pytest.fixture(params=["unnamed", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "named":
        without_unnamed(monkeypatch)
    return str(request.param)


@pytest.fixture
def temp(tmp_path: Path) -> TempFile:
    return whole(tmp_path)


def whole(folder: Path) -> TempFile:
    made = TempFile(folder / ".partial" / "b.0.1.part", max_bytes=1000, late=True)
    made.begin(Validators("http://h/", None, None, 5))
    made.take(b"hel")
    made.take(b"lo")
    made.end()
    return made


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_it_is_whole_and_alone(tmp_path: Path, temp: TempFile, way: str) -> None:
    temp.publish(str(tmp_path / "final"), fsync=False, stamp=lambda place: os.utime(place, (7, 7)))
    final = tmp_path / "final"
    assert (final.read_bytes(), final.stat().st_mtime, final.stat().st_nlink) == (b"hello", 7, 1)
    assert files(tmp_path) == ["final"]


def test_its_mode_is_what_the_operator_lets_new_files_have(tmp_path: Path, temp: TempFile, way: str) -> None:
    before = os.umask(0o027)
    _mode.cache_clear()  # processes have the same one all their life
    try:
        temp.publish(str(tmp_path / "final"), fsync=False)
        assert _mode() == 0o640
    finally:
        os.umask(before)
        _mode.cache_clear()
    assert (tmp_path / "final").stat().st_mode & 0o777 == 0o640


def test_a_name_that_is_taken_stays_as_it_was(tmp_path: Path, temp: TempFile, way: str) -> None:
    (tmp_path / "final").write_text("somebody else's")
    with pytest.raises(FileExistsError):
        temp.publish(str(tmp_path / "final"), fsync=False)
    assert (tmp_path / "final").read_text() == "somebody else's"

    temp.publish(str(tmp_path / "final"), fsync=True, replace=True)
    assert (tmp_path / "final").read_bytes() == b"hello"
    assert files(tmp_path) == ["final"]


def test_without_links_only_one_of_those_that_want_a_name_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given two of them, the first of which goes on when the second has looked for the name, too, or must wait."""
    first, second = threading.Event(), threading.Event()

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def looked(path: Path, look: Callable[[Path], bool] = os.path.lexists) -> bool:
        found = look(path)
        if path == tmp_path / "final":
            if first.is_set():
                second.set()
            first.set()
            assert second.wait(30)
        return found

    def locked(fd: int, lock: Callable[[int], bool] = tempfile._lock) -> bool:
        got = lock(fd)
        if not got:
            second.set()
        return got

    monkeypatch.setattr(Path, "hardlink_to", refused)
    monkeypatch.setattr(os.path, "lexists", looked)
    monkeypatch.setattr(tempfile, "_lock", locked)
    (tmp_path / ".partial").mkdir()

    def published(number: int) -> bool:
        temp = tmp_path / ".partial" / f"b.{number}.1.part"
        temp.write_text(f"{number}")
        with suppress(FileExistsError):
            publish(temp, tmp_path / "final")
            return True
        return False

    with ThreadPoolExecutor(2) as threads:
        won = list(threads.map(published, range(2)))
    assert won.count(True) == 1
    assert (tmp_path / "final").read_text() == f"{won.index(True)}"


def test_a_temp_file_that_a_later_claim_removed_is_not_published(
    tmp_path: Path, temp: TempFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_unnamed(monkeypatch)
    path = tmp_path / ".partial" / "b.0.1.part"
    with pytest.raises(TempLostError):
        temp.publish(str(tmp_path / "final"), fsync=False, stamp=lambda _: path.unlink())
    assert files(tmp_path) == []


def test_a_file_of_the_temp_files_name_that_is_not_ours_is_not_published(
    tmp_path: Path, temp: TempFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_unnamed(monkeypatch)
    path = tmp_path / ".partial" / "b.0.1.part"
    path.parent.mkdir()
    path.write_text("other")
    temp.publish(str(tmp_path / "final"), fsync=False)
    assert (tmp_path / "final").read_text() == "hello"
    assert files(tmp_path) == ["final"]


@pytest.mark.parametrize("refuse", [("link",), ("write", "pwrite")], ids=["link", "write"])
def test_what_a_file_system_refuses_is_said_and_leaves_nothing(
    tmp_path: Path, temp: TempFile, way: str, refuse: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in refuse:
        monkeypatch.setattr(os, call, _full)
    with pytest.raises(OSError, match="No space left") as caught:
        temp.publish(str(tmp_path / "final"), fsync=False)
    assert isinstance(translate(caught.value), DiskFullError)
    assert [name for name in files(tmp_path) if not name.startswith(".partial")] == []


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_download_tempfile import whole
folder = Path(sys.argv[1])
whole(folder).publish(str(folder / "final"), fsync=False, stamp=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_kill_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, timeout=60, check=False)
    assert killed.returncode == -9
    assert files(tmp_path) == []


def test_nobody_sees_the_file_before_it_is_whole(tmp_path: Path, temp: TempFile, way: str) -> None:
    seen: list[list[str]] = []

    def look(_: Path | int) -> None:
        seen.append([name for name in files(tmp_path) if name == "final"])

    temp.publish(str(tmp_path / "final"), fsync=False, stamp=look)
    assert seen == [[]]
