"""What ends a command of the producer.

ProducerError
├── ManifestError          2  the input cannot be used
├── UnknownBatchError      2  no batch of this name
├── OtherManifestError     2  the batch exists, with other jobs
└── RedisUnusableError     3  Redis is unreachable, frozen, full, or refuses us

A message says what happened, what was expected, what we got, and how to go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from kombu.exceptions import KombuError
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from ledger.redis_client import RedisFullError, RedisRefusedError
from ledger.settings import Settings

T = TypeVar("T")


class ProducerError(Exception):
    exit_code = 2


class ManifestError(ProducerError):
    """The input as a whole cannot be used; nothing was submitted."""


class UnknownBatchError(ProducerError):
    def __init__(self, batch: str) -> None:
        super().__init__(
            f"expected the name of a batch, got {batch!r}, which Redis does not know; `producer status` lists them"
        )


class OtherManifestError(ProducerError):
    """The batch has more or fewer jobs than the manifest."""


class RedisUnusableError(ProducerError):
    exit_code = 3


@contextmanager
def redis_errors(settings: Settings) -> Iterator[None]:
    """Map what redis-py and kombu raise to one error with a message for people."""
    try:
        yield
    except (RedisError, KombuError, TimeoutError) as error:
        # A batch that kombu could not publish is a KombuError of its own; Redis' answer is its cause.
        redis_said = error.__cause__ if isinstance(error.__cause__, RedisError) else error
        raise RedisUnusableError(f"Redis at {address(settings)} {_what(redis_said)}") from error


def address(settings: Settings) -> str:
    """Where Redis is, without user and password."""
    return urlsplit(settings.redis_url).netloc.rpartition("@")[2] or settings.redis_url


def _what(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, RedisFullError):
        return "is full (maxmemory) and takes no more"
    if isinstance(error, RedisRefusedError):
        return f"refuses the command for now ({error.status_code}: {text}); run it again when Redis is well"
    if isinstance(error, (AuthenticationError, NoPermissionError)):
        return f"refuses us: {text}; DOWNPOUR_REDIS_URL and DOWNPOUR_REDIS_PASSWORD_FILE say who we are"
    return f"cannot be used: {text or type(error).__name__}; is it running? DOWNPOUR_REDIS_URL says where it is"


def bounded(call: Callable[[], T], seconds: float) -> T:
    """What the call returns or raises, or ``TimeoutError`` after that time.

    Looking up a host name knows no bound of its own, and a first call connects; so they run in a thread that we leave
    behind.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:  # noqa: BLE001, RUF100 - raised again by the caller
            errors.append(error)

    thread = threading.Thread(target=run, name="bounded call", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answers[0]
