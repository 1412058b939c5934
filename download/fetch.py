"""HEART: one attempt at one URL: redirects, resume, receive, verify. Knows no Celery, no Redis, and not its pool.

Guarantees, and the test in tests/unit that keeps each:

- No wrong byte is ever published: a file is whole, or the attempt raises (test_download_faults). What
  the server announces, what the manifest expects and what a Repr-Digest says must all be true.
- What a killed attempt left is continued only if the server proves by If-Range that nothing changed, or if
  an expected sha256 will judge the whole; the kept prefix is hashed again (test_download_resume: a
  downloading process is SIGKILLed there).
- Whatever the other side does, ``check()`` is asked at least every half second, and the deadline
  holds, while connecting, in TLS, in headers and in the body (test_download_patience).
- No request is sent to an address that the policy denies, on any hop (test_download_policy).
- The same in every pool (test_download_gevent runs the essential tests with patched sockets).

Not guaranteed: that a server without lengths sent everything (``notes`` say "length: unverified");
that bytes survive a crash of the operating system (publish with fsync for that).

This process may die at any instruction. Before the link in ``tempfile.publish`` the final name does not exist; after
it the file is whole. What stays behind is a temp file and its validators, which a later attempt may adopt.

The state of an attempt lies in two objects: ``TempFile`` has what came of the file, ``Timeouts`` how far the network
came. The way: addresses, connect, proxy, http1 (an answer), fetch (judged, received, verified), tempfile (on disk,
published). ``download.many`` does the same for groups of small files, through libcurl.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import cache, cached_property
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.request import Request

from download import errors, validators
from download.addresses import AddressPolicy, Target, is_below
from download.connect import HttpClient
from download.http1 import Head, Response, is_passing
from download.proxy import NOTE, Proxy
from download.tempfile import TempFile
from download.threads import Run, in_place
from download.timeouts import Limits, Timeouts, translated
from download.validators import ContentRange, Validators, retry_after

Progress = Callable[[int, int | None], None]  # bytes on disk, announced total

MAX_HOPS = 20
SETTLE = 64 * 1024  # bytes of an unwanted answer that are read to keep its connection
SETTLE_TIME = 1.0  # seconds
# Under gevent, handing a piece to a thread and waiting for it costs 100 µs; writing and hashing costs 60 µs for 64 KiB,
# 110 µs for 128 KiB. With every piece handed over, a gevent worker brings about 40 % fewer files of 1 KiB.
WORTH_HANDING_OVER = 128 * 1024  # bytes
_BURST = 0.05  # seconds for which a thread goes on with what was handed over to it
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WAITS = frozenset({202, 403})  # with Retry-After: the file is being made; a limit of the rate
_ANY_ORIGIN = frozenset({"accept", "accept-language", "user-agent"})  # any other header may be a credential
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
_OURS = frozenset({"host", "range", "if-range", "accept-encoding", "connection", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Wanted:
    url: str
    sha256: str | None = None  # expected, hex
    size: int | None = None  # expected, bytes
    headers: Mapping[str, str] = field(default_factory=dict)  # for the URL's own origin
    digest: str | None = None  # a further one that is expected, ``ALGORITHM:hex``

    @property
    def algorithm(self) -> str | None:
        """Of the further digest."""
        return self.digest.partition(":")[0] if self.digest else None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole, verified file that has no final name yet."""

    size: int
    sha256: str
    received: int  # bytes, in this attempt
    resumed_from: int  # bytes that an earlier attempt had left
    status: int
    first_byte: float | None  # time.monotonic() of the answer's first byte
    etag: str | None
    last_modified: str | None
    disposition: str | None  # Content-Disposition; download.filenames reads it
    notes: tuple[str, ...]
    identity: tuple[int, int] | None  # of the temp file: device and inode
    proven: bool = False  # by a digest
    url: str | None = None  # where redirects led to, without its query: that is often a secret
    content_type: str | None = None


@cache
def tls_context(ca_file: Path | None = None, client_cert: Path | None = None) -> ssl.SSLContext:
    """One for all, and for the children of the process that asked first: making it costs more than a handshake.

    Raises:
        ValueError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"DOWNPOUR_CA_FILE: expected a PEM file of certificates, got {ca_file}: {error}") from error
    try:
        if client_cert:
            context.load_cert_chain(client_cert, password="")  # or it would ask for one
    except OSError as error:
        what = "a PEM file with a certificate and its key, which has no password"
        raise ValueError(f"DOWNPOUR_CLIENT_CERT: expected {what}, got {client_cert}: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(eq=False, kw_only=True)
class Fetcher:
    """Build one per process, lazily, never before a fork; all its threads or greenlets share it."""

    policy: AddressPolicy = field(kw_only=False)
    user_agent: str = "Downpour"
    ca_file: Path | None = None  # certificate authorities instead of the system's
    client_cert: Path | None = None  # a certificate and its key, for servers that ask for one,
    client_cert_hosts: frozenset[str] = frozenset()  # ... if they are these, or below them
    proxy: Proxy | None = None  # is asked instead of the servers; see its module for what the policy means then
    run: Run = in_place  # where much is written and hashed; see ``download.threads.native_runner``

    def __post_init__(self) -> None:
        self._client = HttpClient(self.policy, self._tls_context, self.proxy)

    def _tls_context(self, host: str) -> ssl.SSLContext:
        return tls_context(self.ca_file, self.certificate_for(host))

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
        attempt = _Alone(wanted, temp, limits, check, user_agent=self.user_agent)
        try:
            with translated(attempt.timeouts):
                return attempt.fetch(self._client, resume or temp, self.run, progress)
        except BaseException as end:
            attempt.give_up(end)
            raise
        finally:
            attempt.temp.close()

    def certificate_for(self, host: str) -> Path | None:
        """What to show to a host that asks who we are."""
        return self.client_cert if self.client_cert and is_below(host, self.client_cert_hosts) else None

    def close(self) -> None:
        """Close the idle connections."""
        self._client.close()


class Retrieval:
    """What to ask for, what to make of an answer, and what to leave behind: the same alone and in a group."""

    late = False  # as ``TempFile`` has it

    def __init__(
        self, wanted: Wanted, temp: Path | str, limits: Limits, check: Callable[[], None], *, user_agent: str
    ) -> None:
        """
        Raises:
            BadUrlError: the URL is none that we accept.
        """
        self.wanted = wanted
        expected, algorithm = wanted.size, wanted.algorithm
        self.temp = TempFile(temp, max_bytes=limits.max_bytes, expected=expected, algorithm=algorithm, late=self.late)
        self.timeouts = Timeouts(limits, check)
        self._user_agent = user_agent
        # With the cookies for each. At most twenty redirects, no loop; from https to http only if a digest is expected.
        self._hops = [(Target.parse(wanted.url), "")]
        self._asked_again = False

    @property
    def target(self) -> Target:
        """Where to ask now."""
        return self._hops[-1][0]

    def headers(self) -> dict[str, str]:
        own = fit_for(self.target, self._hops[0][0], self.wanted.headers)
        if cookies := self._hops[-1][1]:
            name = next((name for name in own if name.lower() == "cookie"), "Cookie")
            own[name] = "; ".join(filter(None, (own.get(name), cookies)))
        headers = {"User-Agent": self._user_agent, "Accept": "*/*", **own, "Accept-Encoding": "identity"}
        kept = self.temp.validators
        if not (self.temp.size and kept):
            return headers
        part = {"Range": f"bytes={self.temp.size}-"}
        if kept.sha256:  # which will judge
            return headers | part
        # Validators prove something only about the resource that gave them.
        if kept.if_range and kept.url == self.target.url.partition("?")[0]:
            return headers | part | {"If-Range": kept.if_range}
        return headers

    def takes(self, head: Head) -> bool:
        """Whether the body is the file, or the part of it that is missing.

        Raises:
            DownloadError: it would be, but it is not the one that is wanted.
        """
        if head.status not in (200, 203, 206):
            return False
        part = validators.content_range(head.headers.get("Content-Range")) if head.status == 206 else None
        # A part that was not asked for may be the whole file.
        whole = part is not None and not self.temp.size and head.length == part.length == part.total
        if head.status == 206 and not whole:
            self._go_on_with(part, head)
        else:
            self.temp.begin(Validators.of(head.target.url, head.headers, head.length, self.wanted.sha256))
        return True

    def _go_on_with(self, part: ContentRange | None, head: Head) -> None:
        kept, offset = self.temp.validators, self.temp.size
        if kept is None or not offset or part is None or head.length not in (None, part.length):
            header = head.headers.get("Content-Range")
            self.temp.discard()  # or the next attempt would meet the same answer
            got = f"status {head.status} with Content-Range {header} and Content-Length {head.length}"
            raise errors.ProtocolError(f"expected a file, or the part of it from byte {offset}, got {got}")
        if reason := validators.mismatch(kept, head.headers, part, offset):
            raise errors.ChangedError(f"{reason}; what was kept is dropped")
        self.temp.go_on(part.total)

    def go_where(self, head: Head) -> None:
        """Set the next target, after an answer that brings no file.

        Raises:
            RedirectError, BadUrlError: it is not safe to go where it leads.
            ServerError, StatusError: it leads nowhere.
        """
        location = head.headers.get("Location")
        if head.status in _REDIRECTS and location is not None:
            self._hops.append(self._redirected(location, head))
        elif head.status == 416 and self.temp.size:
            self.temp.discard()
            del self._hops[1:]
        elif head.status == 304 and not (self._asked_again or _CONDITIONS & {n.lower() for n in self.wanted.headers}):
            self._asked_again = True  # nothing was asked that this could answer
        else:
            message = f"expected a file, got status {head.status}"
            after = retry_after(head.headers.get("Retry-After"), time.time(), said=head.headers.get("Date"))
            if is_passing(head.status) or (head.status in _WAITS and after is not None):
                raise errors.ServerError(message, after)
            raise errors.StatusError(message)

    def _redirected(self, location: str, head: Head) -> tuple[Target, str]:
        """The next target, and the cookies for it."""
        with suppress(UnicodeError):  # read as Latin-1, but mostly it is UTF-8
            location = location.encode("latin-1").decode("utf-8")
        before, target = self.target, self.target.join(location)
        proof = self.wanted.sha256 or self.wanted.algorithm == "sha512"  # sha1 and md5 can be forged
        if before.scheme == "https" and target.scheme == "http" and not proof:
            expected = "https to stay https, or a sha256 or sha512 in the manifest"
            raise errors.RedirectError(f"expected {expected}, got a redirect from {before.url} to {target.url}")
        hop = target, self._cookies(head, target)
        if hop in self._hops:
            raise errors.RedirectError(f"expected an end, got a redirect loop at {target.url}")
        if len(self._hops) > MAX_HOPS:
            raise errors.RedirectError(f"expected at most {MAX_HOPS} redirects, got another one to {target.url}")
        return hop

    @cached_property
    def _jar(self) -> CookieJar:
        return CookieJar()

    def _cookies(self, head: Head, target: Target) -> str:
        """What the redirects of this attempt have set, for the next target: some servers insist on it."""
        answer, asking = Message(), Request(target.url)  # noqa: S310 - nothing is opened by it
        for cookie in filter(None, head.headers.get("Set-Cookie", "").split("\n")):
            answer["Set-Cookie"] = cookie
        self._jar.extract_cookies(cast(HTTPResponse, SimpleNamespace(info=lambda: answer)), Request(head.target.url))  # noqa: S310
        self._jar.add_cookie_header(asking)
        cookies = asking.get_header("Cookie", "")
        return cookies if cookies.isprintable() else ""

    def cut_short(self) -> errors.TransientError:
        expected = "a last chunk" if self.temp.total is None else f"{self.temp.total} bytes"
        return errors.TruncatedError(f"expected {expected}, got the end after {self.temp.size} bytes")

    def verified(self, head: Head, *notes: str) -> Fetched:
        """The file, which is right.

        Raises:
            DownloadError: it is not.
        """
        temp, sha256 = self.temp, self.temp.digest("sha256")
        noted = [] if head.framed else ["length: unverified"]
        self._verify_length(head, sha256)
        offered = validators.repr_sha256(head.headers.get("Repr-Digest"))
        digests = [("sha256", self.wanted.sha256, "the manifest"), ("sha256", offered, "the server")]
        if self.wanted.digest:
            algorithm, _, expected = self.wanted.digest.partition(":")
            digests.append((algorithm, expected, "the manifest"))
            noted.append(f"{algorithm}: verified")
        for algorithm, text, source in digests:
            if text is not None and text.lower() != (got := temp.digest(algorithm)):
                message = f"expected {algorithm} {text} by {source}, got {got}"
                if temp.resumed_from:  # the kept beginning may be to blame: not the last word
                    raise errors.ChangedError(f"{message} after a resume; what was kept is dropped")
                raise errors.DigestError(message)
        proven = any(text for _, text, _ in digests)
        if head.surplus and not proven:
            raise errors.ProtocolError(f"expected {temp.total} bytes and no more, got {head.surplus[:20]!r} after them")
        if offered:
            noted.append("repr-digest: verified")
        encoding = head.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            noted.append(f"content-encoding: {errors.fit_to_show(encoding[:40])}, stored raw")
        if temp.resumed_from:
            noted.append(f"resumed from byte {temp.resumed_from}")
        return Fetched(
            size=temp.size,
            sha256=sha256,
            received=self.timeouts.received,
            resumed_from=temp.resumed_from,
            status=head.status,
            first_byte=self.timeouts.first_byte,
            etag=head.headers.get("ETag"),
            last_modified=head.headers.get("Last-Modified"),
            disposition=head.headers.get("Content-Disposition"),
            notes=(*noted, *notes),
            identity=temp.identity,
            proven=proven,
            url=self.target.url.partition("?")[0] if len(self._hops) > 1 else None,
            content_type=head.headers.get("Content-Type"),
        )

    def _verify_length(self, head: Head, sha256: str) -> None:
        size = self.temp.size
        if not head.framed and (self.wanted.sha256 or "").lower() != sha256:  # which proves more than any end
            if head.ragged:  # an attacker can cut TLS
                raise errors.TruncatedError(f"expected TLS to be closed in due form, got a cut after {size} bytes")
            if not size:
                raise errors.EmptyError("expected a file, got no byte and no length that says so")
        if self.temp.total not in (None, size):
            raise errors.TruncatedError(f"expected {self.temp.total} bytes, got {size}")
        if self.wanted.size not in (None, size):
            raise errors.SizeError(f"expected {self.wanted.size} bytes, got {size}")

    def give_up(self, end: BaseException) -> None:
        """Keep what a later attempt can continue, remove the rest, and note how far it came."""
        if isinstance(end, errors.Ended):
            reached = self.timeouts
            end.status, end.received, end.first_byte = reached.status, reached.received, reached.first_byte
        if isinstance(end, errors.DiskFullError):
            end.need = self.temp.total or self.temp.size + 1
        with suppress(OSError):
            self.temp.give_up(keep=getattr(end, "keeps_partial", True))
        if isinstance(end, errors.Ended) and self.temp.resumed_from:
            end.gained = self.temp.written - self.temp.resumed_from


class _Alone(Retrieval):
    """The course of an attempt that has a thread or a greenlet to itself."""

    def fetch(self, client: HttpClient, leftover: Path, run: Run, progress: Progress) -> Fetched:
        self.temp.adopt(leftover, self.timeouts.ask, run)  # before the request, so that no server has to wait for it
        if (kept := self.temp.validators) and kept.sha256 != self.wanted.sha256:  # it was begun for another manifest
            self.temp.validators = replace(kept, sha256=None)
        while True:
            with client.get(self.target, self.headers(), self.timeouts) as response:
                if self.takes(response):
                    self._receive(response, run, progress)
                    return self.verified(response, *((NOTE,) if client.proxy_for(response.target) else ()))
                self._settle(response)
            self.go_where(response)

    def _settle(self, response: Response) -> None:
        """Read an answer without a file to its end if that costs little: then its connection can be kept."""
        if response.length is None or response.length > SETTLE:
            return
        self.timeouts.discarding(SETTLE_TIME)
        with suppress(Exception):
            room = memoryview(bytearray(response.length or 1))
            while response.read(room):
                pass
        if self.timeouts.interrupt is not None:
            raise self.timeouts.interrupt

    def _receive(self, response: Response, run: Run, progress: Progress) -> None:
        temp = self.temp

        def tell() -> None:
            self.timeouts.call(lambda: progress(temp.written, temp.total))

        self.timeouts.reading_body()
        tell()
        try:
            while count := response.read(temp.space()):
                if self._took(count):
                    if run is in_place or temp.waiting < WORTH_HANDING_OVER:
                        temp.write()
                    else:
                        run(lambda: self._write_on(response))
                    tell()
        except errors.TruncatedError as error:
            raise self.cut_short() from error
        temp.end()
        tell()

    def _took(self, count: int) -> bool:
        """Count received bytes; whether to write."""
        write = self.temp.took(count)
        self.timeouts.arrived(count)
        return write

    def _write_on(self, response: Response) -> None:
        """In a thread: write, and go on for a moment with what is here at once; handing over costs as much as that."""
        until = time.monotonic() + _BURST
        self.temp.write()
        while time.monotonic() < until and (count := response.glance(self.temp.space())):
            if self._took(count) and self.temp.full:
                self.temp.write()


def fit_for(target: Target, first: Target, headers: Mapping[str, str]) -> dict[str, str]:
    """The job's own headers, as far as this target may see them and they are not ours to set."""
    own = {name: text for name, text in headers.items() if name.lower() not in _OURS}
    if target.origin == first.origin:
        return own
    return {name: text for name, text in own.items() if name.lower() in _ANY_ORIGIN}
