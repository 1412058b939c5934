"""Manifests: what to download, one job per entry, read in bounded memory.

``formats`` says what an entry is; here its fields are checked, and the jobs get names that are unique in their batch. A
bad entry does not spoil the others: it comes out as a ``BadLine``, in its place.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from download.errors import shown
from download.filenames import check_filename, name_of_url, suffixed
from ledger.jobs import Job, Naming, folded
from ledger.records import encode_job
from producer.errors import ManifestError, OtherManifestError
from producer.formats import MOST_MIRRORS, Entry, Format, Remark, entries, format_of
from producer.urls import check_url, without_user

_MOST_HEADERS = 8192  # bytes, names and values together; many servers take no more
_MOST_SAID = 20  # bad lines named one by one
_PIECE = 1024 * 1024  # bytes
_DIGITS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32}  # hexadecimal ones; the first that is given is verified
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110's token
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")  # visible ASCII, no line break
# A download sets these itself, or they would change what its answer means.
_OURS = frozenset(
    {
        "host", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since",
        "accept-encoding", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect",
        "keep-alive", "proxy-authorization", "proxy-connection",
    }
)  # fmt: skip
# Most names need no cleaning, nor does the end of most URLs. Kept true by ``tests/unit/test_manifest.py``.
_SEGMENT = r"(?!(?i:con|prn|aux|nul|com|lpt))[A-Za-z0-9_-](?:[A-Za-z0-9._-]{0,200}[A-Za-z0-9_-])?"
_PLAIN_NAME = re.compile(rf"(?:{_SEGMENT}/){{0,4}}{_SEGMENT}")
_PLAIN_END = re.compile(rf"https?://[^/?#]+/(?:[^?#]*/)?({_SEGMENT})")


# -- the fields of an entry


def _filename(text: str) -> str:
    text = re.sub(r"^(\./+)+", "", text)
    return text if _PLAIN_NAME.fullmatch(text) else check_filename(text)


def _digest(name: str, text: str) -> str:
    digest = text.lower().removeprefix(f"{name}:")  # as Zenodo writes it
    if not re.fullmatch(f"[0-9a-f]{{{_DIGITS[name]}}}", digest):
        raise ValueError(f"expected {name} to be {_DIGITS[name]} hexadecimal digits, got {shown(text)}")
    return digest


def _size(value: Any) -> int | None:
    """``1000``, ``"1000"``, and ``1000.0``, which pandas makes of it; its NaN is a cell without a size."""
    size = value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        size = int(value) if value.is_integer() else value
    elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}(\.0*)?", value):
        size = int(value.partition(".")[0])
    if type(size) is not int or not 0 <= size < 2**63:
        raise ValueError(f"expected size to be a whole number of bytes, 0 or more; got {shown(str(value))}")
    return size


def _from_json(value: Any) -> Any:
    """In CSV a cell holds headers and mirrors as JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _headers(value: Any) -> Mapping[str, str]:
    """They can neither break a request nor lead it astray. A value may be a secret and is never repeated."""
    found = _from_json(value)
    if not isinstance(found, dict) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise ValueError("expected headers to be a JSON object of texts")
    for header, text in found.items():
        if not _HEADER.fullmatch(header):
            raise ValueError(f"expected the name of a header, got {shown(header)}")
        if header.lower() in _OURS:
            raise ValueError(f"expected headers that a download does not set itself, got {header}")
        if not _VALUE.fullmatch(text):
            raise ValueError(f"expected the value of header {header} to be a text of visible ASCII characters")
    if len({header.lower() for header in found}) < len(found):
        raise ValueError("expected each header once")
    if sum(map(len, (*found, *found.values()))) > _MOST_HEADERS:
        raise ValueError(f"expected at most {_MOST_HEADERS} bytes of headers, got more")
    return found


def _mirrors(value: Any) -> list[str]:
    """A list, also as JSON, or URLs separated by blanks; without passwords, because headers are for one origin."""
    separated = isinstance(value, str) and not value.lstrip().startswith("[")
    found = value.split() if separated else _from_json(value)
    if not isinstance(found, list) or len(found) > MOST_MIRRORS or not all(isinstance(each, str) for each in found):
        raise ValueError(f"expected mirrors to be a list of at most {MOST_MIRRORS} URLs")
    if any(without_user(check_url(each))[1] for each in found):
        raise ValueError("expected mirrors without user and password")
    return found


_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "url": check_url,
    "filename": _filename,
    "sha256": partial(_digest, "sha256"),
    "size": _size,
    "headers": _headers,
    "mirrors": _mirrors,
    **{name: partial(_digest, name) for name in ("md5", "sha1", "sha512")},
}
FIELDS = tuple(_FIELDS)


def _checked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an entry, without those that are empty.

    Raises:
        ValueError: what was expected, and what we got.
    """
    if unknown := [name for name in entry if name not in _FIELDS]:
        raise ValueError(
            f"expected the keys {', '.join(FIELDS)}, got {', '.join(map(shown, unknown))}; --columns takes some by name"
        )
    if entry.get("url") is None:
        raise ValueError("expected a url, got none")
    given = {name: value for name in _FIELDS if (value := entry.get(name)) is not None}
    for name, value in given.items():
        if not isinstance(value, str) and _FIELDS[name] not in (_size, _headers, _mirrors):
            raise ValueError(f"expected {name} to be a text, got {shown(str(value))}")
        given[name] = _FIELDS[name](value)
    return given


# -- names


class Names:
    """The names of one batch: unique, also where case does not count, and given in the manifest's order.

    So the same manifest names the same.
    Of each name only a hash is kept, about 70 bytes per job. Should two hashes be equal, one name gets a number.
    """

    def __init__(self, shard: int = 0, *, dedup: bool = False) -> None:
        """
        Args:
            shard: files per folder, of those that the manifest does not name; 0: all in one.
            dedup: leave out what was there before.
        """
        self._shard = shard
        self._dedup = dedup
        self._given = 0
        self._files: set[int] = set()
        self._folders: set[int] = set()
        self._next: dict[str, int] = {}  # of names wanted more than once, folded: the suffix to try next
        self._seen: set[bytes] = set()
        self.repeated = 0

    def is_new(self, url: str, filename: str | None) -> bool:
        """Whether this URL has not come with this filename; without a filename it is another entry."""
        if not self._dedup:
            return True
        key = hashlib.blake2b(f"{url}\n{filename or ''}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self.repeated += key in self._seen
        new = key not in self._seen
        self._seen.add(key)
        return new

    def of_url(self, name: str) -> str:
        """Where the next file goes, if the manifest does not name it."""
        return f"{self._given // self._shard:04d}/{name}" if self._shard else name

    def give(self, wanted: str) -> str:
        """The name, or ``stem-2.ext``, ``stem-3.ext`` ... if it is taken.

        Args:
            wanted: a checked filename.

        Raises:
            ValueError: one of its folders is a file of this batch already.
        """
        folders = [wanted[: slash.start()] for slash in re.finditer("/", wanted)] if "/" in wanted else []
        for folder in folders:
            if hash(folded(folder)) in self._files:
                raise ValueError(f"expected a folder, but {folder!r} in filename {wanted!r} is a file of this batch")
        name, path, alike = wanted, None, folded(wanted)
        number, taken = self._next.get(alike, 2), hash(alike)
        while taken in self._files or taken in self._folders:
            path = path or PurePosixPath(wanted)
            name = str(path.with_name(suffixed(path.name, number)))
            taken = hash(folded(name))
            number += 1
        if name != wanted:
            self._next[alike] = number
        self._given += 1
        self._files.add(taken)
        self._folders.update(hash(folded(folder)) for folder in folders)
        return name


class Known:
    """The jobs that a batch has, for a manifest that was mended or that grew: a line that asks for one finds it.

    Of each job a hash and its filename are kept. The name that a line would get now may be another one than it got
    then, so a name with a number counts as the name.
    """

    def __init__(self, jobs: Iterable[Job], names: Names) -> None:
        """
        Args:
            names: get the names of these jobs, so that no other job does.
        """
        self._names: dict[bytes, list[str]] = {}
        for job in jobs:
            self._names.setdefault(self._key(job), []).append(job.filename)
            with suppress(ValueError):  # what older rules allowed
                names.give(job.filename)

    @property
    def left(self) -> int:
        """Jobs that no line asked for."""
        return sum(map(len, self._names.values()))

    def take(self, job: Job, *, named: bool) -> bool:
        """Whether the batch has a job for this line; each is found once.

        Args:
            job: with the filename that it wants,
            named: ... which the manifest gave; else the folder may be another one.
        """
        there, wanted = self._names.get(self._key(job), []), PurePosixPath(job.filename)
        for name in sorted(there, key=len):  # without a number first
            path = PurePosixPath(name)
            number = re.search(r"-(\d{1,9})(?=\.[^.]*$|$)", path.name)
            same = path.name in (wanted.name, number and suffixed(wanted.name, int(number[1])))
            if same and (not named or path.parent == wanted.parent):
                there.remove(name)
                return True
        return False

    @staticmethod
    def _key(job: Job) -> bytes:
        return hashlib.blake2b(encode_job(replace(job.spent, filename="")).encode(), digest_size=16).digest()


# -- jobs


@dataclass(frozen=True, slots=True)
class BadLine:
    number: int
    problem: str  # what was expected, and what we got
    lost: bool = True  # False: it counts

    def __str__(self) -> str:
        return f"line {self.number}: {self.problem}"


def _name_of_url(url: str) -> str:
    return match[1] if (match := _PLAIN_END.fullmatch(url)) else name_of_url(url)


def _job(fields: Mapping[str, Any], names: Names, known: Known | None, naming: Naming, step: str | None) -> Job | None:
    """The name comes last: a bad entry takes none away. None: the entry was there before, or the batch has it."""
    filename = fields.get("filename")
    if not names.is_new(fields["url"], filename):
        return None
    url, headers = _with_user(fields)
    digest = next((name for name in _DIGITS if name in fields), "sha256")
    wanted = filename or _name_of_url(url)
    place = wanted if filename else names.of_url(wanted)
    job = Job(
        url,
        wanted if known else names.give(place),
        fields.get("sha256"),
        fields.get("size"),
        tuple(headers.items()),
        tuple(each for each in dict.fromkeys(fields.get("mirrors", ())) if each != url),
        Naming.RESERVED if naming and filename else naming,
        step,
        None if digest == "sha256" else f"{digest}:{fields[digest]}",
    )
    if not known:
        return job
    return None if known.take(job, named=filename is not None) else replace(job, filename=names.give(place))


def _with_user(fields: Mapping[str, Any]) -> tuple[str, Mapping[str, str]]:
    """URL and headers, with the user and the password of the URL as Basic authentication.

    Raises:
        ValueError: it has them twice.
    """
    headers = fields.get("headers", {})
    url, said = without_user(fields["url"])
    if said and "authorization" in map(str.lower, headers):
        raise ValueError("expected a user in the URL or a header Authorization, got both")
    return url, {**headers, "Authorization": said} if said else headers


@dataclass(slots=True)
class Reader:
    """What a command was given: URLs or a manifest. It is read once, or after ``keep`` more often."""

    source: BinaryIO | Sequence[str]
    format: str | None  # None: by the suffix of the manifest's name, or by its beginning
    report: Callable[[str], None]  # of bad lines
    new_names: Callable[[], Names] = Names
    server_names: bool = False
    step: str | None = None
    columns: Mapping[str, str] | None = None
    bad: int = 0  # lines so far, of the last reading
    repeated: int = 0  # lines that were left out, of the last reading
    _start: int | None = None  # where each reading begins
    _piped: bool = False
    _said: int = 0  # the last line that was reported

    def keep(self) -> None:
        """Be ready to read it again: what comes through a pipe is copied into the temporary folder."""
        if isinstance(self.source, Sequence) or self._start is not None:
            return
        if not self.source.seekable():
            pipe, self._piped = self.source, True
            self.source = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the command
            shutil.copyfileobj(pipe, self.source, _PIECE)
            self.source.seek(0)
        self._start = self.source.tell()

    def check(self) -> None:
        """Read everything once, and be ready to read it again.

        Raises:
            ManifestError: a line is bad.
        """
        self.keep()
        for _job in self.jobs():
            pass
        if self.bad:
            raise ManifestError(f"{self.bad} bad lines, and --strict was given; nothing was submitted")

    def missing(self, batch: Callable[[], Iterable[Job]]) -> Iterator[Job]:
        """The good ones that a batch does not have, after ``keep``; it is read twice.

        Raises:
            OtherManifestError: the batch has a job that is not here.
        """
        names = self.new_names()
        known = Known(batch(), names)
        for _job in self.jobs(names, known):
            pass
        if known.left:
            raise OtherManifestError(f"the manifest does not have {known.left:,} of its jobs")
        names = self.new_names()
        return self.jobs(names, Known(batch(), names))

    def jobs(self, names: Names | None = None, known: Known | None = None) -> Iterator[Job]:
        """The good ones; what is wrong with the others is reported once."""
        names, self.bad, said = names or self.new_names(), 0, self._said
        for item in self.items(names, known):
            if isinstance(item, Job):
                yield item
                continue
            self.bad += item.lost
            if item.number > self._said and (self.bad <= _MOST_SAID or not item.lost):
                self.report(str(item))
            self._said = max(self._said, item.number)
        if self.bad > _MOST_SAID and self._said > said:
            self.report(f"{self.bad:,} bad lines, the first {_MOST_SAID} of which are above")
        self.repeated = names.repeated

    def items(self, names: Names, known: Known | None = None) -> Iterator[Job | BadLine]:
        """Jobs and bad lines, in order.

        Args:
            names: of the batch; they are unique among the jobs.
            known: jobs of the batch, which are left out.

        Raises:
            ManifestError: a CSV header that we do not understand.
        """
        naming = Naming.SERVER if self.server_names else Naming.FIXED
        for number, entry in self._entries():
            try:
                if isinstance(entry, ValueError):
                    raise entry
                fields = {"url": check_url(entry)} if isinstance(entry, str) else _checked(entry)
                if job := _job(fields, names, known, naming, self.step):
                    yield job
            except ValueError as error:
                yield BadLine(number, str(error), lost=not isinstance(error, Remark))

    def _entries(self) -> Iterable[Entry]:
        """From the beginning."""
        if isinstance(self.source, Sequence):
            return enumerate(self.source, 1)
        self._piped = self._piped or not self.source.seekable()
        if self._start is not None:
            self.source.seek(self._start)
        format_ = Format(self.format) if self.format else format_of(Path(str(getattr(self.source, "name", ""))))
        return entries(self.source, format_, FIELDS, self.columns, piped=self._piped)
