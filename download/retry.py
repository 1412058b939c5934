"""When to try again: pure functions, the dice and the clock are the caller's.

Exponential back-off with full jitter: the n-th wait is anywhere between 0 and ``base * 2**(n-1)``,
so a thousand jobs that failed together do not come back together. A server's Retry-After is a lower
bound on top of which the jitter goes, and is itself capped: no server parks a job for a day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from download.errors import DownloadError, ServerError, TransientError


@dataclass(frozen=True, slots=True)
class Backoff:
    attempts: int = 4  # of a job, the first one included
    base: float = 0.5  # seconds; doubles with each attempt
    cap: float = 30.0  # seconds; of a back-off and of a Retry-After

    def wait(self, attempt: int, error: DownloadError, random: Callable[[], float]) -> float | None:
        """Seconds until the attempt after ``attempt`` (counted from 1); None: there is none.

        Args:
            random: a number from 0 to 1, ``random.random``.
        """
        return self.pause(attempt, error, random) if isinstance(error, TransientError) else None

    def pause(self, attempt: int, error: DownloadError, random: Callable[[], float]) -> float | None:
        """The same for whatever error: for a job that has other servers left to ask."""
        if attempt >= self.attempts:
            return None
        # 2**1024 overflows a float; long before that the cap decides.
        jitter = random() * min(self.cap, self.base * 2.0 ** min(attempt - 1, 62))
        asked = error.retry_after if isinstance(error, ServerError) else None
        if asked is None:
            return jitter
        return min(self.cap, asked) + min(jitter, self.base)


def retry_after(header: str | None, now: float, *, said: str | None = None) -> float | None:
    """Seconds that a Retry-After header asks for; None: nothing readable.

    The header holds seconds or an HTTP date; a date in the past means now.

    Args:
        now: by our clock, in seconds since the epoch.
        said: the same answer's Date header. A server that names a date means its own clock, which may not be ours.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    asked, there = _epoch(text), _epoch(said or "")
    return None if asked is None else max(0.0, asked - (now if there is None else there))


def _epoch(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
