"""What the origin says about a file before it is downloaded: length and sha256, so that the worker can verify both."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

import urllib3

from ledger.jobs import Job
from producer.comparison.scenarios import PlannedJob
from producer.errors import ProducerError

_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]+):")
_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)  # the origin hashes a large file before it answers


class OriginError(ProducerError):
    """The origin cannot be used."""


def look_up(origin_url: str, planned: Sequence[PlannedJob]) -> list[Job]:
    """The jobs for the planned files, each with the length and the digest that the origin's HEAD promises.

    Raises:
        OriginError: it does not answer, or not as expected.
    """
    with urllib3.PoolManager(retries=False, timeout=_TIMEOUT) as http:
        known: dict[str, tuple[str, int]] = {}
        for each in planned:
            if each.path not in known:
                known[each.path] = _look_up(http, origin_url.rstrip("/") + each.path)
    return [
        Job(origin_url.rstrip("/") + each.path, each.filename, *known[each.path], step=each.step) for each in planned
    ]


def _look_up(http: urllib3.PoolManager, url: str) -> tuple[str, int]:
    """The digest in hex, and the length."""
    try:
        answer = http.request("HEAD", url)
    except urllib3.exceptions.HTTPError as error:
        raise OriginError(
            f"the origin does not answer on {url}: {error}; start it, or set DOWNPOUR_ORIGIN_URL to where it is"
        ) from error
    match = _DIGEST.search(answer.headers.get("Repr-Digest", ""))
    length = answer.headers.get("Content-Length", "")
    if answer.status != 200 or match is None or not length.isdigit():
        got = f"{answer.status}, Content-Length {length!r}, Repr-Digest {answer.headers.get('Repr-Digest')!r}"
        raise OriginError(f"HEAD {url}: expected 200 with Content-Length and a sha-256 Repr-Digest, got {got}")
    try:
        digest = base64.b64decode(match[1], validate=True)
    except binascii.Error as error:
        raise OriginError(f"HEAD {url}: expected base64 in Repr-Digest, got {match[1]!r}") from error
    return digest.hex(), int(length)
