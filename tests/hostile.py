"""What must become of a download from each row of the origin's table of faults, one job per row.

The table stands in ``tests/hostile_origin/__init__.py``; a row that has no case here fails
``tests/pools/test_every_fault.py``, and so does one that is not in ``docs/downloaders.md``.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from ledger.jobs import FailureKind
from origin.content import Entity
from tests import hostile_origin
from tests.hostile_origin.answers import zeros_gzipped
from tests.hostile_origin.quirks import ESCAPES, LOGIN

SIZE = 200_000  # bytes; enough to be worth continuing
BOMB = 200_000_000
TIMES = 3  # attempts that a job has

# A silence is noticed before it counts as slow. The bomb, were it to go off, would be too large.
LIMITS: dict[str, Any] = {"read_timeout": 2.0, "low_speed": 200, "low_speed_window": 3.0, "max_bytes": 1_000_000}
ALLOWED = frozenset({"127.0.0.1/32"})  # not all of loopback: one row leads elsewhere on this machine

ROWS = hostile_origin.table(hostile_origin.__doc__)

_CUT, _CHANGED = FailureKind.TRUNCATED, FailureKind.CHANGED


@dataclass(frozen=True)
class Case:
    row: str  # of the table
    path: str  # with parameters; ``{key}`` is a text of one download's own
    ends: tuple[FailureKind | None, ...]  # of the attempts, in order; None: a file
    edition: int = 0  # of the file that must come
    raw: str = ""  # gzip: the file is stored as it came
    note: str = ""  # that must be in the record

    @property
    def name(self) -> str:
        """A name for the file."""
        return self.row.split("/")[2]

    @property
    def works(self) -> bool:
        return self.ends[-1] is None

    def url(self, origin: str, key: str, inner: int = 9) -> str:
        path, _, query = self.path.partition("?")
        query = f"size={SIZE}&{query}" if "size=" not in query else query
        return f"{origin}/faults/{path}?{query.replace('{key}', key).replace('{inner}', str(inner))}"

    @cached_property
    def content(self) -> bytes:
        """What is right to have under the final name."""
        if self.row == "/faults/bomb":
            return zeros_gzipped(BOMB)
        if self.row == "/faults/login.bin":
            return LOGIN.encode()
        whole = Entity(self.name, SIZE, self.edition).read(0, SIZE)
        return gzip.compress(whole, mtime=0) if self.raw else whole

    @cached_property
    def acceptable(self) -> tuple[bytes, ...]:
        """What somebody else could have under the final name and be right: any edition, and what was unpacked."""
        editions = (Entity(self.name, SIZE, edition).read(0, SIZE) for edition in range(2 * TIMES))
        return () if self.row in ("/faults/bomb", "/faults/login.bin") else (self.content, *editions)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def _fails(path: str, kind: FailureKind, row: str = "", times: int = 1) -> Case:
    return Case(row or f"/faults/{path.partition('?')[0]}", path, (kind,) * times)


def _works(
    path: str, row: str = "", ends: tuple[FailureKind, ...] = (), *, edition: int = 0, raw: str = "", note: str = ""
) -> Case:
    return Case(row or f"/faults/{path.partition('?')[0]}", path, (*ends, None), edition, raw, note)


INNER = "http://127.0.0.2:{inner}/secret"  # not allowed, though this machine's own; ``inner`` is a port
EVIL_NAME = quote('attachment; filename="../../../evil.sh"', safe="")

CASES = (
    _fails("cut-body", _CUT, times=TIMES),
    _fails("cut-chunked", _CUT, times=TIMES),
    _fails("cut-headers", _CUT, times=TIMES),
    _fails("drip-body?every=0.05", FailureKind.SLOW, times=TIMES),
    _fails("drip-headers?every=0.05", FailureKind.TIMEOUT, times=TIMES),
    _fails("stall?after=1000", FailureKind.TIMEOUT, times=TIMES),
    _works("slow-start/0.5", "/faults/slow-start/SECONDS"),
    _works("no-length", note="length: unverified"),
    _fails("empty-no-length", FailureKind.EMPTY),
    _works("chunked"),
    _fails("wrong-length-short", FailureKind.PROTOCOL, times=TIMES),
    _fails("wrong-length-long", _CUT, times=TIMES),
    _fails("reset", FailureKind.RESET, times=TIMES),
    _fails("bad-headers", FailureKind.PROTOCOL, times=TIMES),
    _fails("huge-headers", FailureKind.PROTOCOL, times=TIMES),
    _works("resume?key={key}", ends=(_CUT,), note=f"resumed from byte {SIZE // 2}"),
    _works("resume-date?key={key}", ends=(_CUT,), note=f"resumed from byte {SIZE // 2}"),
    _works("changed-content?key={key}", ends=(_CUT,), edition=2),
    _works("changed-no-etag?key={key}", ends=(_CUT,), edition=2),
    _works("changed-weak-etag?key={key}", ends=(_CUT,), edition=2),
    _works("changed-ignores-if-range?key={key}", ends=(_CUT, _CHANGED), edition=3),
    _works("lying-range?key={key}", ends=(_CUT, _CHANGED)),
    _works("lying-total?key={key}", ends=(_CUT, _CHANGED)),
    _works("range-ignored?key={key}", ends=(_CUT,)),
    _works("range-416?key={key}", ends=(_CUT,)),
    _fails("status/404", FailureKind.STATUS, "/faults/status/CODE"),
    _works("flaky/503?key={key}", "/faults/flaky/STATUS", ends=(FailureKind.SERVER,)),
    _works("retry-after/1?key={key}", "/faults/retry-after/SECONDS", ends=(FailureKind.SERVER,)),
    _fails("redirect-loop", FailureKind.REDIRECT),
    _works("redirect-chain/3", "/faults/redirect-chain/N"),
    _fails(f"redirect-to?url={INNER}", FailureKind.REFUSED),
    _works(f"disposition?value={EVIL_NAME}"),
    _works("encoded", raw="gzip", note="content-encoding: gzip, stored raw"),
    _works(f"bomb?size={BOMB}", raw="gzip", note="content-encoding: gzip, stored raw"),
    _works("length-list"),
    _works("length-twice"),
    _works("many-headers"),
    _works("bare-lf"),
    _works("folded"),
    _works("terse"),
    _fails("junk-before-length", FailureKind.PROTOCOL, times=TIMES),
    _works("junk-after-length"),
    _fails("blank-before-colon", FailureKind.PROTOCOL, times=TIMES),
    _fails("icy", FailureKind.PROTOCOL, times=TIMES),
    _works("informational"),
    _works("odd-chunks"),
    _works("chunks-and-length"),
    _fails("gzip-chunks", FailureKind.PROTOCOL, times=TIMES),
    _works("kept-and-closed"),
    _works("http10", note="length: unverified"),
    _works("redirect-blank"),
    _works("redirect-utf8"),
    _works("redirect-query"),
    _fails("redirect-empty", FailureKind.REDIRECT),
    _fails("redirect-nowhere", FailureKind.STATUS),
    _works("redirect-cookie"),
    _works("redirect-self"),
    _works("login.bin", note="text/html where login.bin was asked for"),
    _works("part-unasked"),
    _fails("part-unsaid", FailureKind.PROTOCOL, times=TIMES),
    _works("not-modified?key={key}"),
    _works("accepted?key={key}", ends=(FailureKind.SERVER,)),
    _works("forbidden-for-now?key={key}", ends=(FailureKind.SERVER,)),
    _fails("challenge", FailureKind.STATUS),
    _works(f"escapes/{ESCAPES}", "/faults/escapes"),
)
