"""What may be done with a file after it was verified and before it gets its name: a table of named steps.

A step is plain Python that knows no pool and no Celery: it reads the file a piece at a time, asks between pieces
whether it may go on, and returns its outcome in a few letters. It runs where the job runs, on purpose: in a child of
prefork, in a thread that shares the GIL, or in a greenlet that holds the hub until the step is over. So what a pool
makes of CPU work is what one's own code would see.

The record's notes have the outcome and the seconds: ``links: 321, 0.52 s``. A file that was there already was
published once, and its step is not done again.
Kept true by ``tests/unit/test_steps.py`` and ``tests/pools/test_steps.py``.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path

from download.errors import Ended, StepError

PIECE = 16 * 1024  # bytes; a few milliseconds of parsing

Step = Callable[[Path, Callable[[], None]], str]


def run(name: str, file: Path, check: Callable[[], None]) -> tuple[str, float]:
    """Do a step; its outcome as people read it, and the seconds that it took.

    Args:
        check: asked between pieces; what it raises ends the step.

    Raises:
        StepError: there is no such step, or it failed.
    """
    step = STEPS.get(name)
    if step is None:
        raise StepError(f"expected a step out of {', '.join(sorted(STEPS))}, got {name!r}; the file is not published")
    begun = time.monotonic()
    try:
        outcome = step(file, check)
    except (Ended, OSError):
        raise
    except Exception as error:
        raise StepError(f"step {name}: {type(error).__name__}: {error}; the file is not published") from error
    took = time.monotonic() - begun
    return f"{name}: {outcome}, {took:.4f} s", took


def links(file: Path, check: Callable[[], None]) -> str:
    """How many links an HTML page has: a parser in pure Python, which holds the GIL."""
    parser = _Links()
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    with file.open("rb") as page:
        while piece := page.read(PIECE):
            check()
            parser.feed(decode(piece))
    parser.feed(decode(b"", final=True))
    parser.close()
    return str(parser.found)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and any(name == "href" and value for name, value in attrs):
            self.found += 1


STEPS: Mapping[str, Step] = {"links": links}
