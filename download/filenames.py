"""File names where they meet the disk: what a server proposes, and where a record's file goes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from download.errors import FileNameError
from ledger.names import check_path, clean, decoded

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token
_PARAMETER = re.compile(rf';\s*({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)


def final_path(downloads: Path, path: str) -> Path:
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
    return Path(f"{downloads}/{path}")


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
