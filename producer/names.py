"""The files' names: safe below the batch's folder, and unique in it.

A name is a relative path of cleaned segments. Names are given in the manifest's order, so the same manifest names the
same files each time; only hashes are kept, about 100 bytes per job.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

MAX_SEGMENT = 255  # bytes, of most file systems
MAX_PATH = 1024  # bytes; leaves room for the downloads folder below PATH_MAX
UNNAMED = "download"  # for a URL that ends in a slash


def clean_segment(text: str) -> str:
    """One path segment: no folder, nothing unprintable, not only dots, at most 255 bytes."""
    printable = "".join("_" if c in "/\\" or not c.isprintable() else c for c in text).strip()
    return _shortened(printable) if printable.strip(".") else UNNAMED


def name_of_url(url: str) -> str:
    """The last segment of the URL's path, percent-decoded."""
    return clean_segment(unquote(urlsplit(url).path.rpartition("/")[2], errors="replace"))


def check_filename(text: str) -> str:
    """A manifest's filename with its segments cleaned.

    Raises:
        ValueError: it is not a relative path below the batch's folder.
    """
    segments = text.split("/")
    if "\\" in text or any(segment.strip() in ("", ".", "..") for segment in segments):
        raise ValueError(
            "expected filename to be a relative path like 'folder/name.txt', without '.', '..' or backslash; "
            f"got {text!r}"
        )
    name = "/".join(map(clean_segment, segments))
    if len(name.encode()) > MAX_PATH:
        raise ValueError(f"expected filename to have at most {MAX_PATH} bytes, got {len(name.encode())}")
    return name


class Names:
    """The names of one batch."""

    def __init__(self) -> None:
        self._files: set[int] = set()
        self._folders: set[int] = set()
        self._next: dict[int, int] = {}  # of names wanted more than once: the suffix to try next

    def give(self, wanted: str) -> str:
        """The name, or ``stem-2.ext``, ``stem-3.ext`` ... if it is taken.

        Raises:
            ValueError: one of its folders is a file of this batch already.
        """
        folders = [str(folder) for folder in list(PurePosixPath(wanted).parents)[:-1]]
        for folder in folders:
            if _hash(folder) in self._files:
                raise ValueError(f"expected a folder, but {folder!r} in filename {wanted!r} is a file of this batch")
        name, key = wanted, _hash(wanted)
        number = self._next.get(key, 2)
        while _hash(name) in self._files or _hash(name) in self._folders:
            name = _suffixed(wanted, number)
            number += 1
        if name != wanted:
            self._next[key] = number
        self._files.add(_hash(name))
        self._folders.update(map(_hash, folders))
        return name


def _suffixed(name: str, number: int) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(_shortened(path.name, f"-{number}")))


def _shortened(segment: str, insert: str = "") -> str:
    """The segment with the insert before its extension, its stem cut so that all of it fits."""
    path = PurePosixPath(segment)
    stem, extension = path.stem, path.suffix
    if len(extension.encode()) > MAX_SEGMENT // 4:
        stem, extension = segment, ""
    room = MAX_SEGMENT - len((insert + extension).encode())
    return stem.encode()[:room].decode(errors="ignore") + insert + extension


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())
