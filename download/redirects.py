"""From the URL that was asked for to the answer that counts; each hop is judged like the first.

At most ten hops, no loops, no step down from https to http, and what was meant for one origin is not
shown to another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from download.addresses import Target
from download.errors import RedirectError
from download.timeouts import Timeouts
from download.wire import Answer, Wire

MAX_HOPS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ANY_ORIGIN = frozenset({"accept", "accept-language", "user-agent"})  # any other header may be a credential
_OURS = frozenset({"host", "range", "if-range", "accept-encoding", "connection", "content-length", "transfer-encoding"})
_SETTLE = 64 * 1024  # bytes of an unwanted answer that are read to keep its connection
_SETTLE_TIME = 1.0  # seconds

Headers = Callable[[Target], dict[str, str]]


def follow(wire: Wire, first: Target, headers: Headers, timeouts: Timeouts, saw: Callable[[Answer], None]) -> Answer:
    """The first answer that is no redirect.

    Args:
        headers: what to send to a target.
        saw: told each answer, redirects included.

    Raises:
        RedirectError: there is none, or it is not safe to go on.
        DownloadError: a hop failed, or the policy denies it.
    """
    trail = Trail(first)
    while True:
        answer = wire.get(trail.target, headers(trail.target), timeouts)
        saw(answer)
        location = answer.headers.get("Location")
        if not leads_on(answer.status, location):
            return answer
        let_go(wire, answer, timeouts)
        trail.go_on(location or "")


def leads_on(status: int, location: str | None) -> bool:
    return status in _REDIRECTS and location is not None


class Trail:
    """The hops so far."""

    def __init__(self, first: Target) -> None:
        self.target = first
        self._seen = {first}

    def go_on(self, location: str) -> None:
        """
        Args:
            location: the header, bytes read as Latin-1.

        Raises:
            RedirectError: it is not safe to go on.
            BadUrlError: that is no place to go to.
        """
        before, target = self.target, self.target.join(_as_utf8(location))
        if before.scheme == "https" and target.scheme == "http":
            raise RedirectError(f"expected https to stay https, got a redirect from {before.url} to {target.url}")
        if target in self._seen:
            raise RedirectError(f"expected an end, got a redirect loop at {target.url}")
        if len(self._seen) > MAX_HOPS:
            raise RedirectError(f"expected at most {MAX_HOPS} redirects, got another one to {target.url}")
        self._seen.add(target)
        self.target = target


def fit_for(target: Target, first: Target, headers: Mapping[str, str]) -> dict[str, str]:
    """The job's own headers, as far as this target may see them and they are not ours to set."""
    own = {name: text for name, text in headers.items() if name.lower() not in _OURS}
    if target.origin == first.origin:
        return own
    return {name: text for name, text in own.items() if name.lower() in _ANY_ORIGIN}


def let_go(wire: Wire, answer: Answer, timeouts: Timeouts) -> None:
    """Be done with an answer nobody wants; its connection is kept if that costs little."""
    if answer.length is not None and answer.length <= _SETTLE:
        timeouts.draining(_SETTLE_TIME)
        with suppress(Exception):
            room = memoryview(bytearray(answer.length or 1))
            while answer.read(room):
                pass
        if timeouts.interrupt is not None:
            answer.close()
            raise timeouts.interrupt
    wire.keep(answer)


def _as_utf8(header: str) -> str:
    """http.client reads headers as Latin-1; what they mean is mostly UTF-8."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header
