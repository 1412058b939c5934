"""HEART: one attempt at one URL: redirects, resume, receive, verify. Knows no Celery, no Redis, and not its pool.

Guarantees, and the test in tests/unit that keeps each:

- No wrong byte is ever published: a file is whole, or the attempt raises (test_download_faults). What
  the server announces, what the manifest expects and what a Repr-Digest says must all be true.
- What a killed attempt left is continued only if the server proves by If-Range that nothing changed,
  and the kept prefix is hashed again (test_download_resume: a downloading process is SIGKILLed there).
- Whatever the other side does, ``check()`` is asked at least every half second, and the deadline
  holds, while connecting, in TLS, in headers and in the body (test_download_patience).
- No request is sent to an address that the policy denies, on any hop (test_download_policy).
- The same in every pool (test_download_gevent runs the essential tests with patched sockets).

Not guaranteed: that a server without lengths sent everything (``notes`` say "length: unverified");
that bytes survive a crash of the operating system (publish with fsync for that).

What may die when: this process, at any instruction. Before the link in ``tempfile.publish`` the final name does
not exist; after it the file is whole. What stays behind is a temp file and its validators, which a
later attempt may adopt.

The state of an attempt lies in two objects: ``TempFile`` has what came of the file, ``Timeouts`` how far the network
came. The way: addresses, connect, proxy, http1 (an answer), fetch (judged, received, verified), tempfile (on disk,
published). ``download.many`` does the same for groups of small files, through libcurl.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from download import validators
from download.addresses import AddressPolicy, Target
from download.connect import Client
from download.errors import (
    ChangedError,
    DiskFullError,
    Ended,
    ProtocolError,
    RedirectError,
    ServerError,
    StatusError,
    TransientError,
    TruncatedError,
)
from download.http1 import Head, Response
from download.proxy import NOTE, Proxy
from download.retry import retry_after
from download.tempfile import TempFile
from download.threads import Run, in_place
from download.timeouts import Limits, Timeouts, translated
from download.validators import Validators

Progress = Callable[[int, int | None], None]  # bytes on disk, announced total

MAX_HOPS = 10
SETTLE = 64 * 1024  # bytes of an unwanted answer that are read to keep its connection
SETTLE_TIME = 1.0  # seconds
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN = frozenset({408, 425, 429})  # and all 5xx
_ANY_ORIGIN = frozenset({"accept", "accept-language", "user-agent"})  # any other header may be a credential
_OURS = frozenset({"host", "range", "if-range", "accept-encoding", "connection", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Wanted:
    url: str
    sha256: str | None = None  # expected, hex
    size: int | None = None  # expected, bytes
    headers: Mapping[str, str] = field(default_factory=dict)  # for the URL's own origin


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole, verified file that has no final name yet."""

    size: int
    sha256: str
    received: int  # bytes, in this attempt
    resumed_from: int  # bytes that an earlier attempt had left
    status: int
    total: int | None  # announced length
    first_byte: float | None  # time.monotonic() of the answer's first byte
    etag: str | None
    last_modified: str | None
    disposition: str | None  # Content-Disposition; download.filenames reads it
    notes: tuple[str, ...]
    identity: tuple[int, int] | None  # of the temp file: device and inode


@cache
def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """One for all, and for the children of the process that asked first: making it costs more than a handshake."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Fetcher:
    """Build one per process, lazily, never before a fork; all its threads or greenlets share it."""

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        user_agent: str = "Downpour",
        ca_file: Path | None = None,
        proxy: Proxy | None = None,
        run: Run = in_place,
    ) -> None:
        """
        Args:
            ca_file: certificate authorities instead of the system's.
            proxy: is asked instead of the servers; see ``download.proxy`` for what the policy means then.
            run: where much is received, written and hashed; see ``download.threads.disk_runner``.
        """
        self.policy = policy
        self.ca_file = ca_file
        self.proxy = proxy
        self._client = Client(policy, tls_context(ca_file), proxy)
        self.user_agent = user_agent
        self.run = run

    def fetch(
        self,
        wanted: Wanted,
        temp: Path,
        limits: Limits,
        check: Callable[[], None] = lambda: None,
        progress: Progress = lambda _size, _total: None,
        *,
        resume: Path | None = None,
    ) -> Fetched:
        """Bring a whole, verified file to temp.

        Args:
            temp: this attempt's own path; its folder is made if need be.
            check: asked at least every half second; what it raises ends the attempt and arrives unchanged.
            progress: told at the start, after each piece, and at least each second while bytes come.
            resume: what an earlier attempt left; temp itself if None. It is moved, not copied.

        Raises:
            DownloadError: there is no file. What can be continued stays at temp.
        """
        timeouts = Timeouts(limits, check)
        file = TempFile(temp, self.run, max_bytes=limits.max_bytes, expected=wanted.size)
        attempt = _Alone(wanted, file, timeouts, self.user_agent, progress)
        try:
            with translated(timeouts):
                return attempt.run(self._client, resume or temp)
        except BaseException as end:
            attempt.give_up(end)
            raise
        finally:
            file.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._client.close()


class Attempt:
    """What to ask for, what to make of an answer, and what to leave behind: the same alone and in a group."""

    def __init__(self, wanted: Wanted, temp: TempFile, timeouts: Timeouts, user_agent: str, progress: Progress) -> None:
        """
        Raises:
            BadUrlError: the URL is none that we accept.
        """
        self.wanted = wanted
        self.temp = temp
        self.timeouts = timeouts
        self._user_agent = user_agent
        self._progress = progress
        self.first = Target.parse(wanted.url)

    def headers(self, target: Target) -> dict[str, str]:
        own = fit_for(target, self.first, self.wanted.headers)
        headers = {"User-Agent": self._user_agent, "Accept": "*/*", **own, "Accept-Encoding": "identity"}
        kept = self.temp.validators
        # Validators prove something only about the resource that gave them.
        if self.temp.size and kept and kept.if_range and kept.url == target.url.partition("?")[0]:
            headers |= {"Range": f"bytes={self.temp.size}-", "If-Range": kept.if_range}
        return headers

    def takes(self, head: Head) -> bool:
        """Whether the body is the file, or the part of it that is missing.

        Raises:
            DownloadError: it would be, but it is not the one that is wanted.
        """
        if head.status == 206:
            self._go_on_with(head)
        elif head.status in (200, 203):
            self.temp.begin(Validators.of(head.target.url, head.headers, head.length))
        else:
            return False
        return True

    def _go_on_with(self, head: Head) -> None:
        kept, offset = self.temp.validators, self.temp.size
        header = head.headers.get("Content-Range")
        part = validators.content_range(header)
        if kept is None or not offset or part is None or head.length not in (None, part.length):
            self.temp.discard()  # or the next attempt would meet the same answer
            got = f"status {head.status} with Content-Range {header} and Content-Length {head.length}"
            raise ProtocolError(f"expected a file, or the part of it from byte {offset}, got {got}")
        if reason := validators.mismatch(kept, head.headers, part, offset):
            raise ChangedError(f"{reason}; what was kept is dropped")
        self.temp.go_on(part.total)

    def after(self, head: Head, trail: Trail) -> Trail:
        """Where to ask next, after an answer that brings no file.

        Raises:
            RedirectError, BadUrlError: it is not safe to go where it leads.
            ServerError, StatusError: it leads nowhere.
        """
        location = head.headers.get("Location")
        if head.status in _REDIRECTS and location is not None:
            return trail.to(location)
        if head.status == 416 and self.temp.size:
            self.temp.discard()
            return Trail((self.first,))
        message = f"expected a file, got status {head.status}"
        if head.status in _TRY_AGAIN or head.status >= 500:
            after = retry_after(head.headers.get("Retry-After"), time.time(), said=head.headers.get("Date"))
            raise ServerError(message, after)
        raise StatusError(message)

    def cut_short(self) -> TransientError:
        expected = "a last chunk" if self.temp.total is None else f"{self.temp.total} bytes"
        return TruncatedError(f"expected {expected}, got the end after {self.temp.size} bytes")

    def tell(self) -> None:
        self.timeouts.call(lambda: self._progress(self.temp.written, self.temp.total))

    def verify(self, head: Head) -> list[str]:
        """The notes on a file that is right.

        Raises:
            DownloadError: it is not.
        """
        temp, notes = self.temp, []
        if not head.framed:
            validators.verify_unframed(temp.size, ragged=head.ragged)
            notes.append("length: unverified")
        validators.verify_size(temp.size, announced=temp.total, wanted=self.wanted.size)
        offered = validators.repr_sha256(head.headers.get("Repr-Digest"))
        for source, expected in (("the manifest", self.wanted.sha256), ("the server", offered)):
            validators.verify_sha256(temp.sha256, expected, source, resumed=temp.resumed_from > 0)
        if head.surplus and not (offered or self.wanted.sha256):
            raise ProtocolError(f"expected {temp.total} bytes and no more, got {head.surplus[:20]!r} after them")
        if offered:
            notes.append("repr-digest: verified")
        encoding = head.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            notes.append(f"content-encoding: {encoding[:40]}, stored raw")
        if temp.resumed_from:
            notes.append(f"resumed from byte {temp.resumed_from}")
        return notes

    def fetched(self, head: Head, notes: list[str]) -> Fetched:
        return Fetched(
            size=self.temp.size,
            sha256=self.temp.sha256,
            received=self.timeouts.received,
            resumed_from=self.temp.resumed_from,
            status=head.status,
            total=self.temp.total,
            first_byte=self.timeouts.first_byte,
            etag=head.headers.get("ETag"),
            last_modified=head.headers.get("Last-Modified"),
            disposition=head.headers.get("Content-Disposition"),
            notes=tuple(notes),
            identity=self.temp.identity,
        )

    def give_up(self, end: BaseException) -> None:
        """Keep what a later attempt can continue, remove the rest, and note how far it came."""
        if isinstance(end, Ended):
            reached = self.timeouts
            end.status, end.received, end.first_byte = reached.status, reached.received, reached.first_byte
        if isinstance(end, DiskFullError):
            end.need = self.temp.total or self.temp.size + 1
        with suppress(OSError):
            self.temp.give_up(keep=getattr(end, "keeps_partial", True))


class _Alone(Attempt):
    """The course of an attempt that has a thread or a greenlet to itself."""

    def run(self, client: Client, leftover: Path) -> Fetched:
        self.temp.adopt(leftover, self.timeouts.ask)  # before the request, so that no server has to wait for it
        response = self._open(client)
        try:
            self._receive(response)
            notes = self.verify(response)
        except BaseException:
            response.close()
            raise
        if client.proxy_for(response.target):
            notes.append(NOTE)
        client.keep(response)
        return self.fetched(response, notes)

    def _open(self, client: Client) -> Response:
        """The first answer that has the file, or the part of it that is missing; redirects are followed."""
        trail = Trail((self.first,))
        while True:
            response = client.get(trail.target, self.headers(trail.target), self.timeouts)
            self.timeouts.status = response.status
            try:
                if self.takes(response):
                    return response
                self._settle(response)
            except BaseException:
                response.close()
                raise
            client.keep(response)
            trail = self.after(response, trail)

    def _settle(self, response: Response) -> None:
        """Read an answer without a file to its end if that costs little: then its connection can be kept."""
        if response.length is None or response.length > SETTLE:
            return
        self.timeouts.draining(SETTLE_TIME)
        with suppress(Exception):
            room = memoryview(bytearray(response.length or 1))
            while response.read(room):
                pass
        if self.timeouts.interrupt is not None:
            raise self.timeouts.interrupt

    def _receive(self, response: Response) -> None:
        temp, timeouts = self.temp, self.timeouts
        timeouts.reading_body()
        self.tell()

        def take(read: Callable[[memoryview], int | None]) -> bool | None:
            """Whether to flush; None: nothing came."""
            count = read(temp.space())
            if not count:
                return None
            flush = temp.took(count)
            timeouts.arrived(count)
            return flush

        def refill(until: float) -> bool:
            while time.monotonic() < until and take(response.glance) is False:
                pass
            return temp.full

        try:
            while (flush := take(response.read)) is not None:
                if flush:
                    temp.flush(refill)
                    self.tell()
        except TruncatedError as error:
            raise self.cut_short() from error
        temp.end()
        self.tell()


@dataclass(frozen=True, slots=True)
class Trail:
    """The hops of a download so far: at most ten, no loops, no step down from https to http."""

    hops: tuple[Target, ...]

    @property
    def target(self) -> Target:
        return self.hops[-1]

    def to(self, location: str) -> Trail:
        """
        Args:
            location: the header, bytes read as Latin-1.

        Raises:
            RedirectError: it is not safe to go on.
            BadUrlError: that is no place to go to.
        """
        with suppress(UnicodeError):  # what is in it is mostly UTF-8
            location = location.encode("latin-1").decode("utf-8")
        before, target = self.target, self.target.join(location)
        if before.scheme == "https" and target.scheme == "http":
            raise RedirectError(f"expected https to stay https, got a redirect from {before.url} to {target.url}")
        if target in self.hops:
            raise RedirectError(f"expected an end, got a redirect loop at {target.url}")
        if len(self.hops) > MAX_HOPS:
            raise RedirectError(f"expected at most {MAX_HOPS} redirects, got another one to {target.url}")
        return Trail((*self.hops, target))


def fit_for(target: Target, first: Target, headers: Mapping[str, str]) -> dict[str, str]:
    """The job's own headers, as far as this target may see them and they are not ours to set."""
    own = {name: text for name, text in headers.items() if name.lower() not in _OURS}
    if target.origin == first.origin:
        return own
    return {name: text for name, text in own.items() if name.lower() in _ANY_ORIGIN}
