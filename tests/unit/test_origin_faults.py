"""Each fault of the origin does what its table row says, asserted on raw bytes or through urllib3.

What a download notices by itself is not asserted here a second time: ``tests/golden/faults.tsv`` has its words, with
the number of bytes that came.
"""

import socket
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
import urllib3

from origin import server
from origin.content import Entity
from origin.server import ROUTES
from tests import hostile_origin
from tests.hostile_origin import table
from tests.hostile_origin.quirks import ESCAPES
from tests.origin_process import OriginProcess

SIZE = 4000
QUERY = f"?name=n&size={SIZE}"
ENTITY = Entity("n", SIZE)
WHOLE = ENTITY.read(0, SIZE)
HALF = WHOLE[: SIZE // 2]


@pytest.fixture(scope="module")
def http() -> urllib3.PoolManager:
    return urllib3.PoolManager(retries=False, timeout=10)


class Client:
    """Gets one fault again and again, as the downloads of one key do."""

    def __init__(self, origin: OriginProcess, fault: str, key: str = "") -> None:
        """The key defaults to the fault's name."""
        self.origin = origin
        self.target = f"/faults/{fault}{'&' if '?' in fault else '?'}name=n&size={SIZE}&key={key or quote(fault)}"

    def get(self, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Return status, headers with lower-case names, and the body bytes as they came."""
        return parse(self.origin.raw(self.target, *headers, method=method))


def parse(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(": ") for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value for name, _, value in fields}, body


def edition(number: int) -> bytes:
    return Entity("n", SIZE, number).read(0, SIZE)


def test_the_tables_and_the_code_name_the_same_paths() -> None:
    served, hostile = table(server.__doc__), table(hostile_origin.__doc__)
    rows = {**served, **hostile}
    bases = {path if path in ROUTES else path.rpartition("/")[0] for path in rows}
    bases = {"/paced" if path.startswith("/paced") else path for path in bases}
    assert bases == set(ROUTES)
    assert {path: served[path] for path in served if path in hostile} == {
        path: hostile[path] for path in hostile if path in served
    }


@pytest.mark.parametrize("path", sorted(table(hostile_origin.__doc__)))
def test_a_head_request_ends_with_the_head_whatever_the_fault(origin: OriginProcess, path: str) -> None:
    concrete = path.replace("/SECONDS", "/0").replace("/CODE", "/404").replace("/STATUS", "/503").replace("/N", "/3")
    raw = origin.raw(f"{concrete}{QUERY}&key=head&every=0&kib=1&url=/healthz", method="HEAD")
    assert raw.endswith(b"\r\n\r\n") or path == "/faults/cut-headers"
    assert WHOLE[:100] not in raw


@pytest.mark.parametrize("fault", ["resume", "resume-date"])
def test_resume_is_cut_once_and_then_continues(origin: OriginProcess, fault: str) -> None:
    client = Client(origin, fault)
    _, first, half = client.get()
    validator = first["last-modified"] if fault == "resume-date" else first["etag"]
    status, headers, rest = client.get(f"Range: bytes={len(half)}-", f"If-Range: {validator}")
    assert (first["content-length"], status, half + rest) == (str(SIZE), 206, WHOLE)
    assert headers["content-range"] == f"bytes {len(half)}-{SIZE - 1}/{SIZE}"
    assert ("etag" in headers) == (fault == "resume")


def test_keys_do_not_know_each_other_and_heads_do_not_count(origin: OriginProcess) -> None:
    first, second = Client(origin, "resume", key="one"), Client(origin, "resume", key="two")
    assert first.get(method="HEAD")[0] == 200
    assert [len(first.get()[2]), len(second.get()[2])] == [SIZE // 2, SIZE // 2]
    assert [len(first.get()[2]), len(second.get()[2])] == [SIZE, SIZE]


def test_changed_content_catches_a_client_that_splices(origin: OriginProcess) -> None:
    client = Client(origin, "changed-content")
    _, first, half = client.get()
    assert half == edition(1)[: SIZE // 2]
    status, second, body = client.get(f"Range: bytes={len(half)}-", f"If-Range: {first['etag']}")
    assert (status, body) == (200, edition(2))
    assert first["etag"] != second["etag"]
    assert first["last-modified"] != second["last-modified"]
    # Without If-Range it gets what it asks for, and has its splice.
    status, _, rest = client.get(f"Range: bytes={len(half)}-")
    assert (status, rest) == (206, edition(3)[len(half) :])


def test_changed_no_etag_gives_nothing_to_notice_it_by(origin: OriginProcess) -> None:
    client = Client(origin, "changed-no-etag")
    _, first, half = client.get()
    status, second, rest = client.get(f"Range: bytes={len(half)}-")
    assert (status, rest) == (206, edition(2)[len(half) :])
    assert not {"etag", "last-modified"} & (set(first) | set(second))


def test_changed_weak_etag_stays_the_same_and_never_holds_for_a_range(origin: OriginProcess) -> None:
    client = Client(origin, "changed-weak-etag")
    _, first, half = client.get()
    status, second, body = client.get(f"Range: bytes={len(half)}-", f"If-Range: {first['etag']}")
    assert first["etag"] == second["etag"] == 'W/"equivalent"'
    assert (status, body) == (200, edition(2))


@pytest.mark.parametrize(
    ("fault", "status", "content_range", "body"),
    [
        ("lying-range", 206, "bytes 1999-3998/4000", WHOLE[1999:3999]),
        ("lying-total", 206, "bytes 2000-3999/5000", WHOLE[2000:]),
        ("range-ignored", 200, None, WHOLE),
        ("range-416", 416, "bytes */4000", b""),
    ],
)
def test_an_answer_to_a_range_lies_after_an_honest_half(
    origin: OriginProcess, fault: str, status: int, content_range: str | None, body: bytes
) -> None:
    client = Client(origin, fault)
    _, first, half = client.get()
    assert half == HALF
    answer = client.get("Range: bytes=2000-", f"If-Range: {first['etag']}")
    assert (answer[0], answer[1].get("content-range"), answer[2]) == (status, content_range, body)
    assert client.get()[2] == WHOLE


@pytest.mark.parametrize("code", [200, 204, 304, 404, 418, 599])
def test_any_status_can_be_had_on_a_connection_that_goes_on(
    origin: OriginProcess, http: urllib3.PoolManager, code: int
) -> None:
    assert http.request("GET", f"{origin.url}/faults/status/{code}").status == code
    assert http.request("GET", f"{origin.url}/healthz").data == b"ok\n"


def test_retry_after_says_when_in_seconds_or_as_a_date(origin: OriginProcess) -> None:
    client = Client(origin, "retry-after/3")
    status, headers, _ = client.get()
    assert (status, headers["retry-after"]) == (503, "3")
    assert client.get()[2] == WHOLE
    status, headers, _ = Client(origin, "retry-after/30?form=date&status=429").get()
    assert status == 429
    wait = parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)
    assert 25 < wait.total_seconds() <= 31


@pytest.mark.parametrize("path", ["resume", "changed-content", "flaky/503", "retry-after/1"])
def test_a_fault_that_counts_refuses_to_count_without_a_key(origin: OriginProcess, path: str) -> None:
    status, _, body = parse(origin.raw(f"/faults/{path}"))
    assert status == 400
    assert b"expected key=" in body


@pytest.mark.parametrize("path", ["status/99", "status/600", "status/x", "bomb?size=1e12", "redirect-chain/-1"])
def test_a_senseless_parameter_is_refused(origin: OriginProcess, path: str) -> None:
    assert parse(origin.raw(f"/faults/{path}"))[0] == 400


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2/", "file:///etc/passwd", "http://user:word@host/", "//evil/\\", "http://h/\xe9 \x01"]
)
def test_redirect_to_points_anywhere_byte_for_byte(origin: OriginProcess, url: str) -> None:
    encoded = quote(url.encode("latin-1"), safe="")
    status, headers, _ = parse(origin.raw(f"/faults/redirect-to?status=307&url={encoded}"))
    assert (status, headers["location"]) == (307, url)


def test_disposition_is_sent_verbatim(origin: OriginProcess) -> None:
    value = "attachment; filename=\"../\xe9\"; filename*=UTF-8''%E2%82%AC"
    _, headers, body = parse(origin.raw(f"/faults/disposition{QUERY}&value={quote(value.encode('latin-1'))}"))
    assert (headers["content-disposition"], body) == (value, WHOLE)


def test_the_bomb_is_small_on_the_wire_and_large_after_it(origin: OriginProcess) -> None:
    _, headers, body = parse(origin.raw("/faults/bomb"))
    assert (headers["content-encoding"], headers["content-length"]) == ("gzip", str(len(body)))
    assert len(body) < 250_000
    unpacker, size = zlib.decompressobj(zlib.MAX_WBITS | 16), 0
    while not unpacker.eof:
        size += len(unpacker.decompress(body, 2**20))
        body = unpacker.unconsumed_tail
    assert size == 200_000_000


def test_each_quirk_frames_the_file_as_its_row_says(origin: OriginProcess) -> None:
    for fault, head in {
        "length-list": b"Content-Length: 4000, 4000\r\n",
        "length-twice": b"Content-Length: 4000\r\nContent-Length:   4000  \r\n",
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "many-headers": b"X-H: 1\r\n" * 150,
        "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 4000\n\n",
        "folded": b"Content-Length:\r\n 4000\r\n",
        "terse": b"HTTP/1.1 200\r\ncontent-length:4000\r\nx-empty:\r\n",
        "junk-before-length": b"OK\r\nthis is no header\r\nContent-Length",
        "junk-after-length": b"4000\r\nthis is no header\r\nX",
        "blank-before-colon": b"Content-Length : 4000",
        "icy": b"ICY 200 OK\r\n",
        "informational": b"HTTP/1.1 103 Early Hints\r\n",
        "odd-chunks": b'\r\n\r\n00007d0;ext="a;b"  \r\n',
        "chunks-and-length": b"Content-Length: 5000\r\n\r\n7d0\r\n",
        "gzip-chunks": b"gzip, chunked\r\n\r\n7d0\r\n",
        "kept-and-closed": b"Connection: keep-alive\r\n",
        "http10": b"HTTP/1.0 200 OK\r\n",
    }.items():
        raw = origin.raw(f"/faults/{fault}{QUERY}")
        assert head in raw, fault
        assert raw.endswith(WHOLE) or (
            HALF in raw and raw.endswith((b"\r\n0\r\n\r\n", b"\r\n0\r\nX-Sum: 1\r\n\r\n"))
        ), fault


@pytest.mark.parametrize(
    ("fault", "location"),
    [
        ("redirect-blank", " /faults/redirect-blank/a b.bin?name=n&size=4000 \t"),
        ("redirect-utf8", "/faults/redirect-utf8/ž日.bin?name=n&size=4000".encode().decode("latin-1")),
        ("redirect-query", "?hop=1&name=n&size=4000"),
        ("redirect-empty", ""),
        ("redirect-nowhere", None),
        ("redirect-cookie", "/faults/redirect-cookie/in?name=n&size=4000"),
        ("redirect-self", "/faults/redirect-self?name=n&size=4000"),
        ("login.bin", "/faults/login.bin/sign-in"),
    ],
)
def test_a_redirect_says_what_its_row_says(origin: OriginProcess, fault: str, location: str | None) -> None:
    status, headers, _ = parse(origin.raw(f"/faults/{fault}{QUERY}"))
    assert (status, headers.get("location")) == (302, location)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("redirect-blank/a%20b.bin", (), 200),
        ("redirect-blank/a+b.bin", (), 400),
        ("redirect-query", ("X: y",), 302),
        ("redirect-cookie/in", (), 403),
        ("redirect-cookie/in", ("Cookie: tok=abc",), 200),
        ("redirect-self", ("Cookie: seen=1",), 200),
        ("part-unasked", (), 206),
        ("part-unsaid", (), 206),
        ("challenge", (), 202),
        (f"escapes/{ESCAPES}", (), 200),
        (f"escapes/{ESCAPES.upper()}", (), 403),
    ],
)
def test_a_quirk_has_its_status(origin: OriginProcess, path: str, headers: tuple[str, ...], status: int) -> None:
    got, said, body = parse(origin.raw(f"/faults/{path}{QUERY}", *headers))
    assert got == status
    assert body == WHOLE or status not in (200, 206)
    assert (said.get("content-range") == "bytes 0-3999/4000") == (path == "part-unasked")


@pytest.mark.parametrize(("fault", "first"), [("not-modified", 304), ("accepted", 202), ("forbidden-for-now", 403)])
def test_a_first_answer_is_another_one(origin: OriginProcess, fault: str, first: int) -> None:
    client = Client(origin, fault)
    status, headers, _ = client.get()
    assert (status, headers.get("retry-after")) == (first, None if first == 304 else "1")
    assert client.get()[::2] == (200, WHOLE)


def test_a_client_that_closes_in_the_middle_of_a_request_does_no_harm(origin: OriginProcess) -> None:
    with origin.connect() as client:
        client.sendall(b"GET /files/x HTTP/1.1\r\nHo")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    assert origin.raw("/healthz").endswith(b"ok\n")


def test_no_fault_is_a_defect_of_the_origin(origin: OriginProcess) -> None:
    """Given all the tests before, I expect nothing on stderr but the line of readiness."""
    assert list(origin.stderr) == [f"origin listening on {origin.url}"]
