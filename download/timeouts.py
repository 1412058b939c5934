"""The timeouts of one attempt: every wait on the network is cut into slices, and each slice asks here.

Guarantees: ``check()`` is asked at least every half second while the network is silent, and at most
ten times a second while it is not; the deadline ends connecting, the TLS handshake, headers and body
alike, however cleverly the other side drips.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from download.errors import ConnectError, DeadlineError, DnsError, DownloadError, SilenceError, SlowError, translate
from ledger.settings import Settings

SLICE = 0.4  # seconds; with _ASK_EVERY at most 0.5 between two asks
_ASK_EVERY = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes."""

    connect_timeout: float = 10.0  # to resolve; then to connect, TLS included
    read_timeout: float = 30.0  # longest silence, and longest time for all headers together
    low_speed: int = 100  # bytes/s below which a body is too slow; 0: never
    low_speed_window: float = 60.0  # over which the speed is measured
    max_bytes: int = 64 * 2**30  # largest file
    deadline: float = inf  # time.monotonic() at which the attempt ends

    @classmethod
    def from_settings(cls, settings: Settings, *, deadline: float = inf) -> Limits:
        low_speed, window = settings.low_speed, settings.low_speed_window
        return cls(settings.connect_timeout, settings.read_timeout, low_speed, window, settings.max_bytes, deadline)


class Timeouts:
    """How far an attempt came, and how long its present phase may last."""

    def __init__(self, limits: Limits, check: Callable[[], None]) -> None:
        self.limits = limits
        self.interrupt: BaseException | None = None  # what check() raised; must leave the attempt unchanged
        self.status: int | None = None  # of the last answer
        self.received = 0  # body bytes, in this attempt
        self.first_byte: float | None = None  # time.monotonic() of the last answer's first byte
        self._check = check
        self._asked = 0.0
        self._until = 0.0  # when the present phase is over
        self._late: tuple[type[DownloadError], str] = SilenceError, "no phase has begun"
        self._in_body = False
        self._samples: deque[tuple[float, int]] = deque()  # (when, received) over the low-speed window

    def resolving(self, host: str) -> None:
        limit = self.limits.connect_timeout
        self._begin(limit, DnsError, f"expected an address of {host} within {limit:g} s, got none")

    def connecting(self, host: str) -> None:
        limit = self.limits.connect_timeout
        self._begin(limit, ConnectError, f"expected a connection to {host} within {limit:g} s, got none")

    def awaiting_headers(self) -> None:
        limit = self.limits.read_timeout
        self._begin(limit, SilenceError, f"expected all headers within {limit:g} s, did not get them")

    def reading_body(self) -> None:
        limit = self.limits.read_timeout
        self._begin(limit, SilenceError, f"the server was silent for {limit:g} s")
        self._in_body = True
        self._samples.clear()

    def discarding(self, seconds: float) -> None:
        """For bytes that are not needed."""
        self._begin(seconds, SilenceError, "the rest was not worth waiting for")

    def _begin(self, limit: float, kind: type[DownloadError], message: str) -> None:
        self._in_body = False
        self._until = time.monotonic() + limit
        self._late = kind, message
        self.ask()

    def late(self) -> DownloadError:
        """The failure of a phase that lasts too long."""
        kind, message = self._late
        return kind(f"{message} after {self.received} bytes" if self._in_body else message)

    def before_read(self) -> None:
        """A new wait for body bytes: silence is counted from here, not from what we did in between."""
        if self._in_body:
            self._until = time.monotonic() + self.limits.read_timeout

    def arrived(self, count: int) -> None:
        """Body bytes came."""
        self.received += count
        self.ask()

    def slice(self) -> float:
        """How long the next wait may last.

        Raises:
            DownloadError: no longer at all.
        """
        self.ask()
        now = time.monotonic()
        if now >= self._until:
            raise self.late()
        return min(SLICE, self._until - now, max(self.limits.deadline - now, 0.001))

    def ask(self) -> None:
        """Call check(), but not too often; then look at the deadline and the speed."""
        now = time.monotonic()
        if now - self._asked < _ASK_EVERY:
            return
        self.call(self._check)
        self._asked = now
        if now >= self.limits.deadline:
            raise DeadlineError(f"the time for the job is used up, {self.received} bytes into this attempt")
        if self._in_body and self.limits.low_speed:
            self._measure(now)

    def call(self, theirs: Callable[[], None]) -> None:
        """Call the caller's code: what it raises is no failure of the download."""
        try:
            theirs()
        except BaseException as interrupt:
            self.interrupt = interrupt
            raise

    def _measure(self, now: float) -> None:
        window, samples = self.limits.low_speed_window, self._samples
        samples.append((now, self.received))
        # Keep one sample that is a window old: speed is measured over whole windows only.
        while len(samples) > 2 and samples[1][0] <= now - window:
            samples.popleft()
        since, before = samples[0]
        if now - since >= window and self.received - before < self.limits.low_speed * (now - since):
            speed = (self.received - before) / (now - since)
            raise SlowError(
                f"expected {self.limits.low_speed} bytes/s over {window:g} s, got {speed:.1f}, {self.received} in all"
            )


@contextmanager
def translated(timeouts: Timeouts, prefix: str = "") -> Iterator[None]:
    """Foreign exceptions leave as DownloadErrors, and what check() raised leaves as it was, however it was wrapped."""
    try:
        yield
    except Exception as error:
        if timeouts.interrupt is not None and error is not timeouts.interrupt:
            raise timeouts.interrupt from None
        if timeouts.interrupt is not None or isinstance(error, DownloadError):
            raise
        raise translate(error, prefix) from error
