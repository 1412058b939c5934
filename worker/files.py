"""The files of a claimed job: one that is there already, its name, how it is published, and what is cleaned up.

A published file that proves to be the one that is wanted is not downloaded again. With an expected sha256 the file is
hashed, and no server is asked. Without one, the server is asked whether anything changed since: what it said then is
kept in an extended attribute of the file. A file system without those means that the file is downloaded again, and so
does a file that was touched since.

A file in the way is replaced only if that attribute says that it was published for this very name of this batch. Any
other one stays, and the job's file gets a name beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from download import tempfile
from download.errors import LEAVES, FileNameError, LeaseLostError
from download.fetch import Fetched, Wanted
from download.filenames import candidates, final_path, from_disposition
from download.tempfile import FOLDER, PIECE, TempFile
from download.threads import Run
from ledger.jobs import JobRecord, JobState, Naming, Result
from ledger.ledger import Ledger
from ledger.settings import Settings
from worker.claim import HELD, ClaimedJob, confirm
from worker.mirrors import headers_for
from worker.process import this_worker

CLEAN_UP_EVERY = 30.0  # seconds

_ATTRIBUTE = "user.downpour"
_LONGEST = 2048  # bytes; file systems keep small attributes with the file's other properties
_FOREIGN = 24 * 3600.0  # seconds after which a file goes whose job this ledger does not know: another stack may
_PAGES = ("text/html", "application/xhtml+xml")  # what a server says instead of the file: sign in, pay, come back
_NO_PAGE = re.compile(r"\.(?!(?:[sx]?html?|php\d?|aspx?|jsp|cgi|do)$)\d*[a-z][a-z0-9]{0,9}$", re.IGNORECASE)
_TEMP_NAME = re.compile(r"(?P<job>.+\.\d+)\.\d+\.part(\.json(\.new)?)?")


@dataclass(frozen=True, slots=True)
class SourceNote:
    """Where a published file came from, and how it was then: the content of its attribute."""

    url: str  # its digest
    sha256: str
    size: int
    mtime_ns: int  # a file with another one was touched since
    etag: str | None
    last_modified: str | None
    wanted: str = ""  # digest of the batch and the manifest's filename: whose file it is; "" of an earlier version

    @property
    def conditions(self) -> dict[str, str]:
        """Headers that ask for the file only if it is another one now."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified} if self.last_modified else {}


class JobFiles:
    def __init__(self, job: ClaimedJob, settings: Settings) -> None:
        self.job = job
        self.fetched: Fetched | None = None  # whole and verified, without a final name
        self.open_temp: TempFile | None = None  # of a group: it may still be in memory
        self._settings = settings
        self._record = job.record
        self._target = ""
        self._filename = ""  # of the target, below the batch's folder
        self._taken = False  # another name than the target's was wanted, and a file has it that is not this job's
        self._existing: SourceNote | None = None  # of a file that the server is asked about

    def target(self, filename: str | None = None) -> str:
        """The path of the final file.

        Raises:
            FileNameError: a name that cannot be published.
        """
        self._filename = filename or self._record.name or self._record.job.filename
        self._target = final_path(self._settings.downloads, f"{self._record.batch}/{self._filename}")
        return self._target

    def find(self) -> Result | None:
        """What need not be downloaded.

        Raises:
            FileNameError: as ``target``; it costs no download.
            Interrupted: as ``ClaimedJob.check``.
        """
        job, target = self._record.job, self.target()
        self._existing = None
        if self._record.name is None and job.naming is not Naming.FIXED:
            return None  # what has that name may be another job's
        if not job.digests:
            note = _source_of(target)
            self._existing = note if note and note.url == _digest_of(job.url) else None
            return None
        found = _content(target, job.digests, job.size, self.job.check)
        return Result(*found, ("present",)) if found else None

    def wanted(self, url: str) -> Wanted:
        """What to ask for."""
        job = self._record.job
        headers = headers_for(job, url)
        if self._existing and url == job.url:
            headers |= self._existing.conditions
        return Wanted(url, job.sha256, job.size, headers, job.digest)

    def unchanged(self) -> Result | None:
        """The existing file, after the server has said that it has nothing newer; None if it is not what it was.

        Raises:
            Interrupted: as ``ClaimedJob.check``.
        """
        known, self._existing = self._existing, None
        if known is None:
            return None
        found = _content(self.target(), [f"sha256:{known.sha256}"], known.size, self.job.check)
        return Result(*found, ("unchanged",), known.etag, known.last_modified) if found else None

    def choose_name(self, fetched: Fetched) -> None:
        """Find out what the file is to be called.

        Raises:
            LeaseLostError: another worker holds the job.
            FileNameError: there is no name for it.
        """
        job = self._record.job
        if job.naming is Naming.FIXED:
            self.target()
            return
        proposed = from_disposition(fetched.disposition) if job.naming is Naming.SERVER else None
        wanted = str(PurePosixPath(job.filename).with_name(proposed)) if proposed else job.filename
        names = candidates(wanted, int(self._record.id.rpartition(".")[2]))
        name = self.job.insist(lambda: this_worker.ledger().reserve_name(self.job.claim, names))
        self.job.must_hold(name is not None)
        if not name:
            raise FileNameError(f"expected a free name like {wanted!r}, all of them are taken")
        self.target(name)

    def link(self, *, replace: bool = False) -> None:
        """Give the verified file its final name, its time and the note of its source.

        Raises:
            FileExistsError: something has that name already.
            TempLostError: the temp file is not what was verified.
        """
        fetched, target = self.fetched, self._target
        assert fetched and target  # noqa: S101, PT018 - it is whole and has a name
        folder = os.path.dirname(target)  # noqa: PTH120 - as a Path, it costs each small file more than its hash
        if not os.path.isdir(folder):  # noqa: PTH112
            Path(folder).mkdir(parents=True, exist_ok=True)
        stamp = partial(_stamp, fetched=fetched, url=self._record.job.url, wanted=self._wanted_name)
        fsync = self._settings.fsync
        if self.open_temp:
            self.open_temp.publish(target, fsync=fsync, replace=replace, stamp=stamp)
        else:
            stamp(self.job.temps.mine)
            tempfile.publish(self.job.temps.mine, Path(target), fsync=fsync, replace=replace, identity=fetched.identity)

    @property
    def _wanted_name(self) -> str:
        return _digest_of(f"{self._record.batch}/{self._record.job.filename}")

    def _is_ours(self, target: str) -> bool:
        """Whether an existing file was published for this very name of this batch, and not touched since."""
        note = _source_of(target)
        if note is None:
            return False
        return note.wanted == self._wanted_name if note.wanted else note.url == _digest_of(self._record.job.url)

    def link_beside(self, run: Run) -> None:
        """The name is taken. An equal file is left, an older one of this job is replaced; else there is a next name.

        An earlier holder may have published and died before it could close the record, or an older batch of this name.
        Any other file is its owner's, also one whose name differs in case where that does not count.

        Raises:
            LeaseLostError: another worker holds the job.
            FileNameError: there is no name for it.
        """
        fetched, wanted = self.fetched, self._filename
        assert fetched is not None  # noqa: S101 - it is whole
        self.job.confirm()
        if self.open_temp:  # now a later holder can take it away
            run(self.open_temp.save)
        for name in candidates(wanted, int(self._record.id.rpartition(".")[2])):
            target, self._taken = self.target(name), name != wanted
            if _content(target, [f"sha256:{fetched.sha256}"], fetched.size, self.job.check):
                self.open_temp = None  # so its temp file, if it has one, is removed
                return
            replace = self._is_ours(target)
            self.job.confirm()  # reading took its time
            with suppress(FileExistsError):
                run(partial(self.link, replace=replace))
                return
        raise FileNameError(
            f"expected a free name like {wanted!r}, files that are not this job's have all of them; move them away"
        )

    def result(self, url: str, *notes: str, step: float | None = None) -> Result:
        """
        Args:
            url: the one that brought the file.
            step: seconds that the job's step took.
        """
        fetched, job = self.fetched, self._record.job
        assert fetched is not None  # noqa: S101 - it was published
        if url != job.url:
            notes = (f"mirror: {urlsplit(url).hostname}", *notes)
        if self._taken:
            notes = (*notes, "name: taken by another file")
        found, kind = job.filename.rpartition("/")[2], (fetched.content_type or "").partition(";")[0].strip().lower()
        if kind in _PAGES and _NO_PAGE.search(found):
            notes = (f"{kind} where {found} was asked for", *notes)
        return Result(
            fetched.size,
            fetched.sha256,
            (*fetched.notes, *notes),
            fetched.etag,
            fetched.last_modified,
            self._filename if self._filename != (self._record.name or job.filename) else None,
            fetched.url,
            fetched.content_type,
            step,
        )


def publish(whole: Sequence[JobFiles], run: Run) -> list[Exception | None]:
    """Publish the files of those jobs whose claim still stands; for each its error.

    Args:
        run: where links are made.
    """
    if not whole:
        return []
    errors: list[Exception | None]
    try:
        errors = [None if stands else LeaseLostError(HELD) for stands in confirm([files.job for files in whole])]
    except LeaseLostError as end:
        return [end] * len(whole)

    def attempt(at: int, link: Callable[[], None]) -> None:
        try:
            link()
            errors[at] = None
        except Exception as error:
            errors[at] = error

    def link_standing() -> None:
        for at, error in enumerate(errors):
            if error is None:
                attempt(at, whole[at].link)

    run(link_standing)
    for at, error in enumerate(errors):
        if isinstance(error, FileExistsError):
            attempt(at, partial(whole[at].link_beside, run))
    return errors


def _stamp(temp: Path | int, fetched: Fetched, url: str, wanted: str) -> None:
    """Give a whole file, which has no name yet, its time and the note of its source, as far as that is possible.

    Args:
        temp: path, or descriptor of the open file.
    """
    mtime_ns = None
    with suppress(OSError, ValueError, OverflowError):
        changed = _nanoseconds(fetched.last_modified or "")
        os.utime(temp, ns=(changed, changed))
        mtime_ns = changed
    with suppress(OSError, AttributeError):  # no such attributes on this file system, or on this system
        if mtime_ns is None:
            mtime_ns = os.stat(temp).st_mtime_ns  # noqa: PTH116 - of a descriptor, too
        note = SourceNote(
            _digest_of(url), fetched.sha256, fetched.size, mtime_ns, fetched.etag, fetched.last_modified, wanted
        )
        text = json.dumps({name: getattr(note, name) for name in SourceNote.__slots__}).encode()  # asdict is slow
        if len(text) <= _LONGEST:
            os.setxattr(temp, _ATTRIBUTE, text)


@lru_cache(1000)  # files of one server often have one date
def _nanoseconds(date: str) -> int:
    return int(parsedate_to_datetime(date).timestamp()) * 10**9


def _source_of(target: str) -> SourceNote | None:
    """The note of a published file, if it was not touched since."""
    try:
        note = SourceNote(**json.loads(os.getxattr(target, _ATTRIBUTE, follow_symlinks=False)))
        found = os.stat(target, follow_symlinks=False)  # noqa: PTH116
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return note if (note.size, note.mtime_ns) == (found.st_size, found.st_mtime_ns) else None


def _content(
    target: str, expected: Sequence[str], size: int | None, check: Callable[[], None]
) -> tuple[int, str] | None:
    """Length and sha256 of a file whose content has these digests; None: there is no such file.

    Args:
        expected: digests, each as ``Job.digest``.
        size: expected length, if known: then another one costs no reading.
        check: called between pieces; what it raises goes through.
    """
    try:
        fd = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    run, piece = this_worker.fetcher().run, b"-"
    names = {"sha256", *(digest.partition(":")[0] for digest in expected)}
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in names}

    def hash_piece() -> None:
        nonlocal piece
        piece = os.read(fd, PIECE)
        for digest in digests.values():
            digest.update(piece)

    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or size not in (None, found.st_size):
            return None
        while piece:
            check()
            run(hash_piece)
        got = {name: digest.hexdigest() for name, digest in digests.items()}
        same = {f"{name}:{text}" for name, text in got.items()}.issuperset(expected)
        return (found.st_size, got["sha256"]) if same else None
    except OSError:  # a disk that cannot read it can perhaps still be written to
        return None
    finally:
        os.close(fd)


def _digest_of(text: str) -> str:
    """A URL may be a secret, its digest is none."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def clean_up(downloads: Path, ledger: Ledger, keep: float) -> int:
    """Remove temp files that no job will continue; how many files.

    A holder removes its temp files before it closes the record, unless a retry could continue them. One that died
    cannot, and the sweep never touches the disk. So each worker looks at the folder every ``CLEAN_UP_EVERY`` seconds.

    Args:
        keep: seconds for which what a retry could continue stays.
    """
    files: dict[str, list[Path]] = {}
    for path in (downloads / FOLDER).glob("*.part*"):
        if match := _TEMP_NAME.fullmatch(path.name):
            job = re.sub("~(.)", lambda small: small[1].upper(), match["job"])
            files.setdefault(job, []).append(path)
    records = {record.id: record for record in ledger.read(files)}
    removed = 0
    for job, paths in files.items():
        with suppress(OSError):
            age = time.time() - max(path.stat().st_mtime for path in paths)  # validators are older than their bytes
            if age <= _kept_for(records.get(job), keep):
                continue
            for path in paths:
                path.unlink()
                removed += 1
    return removed


def _kept_for(record: JobRecord | None, keep: float) -> float:
    """Seconds for which a job's temp files stay after they were written to."""
    if record is None:
        return _FOREIGN
    if not record.state.final:
        return math.inf
    kind = record.last.kind if record.last and record.state is JobState.FAILED else None
    return keep if kind and LEAVES[kind].keeps_partial else -math.inf
