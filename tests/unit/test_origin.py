"""The origin's well-behaved paths, over real sockets and against the pure content."""

import asyncio
import base64
import hashlib
import html
import json
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from origin.content import BLOCK_BYTES, Entity
from origin.http import parse_range, plan
from origin.server import TRY
from tests.hostile import ROWS
from tests.origin_process import OriginProcess

SIZES = st.integers(0, 3 * BLOCK_BYTES)


@pytest.fixture(scope="module")
def origin() -> Iterator[OriginProcess]:
    """The demo's own, without the tests' faults."""
    with OriginProcess(module="origin") as process:
        yield process


@pytest.fixture(scope="module")
def http() -> urllib3.PoolManager:
    return urllib3.PoolManager(retries=False, timeout=10)


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def test_content_depends_on_name_size_and_edition_only() -> None:
    known = hashlib.sha256(Entity("a", 200_000).read(0, 200_000)).hexdigest()
    assert Entity("a", 200_000).sha256().hex() == known
    # Pinned: a benchmark of next year must download the same bytes.
    assert known == "8c55c0f6e86defd50311fea4ee40663669f5850e24a943775fd0efa4f7a8a15e"
    others = [Entity("b", 200_000), Entity("a", 200_001), Entity("a", 200_000, edition=1)]
    for other in others:
        assert other.read(0, 64) != Entity("a", 200_000).read(0, 64)
        assert other.etag != Entity("a", 200_000).etag


def test_no_two_blocks_are_alike_even_within_a_gigabyte() -> None:
    entity = Entity("large", 1024**3)
    starts = {entity.read(i * BLOCK_BYTES, i * BLOCK_BYTES + 64) for i in range(1024**3 // BLOCK_BYTES)}
    tails = {entity.read((i + 1) * BLOCK_BYTES - 64, (i + 1) * BLOCK_BYTES) for i in range(1000)}
    assert len(starts) == 1024**3 // BLOCK_BYTES
    assert len(tails) > 990  # the middle of a block differs too, not its stamp alone


@given(size=SIZES, first=SIZES, last=SIZES)
def test_any_part_is_a_slice_of_the_whole(size: int, first: int, last: int) -> None:
    entity = Entity("slice", size)
    assert entity.read(first, last) == entity.read(0, size)[first:last]
    assert b"".join(entity.pieces(0, size, 1000)) == entity.read(0, size)


@given(size=SIZES, first=SIZES, length=st.integers(1, BLOCK_BYTES), suffix=SIZES)
def test_range_headers_mean_what_rfc_9110_says(size: int, first: int, length: int, suffix: int) -> None:
    whole = bytes(size)
    asked = {
        f"bytes={first}-{first + length - 1}": len(whole[first : first + length]),
        f"bytes={first}-": len(whole[first:]),
        f"bytes=-{suffix}": min(size, suffix),
    }
    for text, expected in asked.items():
        parsed = parse_range(text, size)
        assert parsed is not None
        assert parsed[1] - parsed[0] == expected


@pytest.mark.parametrize("text", ["bytes=5-4", "bytes=-", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "", "bytes 0-1"])
def test_a_range_that_is_malformed_or_not_single_is_ignored(text: str) -> None:
    assert parse_range(text, 100) is None


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 3 * BLOCK_BYTES), data=st.data())
def test_a_served_range_is_that_part_of_the_file(
    origin: OriginProcess, http: urllib3.PoolManager, size: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size + 10))
    entity = Entity("part.bin", size)
    response = http.request(
        "GET", f"{origin.url}/files/part.bin?size={size}", headers={"Range": f"bytes={first}-{last}"}
    )
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {first}-{min(last, size - 1)}/{size}"
    assert response.data == entity.read(first, last + 1)


def test_a_file_comes_with_all_that_a_download_can_check(origin: OriginProcess, http: urllib3.PoolManager) -> None:
    entity = Entity("réport.tar.gz", 300_000)
    response = http.request("GET", f"{origin.url}/files/r%C3%A9port.tar.gz?size=300000")
    assert response.status == 200
    assert response.data == entity.read(0, entity.size)
    assert response.headers["Content-Length"] == "300000"
    assert response.headers["ETag"] == entity.etag
    assert response.headers["Last-Modified"] == "Sat, 01 Feb 2025 00:00:00 GMT"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Type"] == "application/gzip"
    digest = base64.b64encode(entity.sha256()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"


def test_a_large_get_does_not_wait_for_its_digest_but_a_head_does(
    origin: OriginProcess, http: urllib3.PoolManager
) -> None:
    url = f"{origin.url}/files/large.bin?size=20000000"
    first = http.request("GET", url)
    head = http.request("HEAD", url)
    second = http.request("GET", url)
    assert "Repr-Digest" not in first.headers
    expected = base64.b64encode(hashlib.sha256(first.data).digest()).decode()
    assert head.headers["Repr-Digest"] == second.headers["Repr-Digest"] == f"sha-256=:{expected}:"
    assert head.data == b""


@pytest.mark.parametrize("name", ["../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%00", "%ff%fe", "a/b//c"])
def test_a_name_is_only_a_seed(origin: OriginProcess, name: str) -> None:
    head, _, body = origin.raw(f"/files/{name}?size=100").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert len(body) == 100


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"If-None-Match": "ETAG"}, 304),
        ({"If-None-Match": 'W/ETAG, "x"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"', "If-Modified-Since": "DATE"}, 200),
        ({"If-Modified-Since": "DATE"}, 304),
        ({"If-Modified-Since": "Fri, 31 Jan 2025 00:00:00 GMT"}, 200),
        ({"If-Modified-Since": "no date"}, 200),
        ({"Range": "bytes=10-19"}, 206),
        ({"Range": "bytes=-1"}, 206),
        ({"Range": "bytes=10-19", "If-Range": "ETAG"}, 206),
        ({"Range": "bytes=10-19", "If-Range": "DATE"}, 206),
        ({"Range": "bytes=10-19", "If-Range": "W/ETAG"}, 200),
        ({"Range": "bytes=10-19", "If-Range": '"x"'}, 200),
        ({"Range": "bytes=10-19", "If-Range": "Sun, 02 Feb 2025 00:00:00 GMT"}, 200),
        ({"Range": "bytes=100-"}, 416),
        ({"Range": "bytes=-0"}, 416),
        ({"Range": "bytes=10-19", "If-None-Match": "ETAG"}, 304),
    ],
)
def test_conditions_and_ranges_decide_the_status(
    origin: OriginProcess, http: urllib3.PoolManager, headers: dict[str, str], status: int
) -> None:
    entity = Entity("c", 100)
    real = {
        name: text.replace("ETAG", entity.etag).replace("DATE", entity.last_modified) for name, text in headers.items()
    }
    response = http.request("GET", f"{origin.url}/files/c?size=100", headers=real)
    assert response.status == status == plan(entity, "GET", {n.lower(): v for n, v in real.items()}).status
    if status == 416:
        assert response.headers["Content-Range"] == "bytes */100"


def test_one_connection_serves_many_requests_even_pipelined_ones(origin: OriginProcess) -> None:
    asked = b"GET /files/x?size=10 HTTP/1.1\r\n\r\n" * 5 + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
    with origin.connect() as client:
        client.sendall(asked)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200 OK") == 6
    assert answer.count(Entity("x", 10).read(0, 10)) == 5
    assert answer.endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
        (b"POST /files/x HTTP/1.1\r\n\r\n", 405),
        (b"GET /files/x?size=-1 HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET /files/x?size=nan HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET /paced/soon/x HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 65536, 431),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_a_request_it_does_not_serve_gets_the_right_status(
    origin: OriginProcess, request_bytes: bytes, status: int
) -> None:
    with origin.connect() as client:
        client.sendall(request_bytes)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_a_page_has_its_links_and_never_changes(origin: OriginProcess, http: urllib3.PoolManager) -> None:
    first = http.request("GET", f"{origin.url}/pages/7.html?links=30")
    assert first.headers["Content-Type"].startswith("text/html")
    assert first.data.count(b"<a href=") == 30
    assert first.data == http.request("GET", f"{origin.url}/pages/7.html?links=30").data
    assert http.request("GET", f"{origin.url}/pages/7.txt").status == 400


def test_the_pace_is_even_and_ends_on_time(origin: OriginProcess) -> None:
    """When 50 kB are paced over one second, I expect about half after half a second."""
    arrivals: list[tuple[float, int]] = []
    with origin.connect() as client:
        started = time.monotonic()
        client.sendall(b"GET /paced/1.0/p?size=50000 HTTP/1.1\r\nConnection: close\r\n\r\n")
        while data := client.recv(65536):
            arrivals.append((time.monotonic() - started, len(data)))
    early = sum(length for at, length in arrivals if at < 0.5)
    assert 15_000 < early < 30_000
    record = origin.wait_for_request(lambda r: r["path"].startswith("/paced/1.0/p"))
    assert 1.0 <= record["seconds"] < 1.3
    assert 8 <= len(arrivals) <= 21


@pytest.mark.parametrize(
    ("target", "headers", "seconds"),
    [
        ("/paced/0.8/q?size=8000", ["Range: bytes=6000-"], 0.2),
        ("/paced/0.3/first?size=8000&first=0.2", [], 0.3),
        ("/paced/0.3/empty?size=0", [], 0.3),
        ("/paced/0/now?size=8000", [], 0.0),
    ],
)
def test_ranges_late_starts_and_empty_files_keep_the_pace(
    origin: OriginProcess, target: str, headers: list[str], seconds: float
) -> None:
    origin.raw(target, *headers)
    record = origin.wait_for_request(lambda r: r["path"] == target)
    assert seconds <= record["seconds"] < seconds + 0.3


def test_a_thousand_paced_clients_are_served_side_by_side() -> None:
    """Given 1,000 clients at once, when each is paced over 2 s, I expect all whole, side by side and cheap."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))

    async def download(port: int, number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET /paced/2/f{number}?size=20000 HTTP/1.1\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = await reader.read(-1)
        writer.close()
        return answer.partition(b"\r\n\r\n")[2]

    async def download_all(port: int) -> list[bytes]:
        async with asyncio.timeout(90):
            return await asyncio.gather(*[download(port, number) for number in range(1000)])

    with OriginProcess(module="origin") as fleet:
        bodies = asyncio.run(download_all(fleet.port))
        log, memory = fleet.requests(), peak_mib(fleet.pid)
        ticks = sum(int(field) for field in Path(f"/proc/{fleet.pid}/stat").read_text().split()[13:15])
    assert all(body == Entity(f"f{number}", 20_000).read(0, 20_000) for number, body in enumerate(bodies))
    seconds = [record["seconds"] for record in log]
    assert len(seconds) == 1000
    assert min(seconds) >= 2.0
    assert max(seconds) < 60  # side by side: one after the other they would take 2,000; the rest is the machine's
    assert memory < 120
    assert ticks / os.sysconf("SC_CLK_TCK") < 2.0  # CPU seconds, start included; about 0.8 when quiet


def test_a_body_that_nobody_reads_stays_out_of_memory_and_ends_with_the_client() -> None:
    """Given a client that asks for 10 GiB and reads nothing, I expect flat memory and a log line when it goes."""
    with OriginProcess(module="origin") as lonely:
        with lonely.connect() as client:
            client.sendall(b"GET /files/huge?size=10737418240 HTTP/1.1\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
            # Others are served while that body is stuck.
            assert lonely.raw("/files/other?size=1000000").endswith(Entity("other", 1_000_000).read(999_000, 1_000_000))
        record = lonely.wait_for_request(lambda r: "huge" in r["path"])
        assert record["aborted"] is True
        assert record["bytes"] < 50_000_000
        assert peak_mib(lonely.pid) < 80


def test_the_access_log_tells_each_request(origin: OriginProcess) -> None:
    origin.raw("/files/logged?size=100&x=%22", "Range: bytes=90-", "User-Agent: a/1")
    record = origin.wait_for_request(lambda r: "logged" in r["path"])
    assert record.pop("t") == pytest.approx(time.time(), abs=60)
    assert 0 <= record.pop("seconds") < 5
    assert record.pop("client").startswith("127.0.0.1:")
    assert record == {
        "method": "GET",
        "path": "/files/logged?size=100&x=%22",
        "status": 206,
        "bytes": 10,
        "range": "bytes=90-",
        "aborted": False,
        "user_agent": "a/1",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_open_answers_logged(tmp_path: Path, number: signal.Signals) -> None:
    """Given a paced answer and a digest of a terabyte, when a signal comes, I expect exit code 0 within 2 s."""
    log = tmp_path / "access.jsonl"
    with (
        OriginProcess(access_log=log, module="origin") as busy,
        busy.connect() as slow,
        busy.connect() as hashing,
    ):
        slow.sendall(b"GET /paced/600/x HTTP/1.1\r\n\r\n")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        hashing.sendall(b"HEAD /files/terabyte?size=1000000000000 HTTP/1.1\r\n\r\n")
        assert busy.raw("/healthz").endswith(b"ok\n")
        busy.process.signal(number)
        assert busy.process.wait(2) == 0
        assert list(busy.stderr) == [f"origin listening on {busy.url}"]
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert {(r["path"], r["aborted"]) for r in records} >= {
        ("/paced/600/x", True),
        ("/files/terabyte?size=1000000000000", True),
    }


def test_the_front_page_lists_what_is_served_and_the_command_that_downloads_it(
    origin: OriginProcess, http: urllib3.PoolManager
) -> None:
    text = http.request("GET", origin.url + "/").data.decode()
    tried = dict(re.findall(r"^(/.+)\n    .+\n    make producer ARGS=\"submit --wait '(.+)'\"$", text, re.MULTILINE))
    assert [path.replace("key=1", "key=NEW") for path in tried] == re.findall("^/.*", TRY, re.MULTILINE)
    assert tried == {path: origin.url + path for path in tried}
    kinds = ("files", "paced", "pages", "status", "flaky", "retry-after", "cut-body")
    heads = {kind: http.request("HEAD", next(url for url in tried.values() if f"/{kind}/" in url)) for kind in kinds}
    assert {kind: head.status for kind, head in heads.items()} == dict.fromkeys(kinds, 200) | {
        "status": 404,
        "flaky": 503,
        "retry-after": 503,
    }
    assert heads["retry-after"].headers["Retry-After"] == "5"
    flaky = next(url for url in tried.values() if "/flaky/" in url)
    assert [http.request("GET", flaky).status for _ in range(3)] == [503, 503, 200]
    with pytest.raises((urllib3.exceptions.IncompleteRead, urllib3.exceptions.ProtocolError)):
        http.request("GET", next(url for url in tried.values() if "/cut-body/" in url))


def test_a_browser_gets_links_and_another_key_on_each_page(origin: OriginProcess, http: urllib3.PoolManager) -> None:
    pages = [http.request("GET", origin.url + "/", headers={"Accept": "text/html, */*"}) for _ in range(2)]
    assert {page.headers["Content-Type"] for page in pages} == {"text/html; charset=utf-8"}
    links = [re.findall(r'^<a href="(.+)">\1</a>$', page.data.decode(), re.MULTILINE) for page in pages]
    assert [html.unescape(link) for link in links[0] if "key" not in link] == [
        path for path in re.findall("^/.*", TRY, re.MULTILINE) if "NEW" not in path
    ]
    assert len(links[0]) == len(links[1])
    assert sum(first != second for first, second in zip(*links, strict=True)) == TRY.count("NEW")


def test_in_a_container_the_front_page_names_the_url_that_the_workers_know(http: urllib3.PoolManager) -> None:
    with OriginProcess(module="origin", options=("--url", "http://origin:8080")) as inside:
        text = http.request("GET", inside.url + "/").data.decode()
    assert "docker compose run --rm producer submit --wait 'http://origin:8080/paced/8/a.bin'\n" in text
    assert text.count("'http://origin:8080/") == text.count("submit --wait") == len(re.findall("^/", TRY, re.MULTILINE))


def test_a_host_header_cannot_write_into_the_page(origin: OriginProcess) -> None:
    page = origin.raw("/", "Accept: text/html", "Host: <script>").decode()
    assert "<script>" not in page
    assert "http://&lt;script&gt;/paced/8/a.bin" in page


def test_the_demo_has_four_faults_and_no_other(origin: OriginProcess) -> None:
    assert {fault for fault in ROWS if b" 404 " not in origin.raw(fault, method="HEAD").partition(b"\r\n")[0]} == {
        "/faults/cut-body",
        "/faults/status/CODE",
        "/faults/flaky/STATUS",
        "/faults/retry-after/SECONDS",
    }
