"""Which URLs a manifest may contain, and how one is shown without its secrets.

The worker's address policy decides what may be downloaded from; here only the form is judged.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

MAX_CHARACTERS = 8192
_SECRETS = re.compile(
    r"(?i)([?&;][^=&;#]*(?:token|signature|sig|secret|passw|api[-_]?key|credential|auth)[^=&;#]*=)[^&;#\s]*"
)
_USERINFO = re.compile(r"(?i)([a-z][a-z0-9+.-]*://)[^/?#\s]*@")
_ANYTHING_BEFORE_AT = re.compile(r"://.*@")


def check_url(url: str) -> None:
    """Accept an http(s) URL that every parser reads in the same way.

    Raises:
        ValueError: what was expected, and what we got.
    """
    problem = _problem(url)
    if problem:
        raise ValueError(f"expected an http or https URL, got {shown(url)}: {problem}")


def _problem(url: str) -> str | None:
    if len(url) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters"
    if "\\" in url or any(character.isspace() or not character.isprintable() for character in url):
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


def redact(text: str) -> str:
    """The text with passwords and tokens of the URLs in it made unreadable."""
    return _SECRETS.sub(r"\1***", _USERINFO.sub(r"\1***@", text))


def shown(text: str, most: int = 120) -> str:
    """Quoted for a message: without secrets even if it is no URL, on one line, not too long."""
    clean = _ANYTHING_BEFORE_AT.sub("://***@", redact(text))
    return ascii(clean[:most] + "…") if len(clean) > most else repr(clean)
