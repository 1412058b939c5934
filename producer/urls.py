"""Which URLs a manifest may contain.

The worker's address policy decides what may be downloaded from; here only the form is judged.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import SplitResult, unquote, urlsplit

from download.errors import shown

MAX_CHARACTERS = 8192
# Most URLs; what matches needs no closer look. Kept true by ``tests/unit/test_manifest.py``.
_PLAIN = re.compile(r"https?://[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*(:[1-9][0-9]{0,3})?/[!-\[\]-~]*")


def check_url(url: str) -> str:
    """The URL, if it is one of http(s) that every parser reads in the same way.

    Raises:
        ValueError: what was expected, and what we got.
    """
    problem = _problem(url)
    if problem:
        raise ValueError(f"expected an http or https URL, got {shown(url)}: {problem}")
    return url


def _problem(url: str) -> str | None:
    if len(url) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters"
    if _PLAIN.fullmatch(url):
        return None
    if "\\" in url or " " in url or not url.isprintable():  # of all blanks only this one is printable
        return "it has a space, a backslash or a control character (write %20 for a space)"
    try:
        return _parts_problem(urlsplit(url))
    except ValueError:  # the text of the error may have a piece of a password
        return "its host or port is malformed"


def _parts_problem(parts: SplitResult) -> str | None:
    host = parts.hostname
    if parts.scheme not in ("http", "https"):
        return f"its scheme is {parts.scheme!r}" if parts.scheme else "it has no scheme"
    if parts.netloc.count("@") > 1:
        return "it has two '@' before its path (write %40 in a password)"
    if not host:
        return "it has no host"
    if parts.port == 0:
        return "its port is 0"
    if ":" not in host:
        try:
            host.rstrip(".").encode("idna")
        except UnicodeError:
            return f"{host!r} is not a host name"
    return None


def basic(user: str, password: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def without_user(url: str) -> tuple[str, str | None]:
    """A checked URL without user and password, and the value of the Authorization header that says the same."""
    if "@" not in url or "@" not in (parts := urlsplit(url)).netloc:
        return url, None
    scheme, _, rest = url.partition("://")
    said = basic(unquote(parts.username or ""), unquote(parts.password or ""))
    return f"{scheme}://{rest.partition('@')[2]}", said
