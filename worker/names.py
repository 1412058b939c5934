"""File names from URLs and Content-Disposition: whatever comes in, one safe path segment comes out.

The order for callers: ``from_disposition``, then ``from_url``; both are already clean. A cleaned name is
its own cleaned name, never hidden, never a device, at most 255 bytes, and valid on every common file system.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath
from urllib.parse import unquote, unquote_to_bytes, urlsplit

LONGEST = 255  # bytes, of a path segment
_SUFFIX = 16  # bytes, of an extension that is worth keeping
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(?=\.|\Z)", re.IGNORECASE)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token
_PARAMETER = re.compile(rf';\s*({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)


def from_url(url: str) -> str | None:
    """The last segment of a URL's path; None: there is none to use."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return None
    return clean(_decoded(unquote_to_bytes(path.rpartition("/")[2])))


def from_disposition(header: str | None) -> str | None:
    """The name that a Content-Disposition proposes (RFC 6266: filename* before filename); None: none to use.

    Args:
        header: as http.client gives it, bytes read as Latin-1.
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
    return clean(_decoded(plain.encode("latin-1", "replace")))


def clean(name: str) -> str | None:
    """One path segment made of a name; None: nothing of it is left."""
    # A lone surrogate cannot be encoded, hence the round trip.
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode("utf-8"))
    name = name.replace("\\", "/").rpartition("/")[2]
    # Controls, and marks that turn the writing direction: "fdp.exe" can be made to look like "exe.pdf".
    name = "".join(char for char in name if unicodedata.category(char) not in ("Cc", "Cf", "Zl", "Zp", "Cs"))
    name = unicodedata.normalize("NFC", _FORBIDDEN.sub("_", name)).strip(" .")
    name = _shortened(name)
    if _DEVICES.match(name):
        name = _shortened("_" + name)
    return name or None


def suffixed(name: str, number: int) -> str:
    """The name for the number-th of several files that all want it: ``a.txt``, ``a-2.txt``, ``a-3.txt``."""
    return name if number <= 1 else _shortened(name, f"-{number}")


def fallback(url: str) -> str:
    """A name for a URL that proposes none; the same URL always has the same."""
    return f"download-{hashlib.sha256(url.encode('utf-8', 'replace')).hexdigest()[:16]}"


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


def _decoded(raw: bytes) -> str:
    """UTF-8 if it is, Latin-1 otherwise: what servers send."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
