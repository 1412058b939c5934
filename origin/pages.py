"""Deterministic HTML pages, for jobs that parse what they download."""

import base64
import hashlib
from functools import lru_cache

PROSE = (
    "queue worker process thread coroutine broker message lease ledger attempt orphan digest range "
    "origin rain cloud river drop storm basin gutter delta spring tide"
)
WORDS = PROSE.split()
PARAGRAPH_WORDS = 60


@lru_cache(16)  # a page of 10,000 links is 5 MB
def page_and_digest(number: int, links: int) -> tuple[str, str]:
    """Return page `number` and the sha-256 of its UTF-8 in base64."""
    text = page(number, links)
    return text, base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def page(number: int, links: int) -> str:
    """Return page `number`: a paragraph and a link, `links` times; every fourth link is a page."""
    parts = [f"<li><p>{_prose(number, i)}</p>{_link(number, i)}</li>" for i in range(links)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>Page {number}</title></head>\n<body>\n<h1>Page {number}</h1>\n<ol>\n"
        + "\n".join(parts)
        + "\n</ol>\n</body>\n</html>\n"
    )


def _link(number: int, index: int) -> str:
    if index % 4 == 3:
        target = (number * 31 + index) % 1000
        return f'<a href="/pages/{target}.html?links=50">page {target}</a>'
    return f'<a href="/files/page-{number}-{index}.bin?size=1024">file {index}</a>'


def _prose(number: int, index: int) -> str:
    seed = hashlib.shake_128(b"%d/%d" % (number, index)).digest(PARAGRAPH_WORDS)
    return " ".join(WORDS[byte % len(WORDS)] for byte in seed).capitalize() + "."
