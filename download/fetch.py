"""HEART 1: one attempt at one URL. Knows no Celery, no Redis, and not which pool runs it.

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

Who may die when: this process at any instruction. Before the link in ``publish`` the final name does
not exist; after it the file is whole. What stays behind is a temp file and its validators, which a
later attempt may adopt.

Rooms: addresses (who may be asked) → connect, proxy, wire, answers (how) → redirects (whom in the end) →
stream (the course of an attempt) → attempt (what to make of the answer) → sink, partial (where it goes) →
integrity (whether it is right) → publish (its name);
timeouts is asked by all of them; many/ does the same for hundreds of small files at once, through libcurl.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from download.addresses import Policy
from download.attempt import Fetched, Progress, Wanted
from download.partial import Partial, companions
from download.proxy import Proxy
from download.publish import publish
from download.sink import Buffer
from download.stream import Stream
from download.threads import Run, in_place
from download.timeouts import Limits, Timeouts, translated
from download.wire import Wire

__all__ = ["Fetched", "Fetcher", "Limits", "Wanted", "companions", "publish"]


class Fetcher:
    """Build one per process, lazily, never before a fork; all its threads or greenlets share it."""

    def __init__(
        self,
        policy: Policy,
        *,
        user_agent: str = "Downpour",
        ca_file: Path | None = None,
        proxy: Proxy | None = None,
        run: Run = in_place,
    ) -> None:
        """
        Args:
            ca_file: certificate authorities instead of the system's.
            proxy: whom to ask instead of the servers; see ``download.proxy`` for what the policy means then.
            run: where much is received, written and hashed; see ``download.threads.disk_runner``.
        """
        context = ssl.create_default_context(cafile=ca_file)  # one for all: making it costs more than a handshake
        context.set_alpn_protocols(["http/1.1"])
        self.policy = policy
        self.ca_file = ca_file
        self.wire = Wire(policy, context, proxy)
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
        sink = Buffer(Partial(temp), self.run, limits.max_bytes, wanted.size)
        attempt = Stream(wanted, sink, timeouts, wire=self.wire, user_agent=self.user_agent, progress=progress)
        try:
            with translated(timeouts):
                return attempt.run(resume or temp)
        except BaseException as end:
            attempt.give_up(end)
            raise
        finally:
            attempt.close()

    def close(self) -> None:
        """Close the idle connections."""
        self.wire.close()
