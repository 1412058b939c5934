"""A job's file and its final name: whether it is there already, what it is to be called, and how it gets there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from download.errors import FileNameError, LeaseLostError
from download.fetch import Fetched, Wanted
from download.filenames import candidates, final_path, from_disposition
from download.tempfile import publish
from ledger.jobs import Naming, Result
from ledger.settings import Settings
from worker import present
from worker.hold import Hold
from worker.mirrors import headers_for
from worker.process import this_worker


class Place:
    def __init__(self, hold: Hold, settings: Settings, temp: Path) -> None:
        self._hold = hold
        self._record = hold.claim.record
        self._job = self._record.job
        self._settings = settings
        self._temp = temp
        self._known: present.Origin | None = None  # what is there, and the server is asked about

    def look(self) -> Result | None:
        """What need not be downloaded.

        Raises:
            FileNameError: a name that cannot be published; it costs no download.
            Interrupted: as ``Hold.check`` says.
        """
        job, final = self._job, final_path(self._settings.downloads, self._record.path)
        if self._record.name is None and job.naming is not Naming.FIXED:
            return None  # what has that name may be another job's
        self._known = None
        if job.sha256 is None:
            self._known = present.origin_of(final, job.url)
            return None
        size = self._holds(final, job.sha256, job.size)
        return None if size is None else Result(size, job.sha256, ("present",))

    def wanted(self, url: str) -> Wanted:
        """What to ask for."""
        headers = headers_for(self._job, url)
        if self._known and url == self._job.url:
            headers |= self._known.conditions
        return Wanted(url, self._job.sha256, self._job.size, headers)

    def unchanged(self) -> Result | None:
        """What is there, now that the server says that it has nothing newer; None if it is not what it was.

        Raises:
            Interrupted: as ``Hold.check`` says.
        """
        known, self._known = self._known, None
        if known is None:
            return None
        final = final_path(self._settings.downloads, self._record.path)
        size = self._holds(final, known.sha256, known.size)
        return None if size is None else Result(size, known.sha256, ("unchanged",), known.etag, known.last_modified)

    def publish(self, fetched: Fetched, url: str) -> Result:
        """Give the file its name.

        Raises:
            LeaseLostError: another worker holds the job.
            TempLostError: the temp file is not what was verified.
            FileNameError: there is no name for it.
        """
        filename = self._filename(fetched)
        final = final_path(self._settings.downloads, f"{self._record.batch}/{filename}")
        present.stamp(self._temp, fetched, self._job.url)
        self._hold.confirm()
        if not final.parent.is_dir():
            final.parent.mkdir(parents=True, exist_ok=True)
        fsync, identity = self._settings.fsync, fetched.identity
        try:
            publish(self._temp, final, fsync=fsync, identity=identity)
        except FileExistsError:
            # An earlier holder published and died before it could say so; or an older batch of this name did.
            self._hold.confirm()
            publish(self._temp, final, fsync=fsync, identity=identity, replace=True)
        notes = fetched.notes if url == self._job.url else (*fetched.notes, f"mirror: {urlsplit(url).hostname}")
        return Result(fetched.size, fetched.sha256, notes, fetched.etag, fetched.last_modified)

    def _filename(self, fetched: Fetched) -> str:
        job = self._job
        if job.naming is Naming.FIXED:
            return job.filename
        proposed = from_disposition(fetched.disposition) if job.naming is Naming.SERVER else None
        wanted = str(PurePosixPath(job.filename).with_name(proposed)) if proposed else job.filename
        names = candidates(wanted, int(self._record.id.rpartition(".")[2]))
        name = self._hold.insist(lambda: this_worker.ledger().reserve_name(self._hold.claim, names))
        if name is None:
            raise LeaseLostError("another worker holds the job now")
        if not name:
            raise FileNameError(f"expected a free name like {wanted!r}, all of them are taken")
        return name

    def _holds(self, final: Path, sha256: str, size: int | None) -> int | None:
        run: Callable[[Callable[[], None]], None] = this_worker.fetcher().run
        return present.holds(final, sha256, size, self._hold.check, run)
