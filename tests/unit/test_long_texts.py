"""What servers and manifests write is read in time that grows with its length and no faster: 64 KiB take no second."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

import pytest

from download.addresses import Target
from download.errors import fit_to_show, redact, shown
from download.filenames import check_filename, clean, from_disposition
from download.http1 import Head
from download.validators import content_range, repr_sha256, retry_after, strong_date, strong_etag
from ledger.records import encode_validators
from producer.urls import check_url

LONG = 64 * 1024  # characters
PIECES = [
    "x", "?", "&", "=", ";", "://", "@", "a://", "?token", "&token?", ";sig=", "http://a@", "/", "../", "\\", " ",
    "\t", '"', ';a="', ";a=\\", '\\"', ";a*=", "%ff", "'", ",", ", sha-256=:", "1", "-", "W/", ".", "con.", "é",
    "\u202e", "(", "0x",
]  # fmt: skip
HERE = Target.parse("http://host.example/")


def _refusing(read: Callable[[str], object]) -> Callable[[str], object]:
    def call(text: str) -> object:
        try:
            return read(text)
        except Exception as error:  # saying why must not take long either
            return str(error)

    return call


READERS: dict[str, Callable[[str], object]] = {
    "fit_to_show": fit_to_show,
    "redact": redact,
    "shown": shown,
    "check_url": _refusing(check_url),
    "Target.parse": _refusing(lambda text: Target.parse(f"http://{text}")),
    "Target.join": _refusing(HERE.join),
    "from_disposition": lambda text: from_disposition(f"attachment; filename={text}"),
    "from_disposition, quoted": lambda text: from_disposition(f'attachment; filename="{text}'),
    "from_disposition, extended": lambda text: from_disposition(f"attachment; filename*=utf-8''{text}"),
    "content_range": lambda text: content_range(f"bytes {text}"),
    "repr_sha256": repr_sha256,
    "strong_etag": lambda text: strong_etag(f'"{text}'),
    "strong_date": lambda text: strong_date(text, text),
    "validators": lambda text: encode_validators(f'"{text}"', text),
    "retry_after": lambda text: retry_after(text, 0.0),
    "clean": clean,
    "check_filename": _refusing(check_filename),
    "Head": _refusing(lambda text: Head(HERE, [b"HTTP/1.1 200 OK\r\n", f"A: {text}\r\n".encode(), b"\r\n"])),
}


@pytest.mark.parametrize("reader", list(READERS))
def test_a_long_text_is_read_in_no_time(reader: str) -> None:
    slow = {}
    for first, second in product(PIECES, ("", "x", "=", "?")):
        text = (first + second) * (LONG // len(first + second))
        begun = time.process_time()
        READERS[reader](text)
        if (took := time.process_time() - begun) > 1:
            slow[first + second] = round(took, 1)
    assert slow == {}
