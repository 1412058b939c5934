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
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError

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
_STRENGTH = ("sha512", "sha1", "md5")  # of these digests the first one that is given is verified, if there is no sha256
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110's token
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


def _from_json(value: Any) -> Any:
    """In CSV a cell holds headers and mirrors as JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _from_digits(value: Any) -> Any:
    """``1000``, ``"1000"``, and ``1000.0``, which pandas makes of it; its NaN is a cell without a size."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}(\.0*)?", value):
        return int(value.partition(".")[0])
    if isinstance(value, float) and (value.is_integer() or math.isnan(value)):
        return None if math.isnan(value) else int(value)
    return value


def _from_urls(value: Any) -> Any:
    """URLs separated by blanks, or JSON."""
    return value.split() if isinstance(value, str) and not value.lstrip().startswith("[") else _from_json(value)


def _hex(algorithm: str) -> AfterValidator:
    length = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
    pattern = re.compile(f"(?:{algorithm}:)?([0-9a-f]{{{length}}})")  # as Zenodo writes it

    def check(text: str) -> str:
        if not (match := pattern.fullmatch(text.lower())):
            raise ValueError(f"expected {algorithm} to be {length} hexadecimal digits, got {shown(text)}")
        return match[1]

    return AfterValidator(check)


def _filename(text: str) -> str:
    text = re.sub(r"^(\./+)+", "", text)
    return text if _PLAIN_NAME.fullmatch(text) else check_filename(text)


def _name_of_url(url: str) -> str:
    return match[1] if (match := _PLAIN_END.fullmatch(url)) else name_of_url(url)


def _headers(value: Mapping[str, str]) -> Mapping[str, str]:
    """They can neither break a request nor lead it astray. A value may be a secret and is never repeated."""
    for name, text in value.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"expected the name of a header, got {shown(name)}")
        if name.lower() in _OURS:
            raise ValueError(f"expected headers that a download does not set itself, got {name}")
        if not _VALUE.fullmatch(text):
            raise ValueError(f"expected the value of header {name} to be a text of visible ASCII characters")
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("expected each header once")
    if sum(len(name) + len(text) for name, text in value.items()) > _MOST_HEADERS:
        raise ValueError(f"expected at most {_MOST_HEADERS} bytes of headers, got more")
    return value


_Text = InstanceOf[str]  # a lone surrogate, which pydantic refuses, is for the checks of URLs and names


class ManifestRow(BaseModel):
    """An entry's fields. The descriptions are for error messages, each with what stands before "got"."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    url: Annotated[_Text, AfterValidator(check_url)] = Field(description="a text,")
    filename: Annotated[_Text, AfterValidator(_filename)] | None = Field(None, description="a text,")
    sha256: Annotated[_Text, _hex("sha256")] | None = Field(None, description="a text,")
    size: Annotated[Annotated[int, Field(ge=0, lt=2**63)] | None, BeforeValidator(_from_digits)] = Field(
        None, description="a whole number of bytes, 0 or more;"
    )
    headers: Annotated[dict[str, str], BeforeValidator(_from_json), AfterValidator(_headers)] | None = Field(
        None, description="a JSON object of texts"
    )
    mirrors: (
        Annotated[
            list[Annotated[_Text, AfterValidator(check_url)]],
            Field(max_length=MOST_MIRRORS),
            BeforeValidator(_from_urls),
        ]
        | None
    ) = Field(None, description=f"a list of at most {MOST_MIRRORS} URLs")
    md5: Annotated[_Text, _hex("md5")] | None = Field(None, description="a text,")
    sha1: Annotated[_Text, _hex("sha1")] | None = Field(None, description="a text,")
    sha512: Annotated[_Text, _hex("sha512")] | None = Field(None, description="a text,")


FIELDS = tuple(ManifestRow.model_fields)


def _row(fields: Mapping[str, Any]) -> ManifestRow:
    """
    Raises:
        ValueError: what was expected, and what we got.
    """
    try:
        return ManifestRow.model_validate(fields)
    except ValidationError as error:
        raise ValueError(_problem(error)) from error


def _problem(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    if unknown := [str(each["loc"][0]) for each in found if each["type"] == "extra_forbidden"]:
        return (
            f"expected the keys {', '.join(FIELDS)}, got {', '.join(map(shown, unknown))}; --columns takes some by name"
        )
    first = found[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    name = str(first["loc"][0])
    if first["type"] == "missing" or (name == "url" and first["input"] is None):
        return "expected a url, got none"
    got = f" got {shown(str(first['input']))}" if name not in ("headers", "mirrors") else ""
    return f"expected {name} to be {ManifestRow.model_fields[name].description}{got}"


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


def _job(row: ManifestRow, names: Names, known: Known | None, naming: Naming, step: str | None) -> Job | None:
    """The name comes last: a bad entry takes none away. None: the entry was there before, or the batch has it."""
    named = row.filename is not None
    if not names.is_new(row.url, row.filename):
        return None
    url, headers = _with_user(row)
    digest = (
        None if row.sha256 else next((f"{each}:{hex_}" for each in _STRENGTH if (hex_ := getattr(row, each))), None)
    )
    wanted = row.filename or _name_of_url(url)
    place = wanted if named else names.of_url(wanted)
    job = Job(
        url,
        wanted if known else names.give(place),
        row.sha256,
        row.size,
        tuple(headers.items()),
        tuple(each for each in dict.fromkeys(row.mirrors or ()) if each != url),
        Naming.RESERVED if naming and named else naming,
        step,
        digest,
    )
    if not known:
        return job
    return None if known.take(job, named=named) else replace(job, filename=names.give(place))


def _with_user(row: ManifestRow) -> tuple[str, Mapping[str, str]]:
    """URL and headers, with the user and the password of the URL as Basic authentication.

    Raises:
        ValueError: it has them twice, or a mirror has some: headers are for the origin of the URL.
    """
    if row.mirrors and any(without_user(each)[1] for each in row.mirrors if "@" in each):
        raise ValueError("expected mirrors without user and password")
    headers = row.headers or {}
    url, said = without_user(row.url) if "@" in row.url else (row.url, None)
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
                if isinstance(entry, str) and not known and "@" not in entry:  # most lines
                    wanted = _name_of_url(check_url(entry))
                    if names.is_new(entry, None):
                        yield Job(entry, names.give(names.of_url(wanted)), naming=naming, step=self.step)
                    continue
                row = _row({"url": entry} if isinstance(entry, str) else entry)
                if job := _job(row, names, known, naming, self.step):
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
