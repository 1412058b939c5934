"""Manifests: what to download, one job per entry, read in bounded memory.

``formats`` says what an entry is; here its fields are checked, and the jobs get names that are unique in their batch. A
bad entry does not spoil the others: it comes out as a ``BadLine``, in its place.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError

from download.filenames import check_filename, name_of_url, suffixed
from ledger.jobs import Job, Naming, folded
from producer.errors import ManifestError
from producer.formats import MOST_MIRRORS, Entry, Format, entries, format_of
from producer.urls import check_url, shown

_MOST_HEADERS = 8192  # bytes, names and values together; many servers take no more
_MOST_SAID = 100  # bad lines named one by one
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
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value) else value


def _from_urls(value: Any) -> Any:
    """URLs separated by blanks, or JSON."""
    return value.split() if isinstance(value, str) and not value.lstrip().startswith("[") else _from_json(value)


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError(f"expected sha256 to be 64 hexadecimal digits, got {shown(text)}")
    return text.lower()


def _filename(text: str) -> str:
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
    sha256: Annotated[_Text, AfterValidator(_digest)] | None = Field(None, description="a text,")
    size: Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(_from_digits)] | None = Field(
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
        return f"expected the keys {', '.join(FIELDS)}, got {', '.join(map(shown, unknown))}"
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
        key = blake2b(f"{url}\n{filename or ''}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
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


# -- jobs


@dataclass(frozen=True, slots=True)
class BadLine:
    number: int
    problem: str  # what was expected, and what we got

    def __str__(self) -> str:
        return f"line {self.number}: {self.problem}"


def read(
    source: BinaryIO | Sequence[str],
    format_: Format | None = None,
    *,
    names: Names | None = None,
    server_names: bool = False,
    step: str | None = None,
) -> Iterator[Job | BadLine]:
    """The jobs and bad lines of a manifest, or of URLs, in order. Names are unique among the jobs.

    Args:
        names: of the batch; None: a new one.
        server_names: where the manifest gives no filename, the server may.
        step: of each job.

    Raises:
        ManifestError: a CSV header, a Parquet file or a Metalink document that we do not understand.
    """
    found: Iterable[Entry] = enumerate(source, 1) if isinstance(source, Sequence) else entries(source, format_, FIELDS)
    names = names or Names()
    naming = Naming.SERVER if server_names else Naming.FIXED
    for number, entry in found:
        try:
            if isinstance(entry, str):
                wanted = _name_of_url(check_url(entry))
                if names.is_new(entry, None):
                    yield Job(entry, names.give(names.of_url(wanted)), naming=naming, step=step)
            elif isinstance(entry, ValueError):
                raise entry
            elif job := _job(_row(entry), names, server_names, step):
                yield job
        except ValueError as error:
            yield BadLine(number, str(error))


def _job(row: ManifestRow, names: Names, server_names: bool, step: str | None) -> Job | None:
    """The name comes last: a bad entry takes none away. None: the entry was there before."""
    if not names.is_new(row.url, row.filename):
        return None
    naming = Naming.FIXED
    if server_names:
        naming = Naming.SERVER if row.filename is None else Naming.RESERVED
    return Job(
        row.url,
        names.give(names.of_url(_name_of_url(row.url)) if row.filename is None else row.filename),
        row.sha256,
        row.size,
        tuple((row.headers or {}).items()),
        tuple(each for each in dict.fromkeys(row.mirrors or ()) if each != row.url),
        naming,
        step,
    )


@dataclass(slots=True)
class Reader:
    """What a command was given: URLs or a manifest, read once or, to be strict, twice."""

    source: BinaryIO | Sequence[str]
    format: str | None  # None: by the suffix of the manifest's name, or by its first line
    report: Callable[[str], None]  # of bad lines
    new_names: Callable[[], Names] = Names
    server_names: bool = False
    step: str | None = None
    bad: int = 0  # lines so far
    repeated: int = 0  # lines that were left out, of the last reading

    def check(self) -> None:
        """Read everything once, and be ready to read it again.

        Raises:
            ManifestError: a line is bad.
        """
        if not isinstance(self.source, Sequence) and not self.source.seekable():
            spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the command
            shutil.copyfileobj(self.source, spool)
            spool.seek(0)
            self.source = spool
        start = 0 if isinstance(self.source, Sequence) else self.source.tell()
        for _job in self.jobs():
            pass
        if self.bad:
            raise ManifestError(f"{self.bad} bad lines, and --strict was given; nothing was submitted")
        if not isinstance(self.source, Sequence):
            self.source.seek(start)

    def jobs(self) -> Iterator[Job]:
        """The good ones."""
        names = self.new_names()
        format_ = Format(self.format) if self.format else format_of(Path(str(getattr(self.source, "name", ""))))
        for item in read(self.source, format_, names=names, server_names=self.server_names, step=self.step):
            if isinstance(item, Job):
                yield item
                continue
            self.bad += 1
            if self.bad <= _MOST_SAID:
                self.report(str(item))
            elif self.bad == _MOST_SAID + 1:
                self.report(f"more than {_MOST_SAID} bad lines; the others are only counted")
        self.repeated = names.repeated
