"""File names: one rule for a URL, a manifest and a server, and where a record's file goes.

A cleaned name is one path segment, and its own cleaned name. It is never hidden and never a device, has at most 255
bytes, shows as what it is, and is valid on every common file system. A checked filename is a path of such segments.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from download.errors import FileNameError

LONGEST = 255  # bytes, of a path segment
LONGEST_PATH = 1024  # bytes; leaves room for the downloads folder below PATH_MAX
UNNAMED = "download"  # for a URL that ends in a slash

_SUFFIX = 16  # bytes, of an extension that is worth keeping
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(?=\.|\Z)", re.IGNORECASE)
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}/)*[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")  # most paths are
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Controls go, and so do marks that turn the writing direction: "fdp.exe" can be made to look like "exe.pdf".
# What has no glyph that people could tell apart becomes something that has.
_UNPRINTABLE = {"Cc": "", "Cf": "", "Zl": "", "Zp": "", "Zs": " ", "Co": "_", "Cn": "_"}
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token
_PARAMETER = re.compile(rf';\s*({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)


def final_path(downloads: Path, path: str) -> str:
    """A record's path below the downloads folder.

    The producer has checked it already. This is the second lock: for a record that something else wrote, and for a
    folder that became a link. A process that can swap folders after this check owns the downloads anyway.

    Raises:
        FileNameError: it may lead elsewhere.
    """
    try:
        check_path(path)
    except ValueError as error:
        raise FileNameError(f"{error}; nothing was published") from error
    for slash in re.finditer("/", path):
        folder = path[: slash.start()]
        if os.path.islink(f"{downloads}/{folder}"):  # noqa: PTH114 - asked for each file
            raise FileNameError(f"expected a folder, but {folder!r} is a symbolic link; nothing was published")
    return f"{downloads}/{path}"


def from_disposition(header: str | None) -> str | None:
    """The name that a Content-Disposition proposes (RFC 6266: filename* before filename); None: none to use.

    Args:
        header: bytes read as Latin-1.
    """
    found: dict[str, str] = {}
    for name, text in _PARAMETER.findall(header or ""):
        found.setdefault(name.lower(), text.strip())
    if extended := _EXTENDED.fullmatch(found.get("filename*", "").strip('"')):
        try:
            name = unquote(extended[2], encoding=extended[1], errors="strict")
        except UnicodeDecodeError:
            name = ""
        if cleaned := clean(name):
            return cleaned
    plain = found.get("filename", "")
    if plain.startswith('"'):
        plain = re.sub(r"\\(.)", r"\1", plain[1:].removesuffix('"'), flags=re.DOTALL)
    return clean(decoded(plain.encode("latin-1", "replace")))


def name_of_url(url: str) -> str:
    """A name for the file of a URL, whatever the URL is: the last segment of its path, if there is one to use."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return UNNAMED
    return clean(decoded(unquote_to_bytes(path.rpartition("/")[2]))) or UNNAMED


def check_filename(text: str) -> str:
    """A manifest's filename with its segments cleaned.

    Raises:
        ValueError: it is not a relative path below the batch's folder.
    """
    segments = []
    for segment in _segments(text):
        if not (cleaned := clean(segment)):
            raise ValueError(f"expected every part of filename to name something, {segment!r} does not; got {text!r}")
        segments.append(cleaned)
    name = "/".join(segments)
    if len(name.encode()) > LONGEST_PATH:
        raise ValueError(f"expected filename to have at most {LONGEST_PATH} bytes, got {len(name.encode())}")
    return name


def check_path(path: str) -> None:
    """Refuse what no checked filename is: a path that may leave its folder, or that cannot be written.

    It does not ask for a *clean* path: which characters are printable depends on the version of Unicode, hence of
    the Python that cleaned the name.

    Raises:
        ValueError: what was expected, and what we got.
    """
    if _PLAIN.fullmatch(path):
        return
    if any(_UNWRITABLE.search(segment) or len(segment.encode()) > LONGEST for segment in _segments(path)):
        raise ValueError(f"expected a path of at most {LONGEST} bytes per part, without controls; got {path!r}")


def clean(name: str) -> str | None:
    """One path segment made of a name; None: nothing of it is left."""
    # A lone surrogate cannot be encoded, hence the round trip.
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode("utf-8"))
    name = name.replace("\\", "/").rpartition("/")[2]
    if not name.isprintable():
        name = "".join(_UNPRINTABLE.get(unicodedata.category(char), char) for char in name)
    name = unicodedata.normalize("NFC", _FORBIDDEN.sub("_", name)).strip(" .")
    name = _shortened(name)
    if _DEVICES.match(name):
        name = _shortened("_" + name)
    return name or None


def suffixed(name: str, number: int) -> str:
    """The name for the number-th of several files that all want it: ``a.txt``, ``a-2.txt``, ``a-3.txt``."""
    return name if number <= 1 else _shortened(name, f"-{number}")


def candidates(wanted: str, ordinal: int) -> list[str]:
    """What to try for a job's file: the name, then with the job's ordinal once, twice, three times."""
    names, path = [wanted], PurePosixPath(wanted)
    for _ in range(3):
        path = path.with_name(_shortened(path.name, f"-{ordinal}"))
        names.append(str(path))
    return names


def decoded(raw: bytes) -> str:
    """UTF-8 if it is, Latin-1 otherwise: what servers send."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _segments(path: str) -> list[str]:
    segments = path.split("/")
    if "\\" in path or any(segment.strip() in ("", ".", "..") for segment in segments):
        raise ValueError(
            "expected filename to be a relative path like 'folder/name.txt', without '.', '..' or backslash; "
            f"got {path!r}"
        )
    return segments


def _shortened(name: str, mark: str = "") -> str:
    """At most 255 bytes, with the mark before the extension, which is kept if it is short."""
    suffix = PurePosixPath(name).suffix if name not in ("", ".", "..") else ""
    if len(suffix.encode()) > _SUFFIX:
        suffix = ""
    stem = name.removesuffix(suffix)
    room = LONGEST - len((mark + suffix).encode())
    if len(stem.encode()) > room:
        # Cutting may split a character, and leave a blank or a dot at the end.
        stem = stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .")
    return stem + mark + suffix
