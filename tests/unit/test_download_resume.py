"""What an earlier attempt left is continued if and only if the server proves that nothing changed.

``tests/pools/test_every_fault.py`` has the servers whose file changes, or that lie about parts.
"""

import errno
import fcntl
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from download.errors import DiskError, DownloadError, HandedBackError, TempLostError
from download.tempfile import publish, validators_path
from ledger.jobs import FailureKind
from origin.content import Entity
from tests.origin_process import ROOT, OriginProcess
from tests.unit.download_kit import Desk, ok, reciting
from tests.waiting import wait_for

SIZE = 100_000
WHOLE = Entity("n", SIZE).read(0, SIZE)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("download.validators.WORTH_KEEPING", 1)
    return Desk(tmp_path)


def url(origin: OriginProcess, fault: str) -> str:
    return f"{origin.url}/faults/{fault}?name=n&size={SIZE}&key={random.random()}"


@pytest.mark.parametrize("fault", ["resume", "resume-date"])
def test_an_unchanged_file_is_continued(origin: OriginProcess, desk: Desk, fault: str) -> None:
    where = url(origin, fault)
    assert desk.fails(where).kind is FailureKind.TRUNCATED
    assert desk.temp.stat().st_size == SIZE // 2

    fetched = desk.fetch(where, resume=desk.temp)

    assert (fetched.status, fetched.resumed_from, fetched.received) == (206, SIZE // 2, SIZE // 2)
    publish(desk.temp, desk.final)
    assert desk.final.read_bytes() == WHOLE
    assert desk.leftovers() == []


def test_an_attempt_that_is_cut_again_says_what_it_added(origin: OriginProcess, desk: Desk) -> None:
    where = f"{origin.url}/faults/resume?name=n&size={SIZE}&times=2&key={random.random()}"
    first, second = desk.fails(where), desk.fails(where)
    assert (first.received, first.gained) == (SIZE // 2, 0)  # there was none before
    assert (second.received, second.gained) == (SIZE // 4, SIZE // 4)
    assert desk.fetch(where).resumed_from == SIZE // 4 * 3


def test_the_leftover_of_another_claim_is_moved_not_copied(origin: OriginProcess, desk: Desk) -> None:
    where, own = url(origin, "resume"), desk.folder / "job.2.part"
    desk.fails(where)
    inode = desk.temp.stat().st_ino

    assert desk.fetch(where, temp=own, resume=desk.temp).resumed_from == SIZE // 2

    assert own.stat().st_ino == inode
    assert desk.leftovers() == []
    assert own.read_bytes() == WHOLE


def test_a_disk_that_is_full_for_a_moment_leaves_the_leftover_for_the_next_attempt(
    origin: OriginProcess, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, own = url(origin, "resume"), desk.folder / "job.2.part"
    desk.fails(where)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("download.tempfile._write_validators", full)
        assert desk.fails(where, temp=own, resume=desk.temp).kind is FailureKind.DISK_FULL
    assert desk.fetch(where, temp=own, resume=desk.temp).resumed_from == SIZE // 2


ETAG = 'ETag: "a"'
BEGUN = ok(b"hel", ETAG, length=5)
PART = ok(b"lo", ETAG, "Content-Range: bytes 3-4/5", status="206 P")


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        (PART, None),
        (ok(b"lo", "Content-Range: bytes 3-4/5", status="206 P"), FailureKind.CHANGED),  # without the ETag
        (ok(b"lo", ETAG, "Content-Range: bytes 3-4/*", status="206 P"), FailureKind.PROTOCOL),
        (ok(b"lo", ETAG, status="206 P"), FailureKind.PROTOCOL),
        (ok(b"lo!", ETAG, "Content-Range: bytes 3-4/5", status="206 P"), FailureKind.PROTOCOL),
        (ok(b"o", ETAG, "Content-Range: bytes 3-3/5", status="206 P"), FailureKind.TRUNCATED),
        (ok(b"l", ETAG, "Content-Range: bytes 3-4/5", status="206 P", length=2), FailureKind.TRUNCATED),
    ],
)
def test_a_part_must_prove_where_it_belongs(desk: Desk, part: bytes, kind: FailureKind | None) -> None:
    with reciting(BEGUN, part) as server:
        desk.fails(server.url())
        if kind is None:
            assert desk.bring(server.url()) == b"hello"
        else:
            assert desk.fails(server.url()).kind is kind
        assert 'if-range: "a"' in server.requests[1].lower()
        assert "range: bytes=3-" in server.requests[1].lower()


HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.mark.parametrize("etags", [(), ('ETag: W/"a"', 'ETag: W/"a"'), ('ETag: "one"', 'ETag: "two"')])
def test_where_a_digest_judges_any_part_that_fits_continues(desk: Desk, etags: tuple[str, ...]) -> None:
    """Without an ETag, with a weak one, with another one on each node; and from a mirror."""
    part = ok(b"lo", *etags[1:], "Content-Range: bytes 3-4/5", status="206 P")
    with reciting(ok(b"hel", *etags[:1], length=5), part) as server:
        desk.fails(server.url(), sha256=HELLO)
        assert desk.bring(server.url("/mirror"), sha256=HELLO) == b"hello"
        assert "range: bytes=3-" in server.requests[1].lower()
        assert "if-range" not in server.requests[1].lower()


@pytest.mark.parametrize(
    ("begun", "part"),
    [
        (ok(b"hel", length=5), ok(b"lo", "Content-Range: bytes 3-4/6", status="206 P")),  # of another length
        (ok(b"HEL", ETAG, length=5), PART),
    ],
)
def test_where_a_digest_judges_what_does_not_fit_is_not_the_last_word(desk: Desk, begun: bytes, part: bytes) -> None:
    with reciting(begun, part) as server:
        desk.fails(server.url(), sha256=HELLO)
        assert desk.fails(server.url(), sha256=HELLO).kind is FailureKind.CHANGED
        assert desk.leftovers() == []


@pytest.mark.parametrize("sha256", [None, "00" * 32])
def test_what_was_begun_for_another_digest_is_not_continued(desk: Desk, sha256: str | None) -> None:
    with reciting(ok(b"hel", length=5), ok(b"", status="404 N")) as server:
        desk.fails(server.url(), sha256=HELLO)
        desk.fails(server.url(), sha256=sha256)
        assert "range:" not in server.requests[1].lower()


def test_what_was_kept_is_hashed_into_a_further_digest_too(desk: Desk) -> None:
    digest = f"sha1:{hashlib.sha1(b'hello').hexdigest()}"  # noqa: S324
    with reciting(BEGUN, PART) as server:
        desk.fails(server.url(), digest=digest)
        assert desk.bring(server.url(), digest=digest) == b"hello"


def test_a_complete_leftover_still_needs_the_server_s_word(desk: Desk) -> None:
    """Killed between the last byte and the final name: one byte is asked for again."""
    last = ok(b"o", ETAG, "Content-Range: bytes 4-4/5", status="206 P")
    with reciting(ok(b"hello", ETAG), last) as server:
        desk.fetch(server.url())
        assert desk.bring(server.url()) == b"hello"
        assert "range: bytes=4-" in server.requests[1].lower()


@pytest.mark.parametrize("spoil", ["locked", "linked", "another boot", "garbled", "no validators"])
def test_what_must_not_be_continued_is_not(origin: OriginProcess, desk: Desk, spoil: str) -> None:
    where, own = url(origin, "resume"), desk.folder / "job.2.part"
    desk.fails(where)
    before, beside = desk.temp.read_bytes(), validators_path(desk.temp)
    holder = os.open(desk.temp, os.O_RDWR)
    if spoil == "locked":  # a frozen process may still write to it
        fcntl.flock(holder, fcntl.LOCK_EX)
    elif spoil == "linked":  # killed while publishing: these are a final file's bytes
        desk.final.hardlink_to(desk.temp)
    elif spoil == "another boot":
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "boot": "earlier"}))
    elif spoil == "garbled":
        beside.write_text('{"url":')
    else:
        beside.unlink()

    fetched = desk.fetch(where, temp=own, resume=desk.temp)

    assert (fetched.status, fetched.resumed_from) == (200, 0)
    assert own.read_bytes() == WHOLE
    assert os.pread(holder, SIZE, 0) == before
    os.close(holder)


def test_a_small_file_is_not_worth_keeping(origin: OriginProcess, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("download.validators.WORTH_KEEPING", SIZE + 1)
    assert desk.fails(url(origin, "resume")).kind is FailureKind.TRUNCATED
    assert desk.leftovers() == []


def test_validators_speak_only_for_the_resource_that_gave_them(origin: OriginProcess, desk: Desk) -> None:
    desk.fails(url(origin, "resume"))
    assert desk.bring(f"{origin.url}/files/other?size={SIZE}") == Entity("other", SIZE).read(0, SIZE)


DOWNLOAD = """
import sys
from tests.unit.download_kit import Desk
from pathlib import Path
Desk(Path(sys.argv[1])).fetch(sys.argv[2])
"""


def test_a_sigkilled_download_is_continued_by_another_process(origin: OriginProcess, desk: Desk) -> None:
    """Given a paced file; killed at some moment, again and again; I expect the whole file with few bytes sent twice."""
    size = 4_000_000
    where = f"{origin.url}/paced/2/n?size={size}"
    for _ in range(2):
        before = desk.temp.stat().st_size if desk.temp.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, str(desk.folder), where], cwd=ROOT)

        def grown(process: subprocess.Popen[bytes] = process, before: int = before) -> bool:
            assert process.poll() is None
            return desk.temp.exists() and desk.temp.stat().st_size > before

        wait_for(grown, seconds=15, what="the file to grow", every=random.uniform(0.001, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    kept = desk.temp.stat().st_size
    fetched = desk.fetch(where)
    assert fetched.resumed_from == kept
    publish(desk.temp, desk.final)
    assert desk.final.read_bytes() == Entity("n", size).read(0, size)


def test_publish_again_after_a_kill_between_link_and_unlink(origin: OriginProcess, desk: Desk) -> None:
    desk.fetch(f"{origin.url}/files/n?size={SIZE}")
    desk.final.hardlink_to(desk.temp)
    publish(desk.temp, desk.final, replace=True)
    assert desk.final.read_bytes() == WHOLE
    assert desk.leftovers() == []


def test_what_another_attempt_took_over_is_not_published(origin: OriginProcess, desk: Desk) -> None:
    desk.fetch(f"{origin.url}/files/n?size={SIZE}")
    with desk.temp.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TempLostError):
            publish(desk.temp, desk.final)
    assert not desk.final.exists()


def test_another_file_of_the_temp_files_name_is_not_published(origin: OriginProcess, desk: Desk) -> None:
    fetched = desk.fetch(f"{origin.url}/files/n?size={SIZE}")
    desk.temp.rename(desk.folder / "moved")
    desk.temp.write_bytes(bytes(SIZE))
    with pytest.raises(TempLostError, match="another file has its name"):
        publish(desk.temp, desk.final, identity=fetched.identity)
    assert not desk.final.exists()
    (desk.folder / "moved").replace(desk.temp)
    publish(desk.temp, desk.final, identity=fetched.identity)
    assert desk.final.read_bytes() == WHOLE


def test_validators_of_other_bytes_do_not_survive_a_new_start(origin: OriginProcess, desk: Desk) -> None:
    """Given validators of one edition; a second one, without any, is cut: I expect nothing to be continued."""
    desk.fails(url(origin, "resume"))
    desk.temp.unlink()
    with pytest.raises(HandedBackError):
        desk.fetch(f"{origin.url}/faults/no-length?size={SIZE}", progress=_hand_back)
    assert desk.leftovers() == []


def test_a_leftover_without_a_byte_is_replaced_and_its_descriptor_closed(origin: OriginProcess, desk: Desk) -> None:
    desk.fails(url(origin, "resume"))
    os.truncate(desk.temp, 0)
    desk.fetch(f"{origin.url}/files/n?size={SIZE}", resume=desk.temp)
    open_files = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.exists()]
    assert [name for name in open_files if str(desk.folder) in name] == []
    assert desk.bring(f"{origin.url}/files/n?size={SIZE}") == WHOLE


def _hand_back(size: int, _total: int | None) -> None:
    if size:
        raise HandedBackError("drain")


def test_no_file_and_no_connection_stays_open(origin: OriginProcess, desk: Desk) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("files/n", "cut-body", "reset", "status/404", "redirect-loop", "cut-headers") * 5:
        with suppress(DownloadError):
            desk.fetch(f"{origin.url}/{'' if path == 'files/n' else 'faults/'}{path}?size={SIZE}")
    desk.fetcher.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs a user namespace to mount a small disk",
)
@pytest.mark.parametrize("path", ["files/n", "faults/chunked"])
def test_a_full_disk_is_said_and_left_empty(origin: OriginProcess, desk: Desk, path: str) -> None:
    """With a length it is known before the first byte, without one at the first that has no room."""
    script = f"mount -t tmpfs -o size=256k tmpfs {desk.folder} && exec {sys.executable} -c '{FULL}' $0 $1"
    command = ["unshare", "-rm", "sh", "-c", script, str(desk.folder), f"{origin.url}/{path}?size=2000000"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert result.stdout == "disk-full []\n", result.stderr


FULL = """
import sys
from tests.unit.download_kit import Desk
from pathlib import Path
desk = Desk(Path(sys.argv[1]))
print(desk.fails(sys.argv[2]).kind, desk.leftovers())
"""


@pytest.mark.parametrize("folder", ["file/below", "n" * 300])
def test_an_impossible_folder_is_a_permanent_failure(origin: OriginProcess, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        Desk(tmp_path / folder).fetch(f"{origin.url}/files/n")
